"""How far a forecast is from the truth, frame by frame, as the papers measure it."""

from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from zoo.errors import ZooError

__all__ = ["PSNR_CAP", "FrameMetrics", "persistence"]

PSNR_CAP = 100.0
"""PSNR in dB of a perfect frame, which would be infinite, and of any that comes so near."""


class FrameMetrics:
    """MSE, MAE, SSIM and PSNR of every lead time, averaged over sequences.

    MSE and MAE are summed over the pixels and channels of a frame. SSIM (Wang et al. 2004)
    uses a Gaussian window of 11×11 pixels, σ = 1.5, and averages over the pixels whose window
    lies inside the frame, as the paper, MS-LSTM's published code and scikit-image do. (The
    mean of torchmetrics itself does so in 1.4; in 1.7 it counts mirrored borders, too, and
    the persistence forecast of Moving MNIST reads 0.70 instead of 0.59.) In a frame of less
    than 11 pixels the window is the largest odd one that fits, σ in proportion. PSNR in dB is
    10·log₁₀(1/MSE a pixel), at most ``PSNR_CAP``.

    Sums are float64, so that the result does not depend on how sequences are batched.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # each (T,)
        self._sequences = 0

    @torch.no_grad()
    def update(self, forecast: Tensor, truth: Tensor) -> None:
        """Add a batch; both are (B, T, C, H, W), scaled to [0, 1], and forecast is clipped to it.

        Raises ZooError for shapes that differ, from each other or from earlier batches in T,
        for integer frames, and for frames below 3 pixels.
        """
        if forecast.ndim != 5 or forecast.shape != truth.shape:
            raise ZooError(
                f"forecast is {tuple(forecast.shape)}, truth {tuple(truth.shape)}; "
                "give both as the same (B, T, C, H, W)"
            )
        if not (forecast.is_floating_point() and truth.is_floating_point()):
            raise ZooError(
                f"forecast is {forecast.dtype}, truth {truth.dtype}; scale both to float in [0, 1]"
            )
        if self._sums and len(self._sums["mse"]) != forecast.shape[1]:
            raise ZooError(
                f"got {forecast.shape[1]} frames after batches of {len(self._sums['mse'])}; "
                "use a FrameMetrics for each horizon"
            )
        if forecast.device.type == "mps":  # has no float64
            forecast, truth = forecast.cpu(), truth.cpu()
        forecast, truth = forecast.double().clamp(0, 1), truth.double()
        error = forecast - truth
        mse = reduce(error**2, "b t c h w -> b t", "sum")
        pixels = error[0, 0].numel()
        scores = {
            "mse": mse,
            "mae": reduce(error.abs(), "b t c h w -> b t", "sum"),
            "ssim": _ssim(forecast, truth),
            "psnr": -10 * (mse / pixels).clamp(min=10 ** (-PSNR_CAP / 10)).log10(),
        }
        for name, score in scores.items():
            self._sums[name] = self._sums.get(name, 0) + reduce(score, "b t -> t", "sum").cpu()
        self._sequences += len(forecast)

    def compute(self) -> dict[str, Any]:
        """The means so far, ready for JSON; raises ZooError without any, and for NaN.

        ``{"mse": …, "mae": …, "ssim": …, "psnr": …, "per_frame": {"mse": [T values], …}}``,
        the former being the mean of the latter.
        """
        if not self._sequences:
            raise ZooError("no sequences to measure; call update first, with data that has some")
        means = {name: total / self._sequences for name, total in self._sums.items()}
        if any(mean.isnan().any() for mean in means.values()):
            raise ZooError(
                "the metrics are NaN as the forecast or the truth holds NaN; "
                "mask missing data, or train with a smaller step if the model diverged"
            )
        return {name: mean.mean().item() for name, mean in means.items()} | {
            "per_frame": {name: mean.tolist() for name, mean in means.items()}
        }


def persistence(frames: Tensor, horizon: int) -> Tensor:
    """The forecast that nothing moves, for every step a model would make.

    (B, T, C, H, W) → (B, T − 1 + horizon, C, H, W): every frame but the last predicts the one
    after it, the last stays for ``horizon`` frames. Raises ZooError for a horizon below 1.
    """
    if frames.ndim != 5 or not frames.shape[1] or horizon < 1:
        raise ZooError(
            f"frames are {tuple(frames.shape)}, horizon {horizon}; "
            "give (B, T, C, H, W) with a frame to hold and a horizon of 1 or more"
        )
    last = frames[:, -1:].expand(-1, horizon, -1, -1, -1)  # (B, horizon, C, H, W)
    return torch.cat([frames[:, :-1], last], dim=1)


def _ssim(forecast: Tensor, truth: Tensor) -> Tensor:
    """SSIM of every frame: (B, T, C, H, W) twice → (B, T)."""
    height, width = forecast.shape[-2:]
    radius = min(5, (height - 1) // 2, (width - 1) // 2)
    if radius < 1:
        raise ZooError(f"frames are {height}×{width}; SSIM needs 3×3 pixels or more")
    # SSIM lives on small differences, so no TF32: a GPU takes float64. A CPU, which has none
    # of TF32, is some ten times faster in float32 and as good to about six digits.
    if forecast.device.type == "cpu":
        forecast, truth = forecast.float(), truth.float()
    _, pixelwise = structural_similarity_index_measure(
        rearrange(forecast, "b t c h w -> (b t) c h w"),
        rearrange(truth, "b t c h w -> (b t) c h w"),
        sigma=0.3 * radius,  # torchmetrics' window reaches 3.5·σ, rounded: this radius
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    inside = pixelwise[..., radius:-radius, radius:-radius].double()
    return reduce(inside, "(b t) c h w -> b t", "mean", b=len(forecast))
