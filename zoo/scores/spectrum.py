"""The radially averaged power spectrum, and how far a forecast's is from the truth's."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange, reduce
from torch import Tensor

from zoo.config import Data
from zoo.scores.metric import Metric

__all__ = ["SpectralError", "power_spectrum"]

#: Power added to every wavenumber, that of white noise with a standard deviation of 0.001.
NOISE = 1e-6


class SpectralError(Metric):
    """Distance of the power spectra of forecast and truth in dB.

    The root of the mean squared difference of 10 log₁₀ of the radially averaged power, over all
    wavenumbers but 0. A blurred forecast lacks power at high wavenumbers; where things are does
    not matter. Frames with missing pixels are left out.
    """

    definition: ClassVar[str] = (
        "rms over wavenumbers >= 1 of the difference of 10 log10 of the radially averaged power "
        "per pixel + 1e-6, in dB; frames with missing pixels are left out"
    )

    def __call__(self, forecast: Tensor, truth: Tensor, known: Tensor, *, data: Data) -> Tensor:
        """Measure each frame of a sequence, (T,)."""
        levels = [10 * (power_spectrum(x)[:, 1:] + NOISE).log10() for x in (forecast, truth)]
        distance = (levels[0] - levels[1]).square().mean(dim=-1).sqrt()  # (T, K) to (T,)
        complete = rearrange(known, "t c h w -> t (c h w)").all(dim=-1)
        return distance.masked_fill(~complete, torch.nan)


def power_spectrum(frames: Tensor) -> Tensor:
    """Return the mean power at every whole wavenumber, averaged over channels.

    Wavenumber k collects the waves with k − 0.5 to k + 0.5 periods over the shorter side of the
    frame, in any direction, up to half its pixels. White noise of variance v has the power v.

    Args:
        frames: (T, C, H, W).

    Returns:
        (T, K + 1), for the wavenumbers 0 to K = min(H, W) // 2.
    """
    height, width = frames.shape[-2:]
    shorter = min(height, width)
    waves = torch.fft.fft2(frames, norm="ortho").abs().square()
    power = reduce(waves, "t c h w -> t (h w)", "mean")
    rows = torch.fft.fftfreq(height, device=frames.device, dtype=frames.dtype) * shorter
    columns = torch.fft.fftfreq(width, device=frames.device, dtype=frames.dtype) * shorter
    rings = rearrange(torch.hypot(rows[:, None], columns).round().long(), "h w -> (h w)")
    inside = rings <= shorter // 2  # without the corners, where not all directions exist
    sums = power.new_zeros(len(power), shorter // 2 + 1)
    sums.index_add_(1, rings[inside], power[:, inside])
    return sums / rings[inside].bincount(minlength=shorter // 2 + 1)
