"""How far a forecast is from the truth, by lead time, as the papers and the fields measure it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from zoo.config import Data
from zoo.errors import ZooError
from zoo.units import to_physical

__all__ = ["BALANCE", "DEFINITIONS", "PSNR_CAP", "FrameMetrics", "persistence", "skill"]

PSNR_CAP = 100.0
"""PSNR in dB of a perfect frame, which would be infinite, and of any that comes so near."""

BALANCE = ((0.0, 1.0), (2.0, 2.0), (5.0, 5.0), (10.0, 10.0), (30.0, 30.0))
"""Weights of B-MSE and B-MAE: from so many mm/h on, so much (Shi et al. 2017, HKO-7)."""

CHUNK = 2**18
"""Values that are measured at once, which bounds the memory for large frames."""

#: What every metric is, for a report's protocol. The sums of a frame are of scaled values,
#: 0 to 1 in the range of the data.
DEFINITIONS = {
    "mse": "squared error summed over the pixels and channels of a frame",
    "mae": "absolute error summed over the pixels and channels of a frame",
    "ssim": "Gaussian window 11×11, sigma 1.5, data range 1, windows inside the frame",
    "ssim_7x7": "uniform window 7×7, sample covariance, data range 1, windows inside the frame",
    "psnr": f"10 log10(1/mse_mean) dB of each frame, at most {PSNR_CAP:g}",
    "gdl": "| |dy| - |dy^| | + | |dx| - |dx^| | summed over neighbouring pixels (alpha = 1)",
    "mse_mean": "squared error, mean over pixels",
    "mae_mean": "absolute error, mean over pixels",
    "mse_unit": "squared error in the unit of the data, mean over pixels",
    "mae_unit": "absolute error in the unit of the data, mean over pixels",
    "rmse_unit": "square root of the mean of mse_unit",
    "b_mse": "mse with weights 1, 2, 5, 10, 30 from 0, 2, 5, 10, 30 mm/h of the truth on",
    "b_mae": "mae with weights 1, 2, 5, 10, 30 from 0, 2, 5, 10, 30 mm/h of the truth on",
    "pod": "hits / (hits + misses), counts of all frames summed first",
    "far": "false alarms / (hits + false alarms), counts of all frames summed first",
    "csi": "hits / (hits + misses + false alarms), counts of all frames summed first",
    "hss": "Heidke skill score, counts of all frames summed first",
    "bias": "(hits + false alarms) / (hits + misses), counts of all frames summed first",
    "fss": "1 - sum (f - o)^2 / sum (f^2 + o^2), fractions of square windows, sums of all frames",
    "lpips": "LPIPS of AlexNet features (Zhang et al. 2018), frames as grey or RGB in [-1, 1]",
}

_SKILL = ("pod", "far", "csi", "hss", "bias")


class FrameMetrics:
    """Metrics of every lead time, over as many sequences as are given.

    Always: "mse", "mae" (the papers' sums over the pixels of a frame), "ssim", "ssim_7x7",
    "psnr", "gdl", "mse_mean", "mae_mean". Where the data have a unit: "mse_unit", "mae_unit",
    "rmse_unit". For rain rates: "b_mse" and "b_mae". For every threshold, in the unit of the
    data: "pod@2", "far@2", "csi@2", "hss@2", "bias@2", a value that equals it being above; and
    for every window of w × w pixels "fss@2/w". What each is stands in ``DEFINITIONS``.

    SSIM (Wang et al. 2004) uses a Gaussian window of 11×11 pixels, σ = 1.5, and averages over the
    pixels whose window lies inside the frame, as scikit-image does and as the published code of
    MS-RNN and MS-LSTM does with its single scale of MS-SSIM: the two are the same to rounding.
    (The mean of torchmetrics itself does so in 1.4; in 1.7 it counts mirrored borders, too, and
    the persistence forecast of Moving MNIST reads 0.70 instead of 0.59.) In a frame of less
    than 11 pixels the window is the largest odd one that fits, σ in proportion. "ssim_7x7" is
    scikit-image's default, which the published code of PredRNN and OpenSTL uses. PSNR in dB is
    10·log₁₀(1/MSE a pixel), at most ``PSNR_CAP`` (that of MS-RNN's code is at most 50).

    Where the truth is NaN, it is missing: nothing of it is counted. The sums of such a frame are
    those of its other pixels, times all pixels over these; SSIM and GDL take the windows and
    neighbours without a missing pixel; a frame without any is left out of the mean.

    Every sequence is measured by itself, counts are whole numbers and sums are exactly rounded
    (``math.fsum``), so that the result depends neither on batches nor on their order, nor on how
    many processes have shared the work (:meth:`merge`).

    Args:
        data: what the numbers mean; by default pictures.
        thresholds: in the unit of the data, for the categorical scores.
        windows: pixels, odd, for the fractions skill score at each threshold.
        lpips: whether to measure LPIPS too (``pip install lpips``, which downloads AlexNet).

    Raises ZooError for thresholds that the data cannot reach and for windows that are even.
    """

    def __init__(
        self,
        data: Data | None = None,
        *,
        thresholds: Sequence[float] = (),
        windows: Sequence[int] = (),
        lpips: bool = False,
    ) -> None:
        self.data = data or Data()
        low, high = self.data.limits
        for threshold in thresholds:
            if not low < threshold <= high:
                raise ZooError(
                    f"the threshold {threshold:g} {self.data.unit} is outside of what the data can "
                    f"tell, above {low:g} and up to {high:g}; choose others"
                )
        for window in windows:
            if window < 1 or window % 2 == 0:
                raise ZooError(f"the window is {window} pixels; it must be odd, 1 or more")
        self.thresholds, self.windows = tuple(map(float, thresholds)), tuple(windows)
        self._lpips = _load_lpips() if lpips else None
        # By metric, of every sequence (T,); NaN where a frame has nothing to measure.
        self._scores: dict[str, list[np.ndarray]] = {}
        self._counts = np.zeros((0, len(self.thresholds), 4), np.int64)  # (T, thresholds, a b c d)
        # By threshold and window, of every sequence (T, 2): Σ (f − o)² and Σ f² + o².
        self._fractions: dict[tuple[float, int], list[np.ndarray]] = {}

    @property
    def sequences(self) -> int:
        """How many have been measured."""
        return len(self._scores.get("mse", ()))

    @torch.no_grad()
    def update(self, forecast: Tensor, truth: Tensor, *, clip: bool = True) -> None:
        """Add a batch; both are (B, T, C, H, W), scaled so that the range of the data is [0, 1].

        The forecast is clipped to [0, 1] unless `clip` is False; the truth never is, so that an
        error in the unit of the data is one of the values that were observed. Truth may be NaN
        where it is missing. Raises ZooError for shapes that differ, from each
        other or from earlier batches in T, for integer frames, for frames below 3 pixels, and
        for a forecast that is NaN.
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
        time = forecast.shape[1]
        if self.sequences and len(self._counts) != time:
            raise ZooError(
                f"got {time} frames after batches of {len(self._counts)}; "
                "use a FrameMetrics for each horizon"
            )
        if forecast.device.type == "mps":  # has no float64
            forecast, truth = forecast.cpu(), truth.cpu()
        if not self.sequences:
            self._counts = np.zeros((time, len(self.thresholds), 4), np.int64)
        # One by one: how a sum over many is rounded depends on how many they are.
        forecast = forecast.double()
        forecast = forecast.clamp(0, 1) if clip else forecast
        for one, true in zip(forecast, truth.double(), strict=True):
            self._add(one, true)

    def merge(self, other: FrameMetrics) -> None:
        """Add what another one has measured, of other sequences in another process, say."""
        if (self.thresholds, self.windows) != (other.thresholds, other.windows):
            raise ZooError(
                f"the thresholds are {self.thresholds} and {other.thresholds}, the windows "
                f"{self.windows} and {other.windows}; merge metrics of one kind"
            )
        if not other.sequences:
            return
        if not self.sequences:
            self._counts = np.zeros_like(other._counts)
        if len(self._counts) != len(other._counts):
            raise ZooError(
                f"got {len(other._counts)} frames after batches of {len(self._counts)}; "
                "use a FrameMetrics for each horizon"
            )
        self._counts = self._counts + other._counts
        for name, rows in other._scores.items():
            self._scores.setdefault(name, []).extend(rows)
        for key, rows in other._fractions.items():
            self._fractions.setdefault(key, []).extend(rows)

    def compute(self, last: int | None = None) -> dict[str, Any]:
        """The figures so far, ready for JSON; raises ZooError without any, and for NaN forecasts.

        ``{"mse": …, "mae": …, …, "per_frame": {"mse": [T values], …}}``. The former are means of
        the latter over the `last` frames, or all; for scores of counts and sums, those are added
        up over the frames before dividing. None is a score that is not defined, such as the CSI
        of what never was and never was forecast.
        """
        if not self.sequences:
            raise ZooError("no sequences to measure; call update first, with data that has some")
        time = len(self._counts)
        chosen = range(time)[-last:] if last else range(time)
        whole: dict[str, float | None] = {}
        frames: dict[str, list[float | None]] = {}
        for name, rows in self._scores.items():
            means = [_mean([row[t] for row in rows]) for t in range(time)]
            frames[name] = means
            known = [m for t in chosen if (m := means[t]) is not None]
            whole[name] = math.fsum(known) / len(known) if known else None
        if "mse_unit" in frames:
            frames["rmse_unit"] = [None if m is None else math.sqrt(m) for m in frames["mse_unit"]]
            mean = whole["mse_unit"]
            whole["rmse_unit"] = None if mean is None else math.sqrt(mean)
        for i, threshold in enumerate(self.thresholds):
            counts = self._counts[:, i]
            each = [skill(counts[t]) for t in range(time)]
            total = skill(counts[list(chosen)].sum(axis=0))
            for name in _SKILL:
                frames[f"{name}@{threshold:g}"] = [scores[name] for scores in each]
                whole[f"{name}@{threshold:g}"] = total[name]
        for (threshold, window), rows in self._fractions.items():
            key = f"fss@{threshold:g}/{window}"
            frames[key] = [_fss([row[t] for row in rows]) for t in range(time)]
            whole[key] = _fss([row[t] for row in rows for t in chosen])
        return {**whole, "per_frame": frames}

    def counts(self) -> dict[str, list[list[int]]]:
        """By threshold, of every frame: hits, false alarms, misses, correct negatives."""
        return {
            f"{threshold:g}": self._counts[:, i].tolist()
            for i, threshold in enumerate(self.thresholds)
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the network of LPIPS, for another process."""
        return {**self.__dict__, "_lpips": None}

    def _add(self, forecast: Tensor, truth: Tensor) -> None:
        """Measure one sequence, (T, C, H, W) twice, of float64; large frames one by one."""
        some = max(1, CHUNK // truth[0].numel())
        parts = [
            self._measure(one, true)
            for one, true in zip(forecast.split(some), truth.split(some), strict=True)
        ]
        scores, tables, fractions = zip(*parts, strict=True)
        for name in scores[0]:
            row = torch.cat([score[name] for score in scores])  # (T,)
            self._scores.setdefault(name, []).append(row.cpu().numpy())
        for i in range(len(self.thresholds)):
            self._counts[:, i] += torch.cat([table[i] for table in tables]).cpu().numpy()
        for key in fractions[0]:
            rows = torch.cat([sums[key] for sums in fractions])  # (T, 2)
            self._fractions.setdefault(key, []).append(rows.cpu().numpy())

    def _measure(
        self, forecast: Tensor, truth: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor], dict[tuple[float, int], Tensor]]:
        """Scores (T,), contingency tables (T, 4) and sums of fractions (T, 2) of some frames."""
        known = ~truth.isnan()
        if (forecast.isnan() & known).any():
            raise ZooError(
                "the metrics are NaN as the forecast holds NaN; train with a smaller step if the "
                "model diverged"
            )
        share = reduce(known.double(), "t c h w -> t", "mean")  # of the frame that is known
        share = share.masked_fill(share == 0, torch.nan)
        truth = truth.where(known, 0.0)
        forecast = forecast.where(known, 0.0)
        pixels = truth[0].numel()
        error = forecast - truth
        mse = reduce(error**2, "t c h w -> t", "sum") / share
        mae = reduce(error.abs(), "t c h w -> t", "sum") / share
        scores = {
            "mse": mse,
            "mae": mae,
            "ssim": _ssim(forecast, truth, known),
            "ssim_7x7": _ssim_uniform(forecast, truth, known),
            "psnr": -10 * (mse / pixels).clamp(min=10 ** (-PSNR_CAP / 10)).log10(),
            "gdl": _gdl(forecast, truth, known),
            "mse_mean": mse / pixels,
            "mae_mean": mae / pixels,
        }
        if not self.data.is_picture:
            unit_forecast = to_physical(forecast, self.data)
            unit_truth = to_physical(truth, self.data)
            off = (unit_forecast - unit_truth).where(known, 0.0)
            scores["mse_unit"] = reduce(off**2, "t c h w -> t", "sum") / share / pixels
            scores["mae_unit"] = reduce(off.abs(), "t c h w -> t", "sum") / share / pixels
        else:
            unit_forecast, unit_truth = forecast, truth
        if self.data.unit == "mm/h":
            weight = torch.zeros_like(truth)
            for start, factor in BALANCE:
                weight = weight.masked_fill(_exceeds(unit_truth, start), factor)
            scores["b_mse"] = reduce(weight * error**2, "t c h w -> t", "sum") / share
            scores["b_mae"] = reduce(weight * error.abs(), "t c h w -> t", "sum") / share
        if self._lpips is not None:
            scores["lpips"] = _lpips_of(self._lpips, forecast, truth)
        tables: list[Tensor] = []
        fractions: dict[tuple[float, int], Tensor] = {}
        for threshold in self.thresholds:
            there = _exceeds(unit_forecast, threshold) & known
            true = _exceeds(unit_truth, threshold) & known
            cells = (there & true, there & ~true, ~there & true, ~there & ~true & known)
            counted = [reduce(cell.long(), "t c h w -> t", "sum") for cell in cells]
            tables.append(torch.stack(counted, dim=-1))  # (T, a b c d)
            for window in self.windows:
                fractions[threshold, window] = _fraction_sums(there, true, window)
        return scores, tables, fractions


def persistence(frames: Tensor, horizon: int) -> Tensor:
    """The forecast that nothing moves, for every step a model would make.

    (B, T, C, H, W) → (B, T − 1 + horizon, C, H, W): every frame but the last predicts the one
    after it, the last stays for ``horizon`` frames. Where a frame is missing (NaN), the last
    one that is known stands in, or 0. Raises ZooError for a horizon below 1.
    """
    if frames.ndim != 5 or not frames.shape[1] or horizon < 1:
        raise ZooError(
            f"frames are {tuple(frames.shape)}, horizon {horizon}; "
            "give (B, T, C, H, W) with a frame to hold and a horizon of 1 or more"
        )
    held = [frames[:, 0]]
    for frame in frames.unbind(dim=1)[1:]:
        held.append(frame.where(~frame.isnan(), held[-1]))
    frames = torch.stack(held, dim=1).nan_to_num(nan=0.0)
    last = frames[:, -1:].expand(-1, horizon, -1, -1, -1)  # (B, horizon, C, H, W)
    return torch.cat([frames[:, :-1], last], dim=1)


def _mean(values: list[float]) -> float | None:
    """The mean of the values that are not NaN, exactly rounded."""
    known = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None


def skill(counts: np.ndarray) -> dict[str, float | None]:
    """Scores of a contingency table: a hits, b false alarms, c misses, d correct negatives."""
    a, b, c, d = (int(count) for count in counts)

    def ratio(above: int, below: int) -> float | None:
        return above / below if below else None

    return {
        "pod": ratio(a, a + c),
        "far": ratio(b, a + b),
        "csi": ratio(a, a + b + c),
        "hss": ratio(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d)),
        "bias": ratio(a + b, a + c),
    }


def _exceeds(values: Tensor, threshold: float) -> Tensor:
    """Where values are at or above a threshold.

    The values have been scaled and back in float32, so that one that was the threshold may
    be below it by its last digits: 0.5 mm/h would be no hit of 0.5 mm/h.
    """
    return values >= threshold - 1e-5 * abs(threshold)


def _fraction_sums(forecast: Tensor, truth: Tensor, window: int) -> Tensor:
    """Σ (f − o)² and Σ f² + o² of a frame, (T, 2), f and o the fractions in square windows.

    Roberts and Lean (2008). Outside of the frame, and where the truth is missing, nothing
    exceeds, as in pysteps and scores.
    """
    both = torch.stack([forecast, truth]).double()  # (2, T, C, H, W)
    counts = F.avg_pool2d(
        rearrange(both, "k t c h w -> (k t c) 1 h w"), window, 1, window // 2, divisor_override=1
    )
    f, o = (rearrange(counts, "(k t c) 1 h w -> k t c h w", k=2, t=len(truth))) / window**2
    below = reduce(f**2 + o**2, "t c h w -> t", "sum")
    return torch.stack([reduce((f - o) ** 2, "t c h w -> t", "sum"), below], dim=-1)


def _fss(sums: list[np.ndarray]) -> float | None:
    above, below = (math.fsum(float(row[i]) for row in sums) for i in (0, 1))
    return 1 - above / below if below else None


def _gdl(forecast: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Gradient difference loss (Mathieu et al. 2016) of every frame, α = 1: (T,)."""
    total = torch.zeros(len(truth), dtype=truth.dtype, device=truth.device)
    for axis in (-2, -1):
        both = known.narrow(axis, 1, known.shape[axis] - 1) & known.narrow(
            axis, 0, known.shape[axis] - 1
        )
        off = (forecast.diff(dim=axis).abs() - truth.diff(dim=axis).abs()).abs() * both
        share = reduce(both.double(), "t c h w -> t", "mean")
        total += reduce(off, "t c h w -> t", "sum") / share.masked_fill(share == 0, torch.nan)
    return total


def _ssim(forecast: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """SSIM of every frame: (T, C, H, W) twice → (T,)."""
    height, width = forecast.shape[-2:]
    radius = min(5, (height - 1) // 2, (width - 1) // 2)
    if radius < 1:
        raise ZooError(f"frames are {height}×{width}; SSIM needs 3×3 pixels or more")
    # SSIM lives on small differences, so no TF32: a GPU takes float64. A CPU, which has none
    # of TF32, is some ten times faster in float32 and as good to about six digits.
    if forecast.device.type == "cpu":
        forecast, truth = forecast.float(), truth.float()
    _, pixelwise = structural_similarity_index_measure(
        forecast,
        truth,
        sigma=0.3 * radius,  # torchmetrics' window reaches 3.5·σ, rounded: this radius
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    inside = pixelwise[..., radius:-radius, radius:-radius].double()
    return _mean_where_whole(inside, known, 2 * radius + 1)


def _ssim_uniform(forecast: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """SSIM of a uniform window, 7×7 or the largest odd one that fits: (T, C, H, W) twice → (T,)."""
    window = min(7, *(side - 1 + side % 2 for side in forecast.shape[-2:]))

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, 1)

    sample = window**2 / (window**2 - 1)
    mu, nu = mean(forecast), mean(truth)
    var, nar = ((mean(x**2) - m**2) * sample for x, m in ((forecast, mu), (truth, nu)))
    cov = (mean(forecast * truth) - mu * nu) * sample
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mu * nu + c1) * (2 * cov + c2) / ((mu**2 + nu**2 + c1) * (var + nar + c2))
    return _mean_where_whole(score, known, window)


def _mean_where_whole(score: Tensor, known: Tensor, window: int) -> Tensor:
    """The mean of a frame over the windows without a missing pixel, NaN without any: (T,)."""
    if known.all():
        return reduce(score, "t c h w -> t", "mean")
    whole = F.max_pool2d((~known).float(), window, 1) == 0
    total = reduce(score.where(whole, 0.0), "t c h w -> t", "sum")
    return total / reduce(whole.double(), "t c h w -> t", "sum").where(
        whole.flatten(1).any(dim=1), torch.nan
    )


def _load_lpips() -> Any:
    try:
        import lpips
    except ImportError:
        raise ZooError("LPIPS needs the package lpips: pip install lpips") from None
    return lpips.LPIPS(net="alex", verbose=False).eval()


def _lpips_of(network: Any, forecast: Tensor, truth: Tensor) -> Tensor:
    if forecast.shape[1] not in (1, 3):
        raise ZooError(f"frames have {forecast.shape[1]} channels; LPIPS takes 1 (grey) or 3 (RGB)")
    network = network.to(forecast.device)
    pairs = [2 * x.float().expand(-1, 3, -1, -1) - 1 for x in (forecast, truth)]
    found: Tensor = network(*pairs).flatten().double()
    return found
