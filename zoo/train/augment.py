"""Augmentation: random changes of training sequences, the same for all frames of a sequence.

They depend only on the recipe's seed and the step number, so that a resumed run repeats them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
    numbers, size = generator(recipe.train.seed + 1, step), recipe.train.batch_size
    colors, crops = torch.rand(size, 5, generator=numbers), torch.rand(size, 3, generator=numbers)
    draws = torch.cat([colors, crops], dim=1)[rows]
    pairs = zip(sequences, draws.tolist(), strict=True)
    return torch.stack([_change(x, draw, settings) for x, draw in pairs])


def _change(x: Tensor, draw: list[float], settings: AugmentRecipe) -> Tensor:
    """Change one sequence (T, C, H, W) according to eight numbers from [0, 1)."""
    mirror, flip, turn, brightness, contrast, *crop = draw
    if settings.mirror and mirror < 0.5:
        x = x.flip(-1)
    if settings.flip and flip < 0.5:
        x = x.flip(-2)
    if settings.rotate:
        x = x.rot90(int(4 * turn), dims=(-2, -1))
    if settings.crop:
        x = _crop(x, settings.crop, *crop)
    if settings.brightness or settings.contrast:
        mean = x.nanmean()
        factor = 1 + settings.contrast * (2 * contrast - 1)
        x = mean + factor * (x - mean) + settings.brightness * (2 * brightness - 1)
        x = x.clamp(0, 1)
    return x


def _crop(x: Tensor, most: float, size: float, top: float, left: float) -> Tensor:
    """Cut out a part of the frames (T, C, H, W) and enlarge it to their size.

    Args:
        x: The frames.
        most: The largest share of height and width that is cut off.
        size: A number from [0, 1) that decides which share.
        top: One that decides the position of the part.
        left: Another.
    """
    full = x.shape[-2:]
    height, width = (max(1, round(side * (1 - most * size))) for side in full)
    top, left = int(top * (full[0] - height + 1)), int(left * (full[1] - width + 1))
    part = x[..., top : top + height, left : left + width]
    return F.interpolate(part, full, mode="bilinear", align_corners=False)
