"""FACL: the Fourier amplitude and correlation loss."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from zoo.config import Data
from zoo.losses.loss import Loss

__all__ = ["FACL"]

#: Power added to every frame. It bounds the gradient for frames with hardly any signal, and the
#: correlation of a frame with itself stays 1.
FLOOR = 1e-3


class FACL(Loss):
    """Fourier amplitude and correlation loss, for sharp forecasts (arXiv 2410.23159).

    With F and F′ the orthonormal Fourier transforms of the true and the forecast frame:

    - the amplitude loss, mean (|F| − |F′|)², is blind to positions and asks for sharpness;
    - the correlation loss, 1 − Re Σ F conj(F′) / √(Σ |F|² · Σ |F′|²), asks for positions.

    Training starts with the correlation and ends with the amplitude: the share of the correlation
    falls linearly from 1 to 0, and is 0 in the last part `alpha` of the training. The paper draws
    one of the two in every step with this probability; here every step has their mean, which is
    what the draw has on average. Both are multiplied by the values of a frame, as all losses are
    sums over a frame. Missing pixels are 0 in both frames.

    Attributes:
        alpha: share of the training that ends it with the amplitude loss alone.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1

    def __call__(
        self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data, progress: float
    ) -> Tensor:
        """Compute the loss of each sequence, (B,)."""
        f, g = (torch.fft.fft2(x.where(known, 0), norm="ortho") for x in (truth, forecast))
        share = max(0.0, 1 - progress / (1 - self.alpha)) if self.alpha < 1 else 0.0
        losses = share * _correlation_loss(f, g) + (1 - share) * _amplitude_loss(f, g)
        # (B, T, C) to (B,): the sum over channels, H and W, and the mean over time.
        return losses.sum(dim=2).mean(dim=1) * truth.shape[-2] * truth.shape[-1]


def _amplitude_loss(f: Tensor, g: Tensor) -> Tensor:
    """Return the mean squared difference of the amplitudes, (B, T, C)."""
    return (f.abs() - g.abs()).square().mean(dim=(-2, -1))


def _correlation_loss(f: Tensor, g: Tensor) -> Tensor:
    """Return one minus the correlation, (B, T, C), which is 0 if both are 0."""
    product = (f * g.conj()).real.sum(dim=(-2, -1))
    powers = f.abs().square().sum(dim=(-2, -1)), g.abs().square().sum(dim=(-2, -1))
    return 1 - (product + FLOOR) / ((powers[0] + FLOOR) * (powers[1] + FLOOR)).sqrt()
