"""The almost fair CRPS, which trains ensembles."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from zoo.config import Data
from zoo.losses.loss import Loss

__all__ = ["AlmostFairCRPS"]


class AlmostFairCRPS(Loss):
    """Almost fair continuous ranked probability score of an ensemble (arXiv 2412.15832).

    For M members x and the truth y, at every pixel:

        1 / M Σⱼ |xⱼ − y| − (1 − ε) / (2 M (M − 1)) Σⱼₖ |xⱼ − xₖ|,  ε = (1 − alpha) / M

    It is smallest on average if members and truth come from the same distribution. With alpha = 1
    it is the fair CRPS, under which one member may be anything where all others are perfect; with
    a little less, it may not.

    Attributes:
        members: the number of members M in training; forecasts can have more.
        alpha: 1 for the fair CRPS, 0 for the CRPS of the members as they are.
    """

    members: Annotated[int, Field(ge=2, le=64)] = 2
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.95

    @property
    def ensemble(self) -> int:
        """The number of forecasts of a sequence that the loss reads together."""
        return self.members

    def __call__(
        self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data, progress: float
    ) -> Tensor:
        """Compute the loss of each sequence, (B,)."""
        forecast = forecast.where(known, 0)  # (M, B, T, C, H, W), as the truth is 0 there, too
        count = len(forecast)
        distance = (forecast - truth).abs().mean(dim=0)  # (B, T, C, H, W)
        # Pair by pair, as all pairs at once would take M² / 2 times the memory of a forecast.
        pairs = [(j, k) for j in range(count) for k in range(j)]
        spread = sum((forecast[j] - forecast[k]).abs() / len(pairs) for j, k in pairs)
        epsilon = (1 - self.alpha) / count
        # Σⱼₖ counts each of the M (M − 1) / 2 pairs twice.
        return (distance - (1 - epsilon) / 2 * spread).sum(dim=(2, 3, 4)).mean(dim=1)
