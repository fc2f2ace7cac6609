"""Squared and absolute errors, pixel by pixel."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.config import Data
from zoo.losses.loss import Loss
from zoo.units import scale

__all__ = ["Pixelwise"]

Weight = Annotated[float, Field(ge=0)]


class Pixelwise(Loss):
    """L1 + L2, the papers' loss (arXiv 2304.07724, section 4), with weights by true value.

    With thresholds and weights they are the balanced errors B-MAE and B-MSE (Shi et al. 2017,
    arXiv 1706.03458).

    Attributes:
        l1: weight of the absolute error.
        l2: weight of the squared error.
        thresholds: boundaries between ranges of true values, in the unit of the data.
        weights: weight of the pixels in each range, one more than thresholds: weights[i] applies
            from thresholds[i − 1] up to thresholds[i].
    """

    l1: Weight = 1.0
    l2: Weight = 1.0
    thresholds: tuple[float, ...] = ()
    weights: tuple[Weight, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Pixelwise:
        if self.l1 == 0 and self.l2 == 0:
            raise ValueError("l1 and l2 are both 0; set at least one of them")
        if (self.thresholds or self.weights) and len(self.weights) != len(self.thresholds) + 1:
            raise ValueError(
                f"{len(self.thresholds)} thresholds need {len(self.thresholds) + 1} weights, got "
                f"{len(self.weights)}"
            )
        if any(a >= b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise ValueError("thresholds must increase")
        return self

    def __call__(
        self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data, progress: float
    ) -> Tensor:
        """Compute the loss of each sequence, (B,)."""
        error = forecast - truth
        pixelwise = self.l2 * error.square() + self.l1 * error.abs()
        if self.weights:
            thresholds = torch.tensor(self.thresholds).view(1, 1, -1)  # as frames (T, H, W)
            if thresholds.numel():
                thresholds = scale(thresholds, data, like=thresholds)
            thresholds = thresholds.flatten().to(truth)
            ranges = torch.bucketize(truth.contiguous(), thresholds, right=True)
            pixelwise = pixelwise * torch.tensor(self.weights).to(truth)[ranges]
        return pixelwise.where(known, 0).sum(dim=(2, 3, 4)).mean(dim=1)
