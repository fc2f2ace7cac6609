"""The gradient difference loss."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from zoo.config import Data
from zoo.losses.loss import Loss

__all__ = ["GradientDifference"]


class GradientDifference(Loss):
    """Gradient difference loss, which asks for edges as steep as true ones (arXiv 1511.05440).

    The sum over both directions of | |∂y| − |∂y′| |^alpha, where ∂ is the difference of two
    neighboring pixels; pairs with a missing pixel do not count. A constant shift costs nothing:
    add this loss to another.

    Attributes:
        alpha: the exponent.
    """

    alpha: Annotated[float, Field(ge=1, le=2)] = 1.0

    def __call__(
        self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data, progress: float
    ) -> Tensor:
        """Compute the loss of each sequence, (B,)."""
        total = truth.new_zeros(len(truth))
        for axis in (-2, -1):
            length = known.shape[axis] - 1
            both_known = known.narrow(axis, 0, length) & known.narrow(axis, 1, length)
            steps = (x.diff(dim=axis).where(both_known, 0).abs() for x in (forecast, truth))
            difference = next(steps) - next(steps)
            total = total + difference.abs().pow(self.alpha).sum(dim=(2, 3, 4)).mean(dim=1)
        return total
