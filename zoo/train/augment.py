"""Augmentation: random changes of training sequences, the same for all frames of a sequence.

They depend only on the recipe's seed and the step number, so that a resumed run repeats them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.train.recipe import AugmentRecipe, Recipe
from zoo.train.sampling import generator

__all__ = ["augment"]


def augment(sequences: Tensor, recipe: Recipe, step: int, rows: list[int]) -> Tensor:
    """Augment the rows of a batch that one process trains on; NaN stays NaN.

    Args:
        sequences: the rows (B, T, C, H, W), scaled to [0, 1].
        recipe: its table `augment` selects the changes.
        step: the step number.
        rows: the positions of the rows in the whole batch.
    """
    settings = recipe.augment
    if not settings.active:
        return sequences
    # Draw for every row and kind of change, used or not: options do not affect each other.
    draws = torch.rand(
        recipe.train.batch_size, 5, generator=generator(recipe.train.seed + 1, step)
    )[rows]
    pairs = zip(sequences, draws.tolist(), strict=True)
    return torch.stack([_change(x, draw, settings) for x, draw in pairs])


def _change(x: Tensor, draw: list[float], settings: AugmentRecipe) -> Tensor:
    """Change one sequence (T, C, H, W) according to five numbers from [0, 1)."""
    mirror, flip, turn, brightness, contrast = draw
    if settings.mirror and mirror < 0.5:
        x = x.flip(-1)
    if settings.flip and flip < 0.5:
        x = x.flip(-2)
    if settings.rotate:
        x = x.rot90(int(4 * turn), dims=(-2, -1))
    if settings.brightness or settings.contrast:
        mean = x.nanmean()
        factor = 1 + settings.contrast * (2 * contrast - 1)
        x = mean + factor * (x - mean) + settings.brightness * (2 * brightness - 1)
        x = x.clamp(0, 1)
    return x
