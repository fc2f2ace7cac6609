"""Sharpness: how steep the edges of a forecast are, compared with true ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import reduce
from torch import Tensor

from zoo.config import Data
from zoo.scores.metric import Metric

__all__ = ["Sharpness"]


class Sharpness(Metric):
    """Mean gradient of the forecast as a share of the truth's.

    It is 1 for a forecast as sharp as the truth, wherever its edges are, and less for a blurred
    one. Frames without any edge are left out.
    """

    definition: ClassVar[str] = (
        "sum of |dx| + |dy| of the forecast / that of the truth, over pairs of known pixels"
    )
    higher_is_better: ClassVar[bool] = True
    best: ClassVar[float | None] = 1.0

    def __call__(self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data) -> Tensor:
        """Measure each frame of a sequence, (T,)."""
        steep = _steepness(truth, known)
        return _steepness(forecast, known) / steep.masked_fill(steep == 0, torch.nan)


def _steepness(frames: Tensor, known: Tensor) -> Tensor:
    """Return the sum of absolute differences of neighboring pixels, (T,)."""
    total = frames.new_zeros(len(frames))
    for axis in (-2, -1):
        length = known.shape[axis] - 1
        both_known = known.narrow(axis, 0, length) & known.narrow(axis, 1, length)
        total += reduce(frames.diff(dim=axis).abs() * both_known, "t c h w -> t", "sum")
    return total
