"""Random crops of training sequences at full resolution, drawn by importance.

They depend only on the recipe's seed, the step and the row, so that a resumed run repeats them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.errors import ConfigError
from zoo.train.recipe import CropRecipe
from zoo.train.sampling import generator

__all__ = ["Crops"]

#: Importance of a crop where nothing happens, so that such crops are drawn now and then.
LEAST = 1e-3


class Crops(Dataset[Tensor]):
    """One crop of every sequence, the same for all of its frames.

    Several places are drawn, and one of them is chosen with a probability proportional to its
    importance.

    Args:
        dataset: the sequences, (T, C, H, W).
        recipe: size of the crops and their importance.
        seed: seed of the places.

    Raises:
        ConfigError: if the frames are smaller than the crops.
    """

    def __init__(self, dataset: Any, recipe: CropRecipe, seed: int) -> None:
        assert recipe.size is not None
        self.dataset, self.recipe, self.seed = dataset, recipe, seed
        self.height, self.width = recipe.size
        frame = dataset[0].shape[-2:]
        if frame[0] < self.height or frame[1] < self.width:
            raise ConfigError(
                f"crops of {self.height}×{self.width} do not fit into frames of "
                f"{frame[0]}×{frame[1]}; set crop.size"
            )

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """Return a crop of a sequence, (T, C, height, width).

        Args:
            key: the number of the sequence, and that of the draw.
        """
        number, draw = key
        sequence: Tensor = self.dataset[number]
        chance = generator(self.seed + 3, draw)
        crops = [self._crop(sequence, chance) for _ in range(self.recipe.candidates)]
        if len(crops) == 1:
            return crops[0]
        importance = torch.tensor([self._importance(crop) for crop in crops]) + LEAST
        chosen = int(torch.multinomial(importance, 1, generator=chance))
        return crops[chosen].clone()

    def _crop(self, sequence: Tensor, chance: torch.Generator) -> Tensor:
        rows, columns = (
            int(torch.randint(whole - part + 1, (), generator=chance))
            for whole, part in zip(sequence.shape[-2:], (self.height, self.width), strict=True)
        )
        return sequence[..., rows : rows + self.height, columns : columns + self.width]

    def _importance(self, crop: Tensor) -> float:
        """Return the mean value of a crop, or its mean change from frame to frame."""
        values = crop.nan_to_num(nan=0.0)
        if self.recipe.prefer == "moving":
            values = values.diff(dim=0).abs()
        return float(values.clamp(min=0).mean()) if self.recipe.prefer != "any" else 0.0
