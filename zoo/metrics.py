"""Metrics of a forecast by lead time, as in the papers and in forecast verification."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from zoo.config import Data
from zoo.errors import ConfigError, DataError
from zoo.scores import Metric
from zoo.units import to_physical

__all__ = ["BALANCE", "DEFINITIONS", "PSNR_CAP", "FrameMetrics", "skill_scores"]

PSNR_CAP = 100.0
"""Largest PSNR in dB; that of a perfect frame would be infinite."""

BALANCE = ((0.0, 1.0), (2.0, 2.0), (5.0, 5.0), (10.0, 10.0), (30.0, 30.0))
"""Weights of B-MSE and B-MAE: (rain rate in mm/h, weight from there on); Shi et al. 2017, HKO-7."""

CHUNK = 2**18
"""Values measured at once; bounds the memory for large frames."""

#: Definitions of the metrics. They are part of a report's protocol and of its id: changing a word
#: makes earlier scores incomparable.
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
    "lpips": "LPIPS of AlexNet features (Zhang et al. 2018), frames as gray or RGB in [-1, 1]",
}

SKILL_SCORES = ("pod", "far", "csi", "hss", "bias")


class FrameMetrics:
    """Metrics of every lead time, averaged over any number of sequences.

    Always: "mse", "mae" (the papers' sums over the pixels of a frame), "ssim", "ssim_7x7",
    "psnr", "gdl", "mse_mean", "mae_mean". If the data have a unit: "mse_unit", "mae_unit",
    "rmse_unit". For rain rates: "b_mse" and "b_mae". For every threshold, in the unit of the
    data: "pod@2", "far@2", "csi@2", "hss@2", "bias@2" (values equal to the threshold exceed it),
    and for every window of w × w pixels "fss@2/w". ``DEFINITIONS`` defines each of them.

    SSIM (Wang et al. 2004) uses a Gaussian window of 11×11 pixels, σ = 1.5, and averages over the
    pixels whose window is inside the frame. This agrees with scikit-image, and with the published
    code of MS-RNN and MS-LSTM (MS-SSIM with a single scale), to rounding. (The mean that
    torchmetrics returns does so in 1.4; in 1.7 it includes mirrored borders, so that persistence
    on Moving MNIST reaches 0.70 instead of 0.59.) In frames of less than 11 pixels the window is
    the largest odd one that fits, with σ in proportion. "ssim_7x7" is scikit-image's default,
    used by the published code of PredRNN and OpenSTL. PSNR in dB is 10·log₁₀(1/MSE per pixel), at
    most ``PSNR_CAP`` (in the code of MS-RNN, 50).

    NaN in the truth is missing and is not counted. Sums over a frame with missing pixels are
    scaled by all pixels / known pixels; SSIM and GDL use the windows and neighbors without a
    missing pixel; frames without any known pixel are left out of the mean.

    Every sequence is measured alone, counts are integers and sums are exactly rounded
    (``math.fsum``). So the results do not depend on batches, their order, or the number of
    processes that share the work (:meth:`merge`).

    Args:
        data: What the values mean; pictures by default.
        thresholds: Thresholds of the skill scores, in the unit of the data.
        windows: Windows of the fractions skill score in pixels, odd.
        lpips: Whether to measure LPIPS (needs ``pip install lpips``, which downloads AlexNet).
        metrics: Further metrics by name, which plugins offer.

    Raises:
        ConfigError: If a threshold is outside the range of the data, or a window is even.
    """

    def __init__(
        self,
        data: Data | None = None,
        *,
        thresholds: Sequence[float] = (),
        windows: Sequence[int] = (),
        lpips: bool = False,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        for name in metrics or {}:
            if name in DEFINITIONS:
                raise ConfigError(f"the metric {name!r} is always measured; rename the other one")
        self.metrics = dict(metrics or {})
        self.data = data or Data()
        low, high = self.data.limits
        for threshold in thresholds:
            if not low < threshold <= high:
                raise ConfigError(
                    f"the threshold {threshold:g} {self.data.unit} is outside the range of the "
                    f"data; expected more than {low:g} and at most {high:g}"
                )
        for window in windows:
            if window < 1 or window % 2 == 0:
                raise ConfigError(f"the window is {window} pixels; expected an odd number")
        self.thresholds, self.windows = tuple(map(float, thresholds)), tuple(windows)
        self._lpips = _load_lpips() if lpips else None
        # By metric, one (T,) per sequence; NaN for frames with nothing to measure.
        self._scores: dict[str, list[np.ndarray]] = {}
        self._counts = np.zeros((0, len(self.thresholds), 4), np.int64)  # (T, thresholds, a b c d)
        # By threshold and window, one (T, 2) per sequence: Σ (f − o)² and Σ f² + o².
        self._fractions: dict[tuple[float, int], list[np.ndarray]] = {}

    @property
    def sequences(self) -> int:
        """Number of sequences measured so far."""
        return len(self._scores.get("mse", ()))

    @torch.no_grad()
    def update(self, forecast: Tensor, truth: Tensor, *, clip: bool = True) -> None:
        """Add a batch.

        Args:
            forecast: (B, T, C, H, W), the range of the data scaled to [0, 1].
            truth: The same; NaN if missing. It is never clipped, so that errors in the unit of
                the data refer to the observed values.
            clip: Whether to clip the forecast to [0, 1].

        Raises:
            DataError: If shapes differ from each other or, in T, from earlier batches; if frames
                are integers or smaller than 3 pixels; or if the forecast contains NaN.
        """
        if forecast.ndim != 5 or forecast.shape != truth.shape:
            raise DataError(
                f"forecast is {tuple(forecast.shape)}, truth {tuple(truth.shape)}; "
                "expected the same (B, T, C, H, W)"
            )
        if not (forecast.is_floating_point() and truth.is_floating_point()):
            raise DataError(
                f"forecast is {forecast.dtype}, truth {truth.dtype}; scale both to float in [0, 1]"
            )
        time = forecast.shape[1]
        if self.sequences:
            self._check_length(time)
        else:
            self._counts = np.zeros((time, len(self.thresholds), 4), np.int64)
        if forecast.device.type == "mps":  # does not support float64
            forecast, truth = forecast.cpu(), truth.cpu()
        # One by one, as the rounding of a sum over a batch depends on the size of the batch.
        for sequence, true_sequence in zip(forecast, truth, strict=True):
            sequence = sequence.double()
            self._add(sequence.clamp(0, 1) if clip else sequence, true_sequence.double())

    def merge(self, other: FrameMetrics) -> None:
        """Add the sequences that another accumulator has measured, for example in another process.

        Raises:
            ConfigError: If its thresholds or windows differ.
            DataError: If its number of frames differs.
        """
        if (self.thresholds, self.windows) != (other.thresholds, other.windows):
            raise ConfigError(
                f"the thresholds are {self.thresholds} and {other.thresholds}, the windows "
                f"{self.windows} and {other.windows}; expected the same"
            )
        if not other.sequences:
            return
        if self.sequences:
            self._check_length(len(other._counts))
        else:
            self._counts = np.zeros_like(other._counts)
        self._counts = self._counts + other._counts
        for name, rows in other._scores.items():
            self._scores.setdefault(name, []).extend(rows)
        for key, rows in other._fractions.items():
            self._fractions.setdefault(key, []).extend(rows)

    def compute(self, last: int | None = None) -> dict[str, Any]:
        """Return the scores of all sequences so far, ready for JSON.

        Args:
            last: Average over the last frames only; by default over all.

        Returns:
            ``{"mse": …, "mae": …, …, "per_frame": {"mse": [T values], …}}``. The former are means
            of the latter, except for scores of counts and sums, which are added up over the
            frames before dividing. An undefined score is None, such as the CSI of an event that
            was neither observed nor forecast.

        Raises:
            DataError: If nothing has been measured.
        """
        if not self.sequences:
            raise DataError("no sequences have been measured; call update first")
        time = len(self._counts)
        chosen = list(range(time)[-last:] if last else range(time))
        means: dict[str, float | None] = {}
        per_frame: dict[str, list[float | None]] = {}
        for name, rows in self._scores.items():
            frames = per_frame[name] = [_mean(row[t] for row in rows) for t in range(time)]
            means[name] = _mean(frames[t] for t in chosen)
        if "mse_unit" in per_frame:
            per_frame["rmse_unit"] = [_sqrt(mean) for mean in per_frame["mse_unit"]]
            means["rmse_unit"] = _sqrt(means["mse_unit"])
        for i, threshold in enumerate(self.thresholds):
            counts = self._counts[:, i]
            by_frame = [skill_scores(counts[t]) for t in range(time)]
            total = skill_scores(counts[chosen].sum(axis=0))
            for name in SKILL_SCORES:
                per_frame[f"{name}@{threshold:g}"] = [scores[name] for scores in by_frame]
                means[f"{name}@{threshold:g}"] = total[name]
        for (threshold, window), rows in self._fractions.items():
            key = f"fss@{threshold:g}/{window}"
            per_frame[key] = [_fss([row[t] for row in rows]) for t in range(time)]
            means[key] = _fss([row[t] for row in rows for t in chosen])
        return {**means, "per_frame": per_frame}

    def counts(self) -> dict[str, list[list[int]]]:
        """Return [hits, false alarms, misses, correct negatives] of every frame, by threshold."""
        return {
            f"{threshold:g}": self._counts[:, i].tolist()
            for i, threshold in enumerate(self.thresholds)
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the network of LPIPS when sent to another process."""
        return {**self.__dict__, "_lpips": None}

    def _check_length(self, time: int) -> None:
        if time != len(self._counts):
            raise DataError(
                f"got {time} frames after batches of {len(self._counts)}; "
                "use a FrameMetrics for each horizon"
            )

    def _add(self, forecast: Tensor, truth: Tensor) -> None:
        """Measure one sequence, (T, C, H, W) of float64, in chunks if the frames are large."""
        length = max(1, CHUNK // truth[0].numel())
        chunks = [
            self._measure(*chunk)
            for chunk in zip(forecast.split(length), truth.split(length), strict=True)
        ]
        for name in chunks[0].scores:
            row = torch.cat([chunk.scores[name] for chunk in chunks])  # (T,)
            self._scores.setdefault(name, []).append(row.cpu().numpy())
        for i in range(len(self.thresholds)):
            self._counts[:, i] += torch.cat([chunk.counts[i] for chunk in chunks]).cpu().numpy()
        for key in chunks[0].fractions:
            sums = torch.cat([chunk.fractions[key] for chunk in chunks])  # (T, 2)
            self._fractions.setdefault(key, []).append(sums.cpu().numpy())

    def _measure(self, forecast: Tensor, truth: Tensor) -> _Measured:
        """Measure some frames of one sequence, (T, C, H, W)."""
        known = ~truth.isnan()
        if (forecast.isnan() & known).any():
            raise DataError(
                "the forecast contains NaN; if the model diverged, train with a smaller step"
            )
        forecast, truth = forecast.where(known, 0.0), truth.where(known, 0.0)
        physical = forecast, truth
        scores = _frame_scores(forecast, truth, known)
        if not self.data.is_picture:
            physical = to_physical(forecast, self.data), to_physical(truth, self.data)
            scores |= _unit_scores(*physical, known)
        if self.data.unit == "mm/h":
            scores |= _balanced_scores(forecast, truth, known, rain=physical[1])
        for name, metric in self.metrics.items():
            scores[name] = metric(forecast, truth, known, data=self.data).double()
        if self._lpips is not None:
            scores["lpips"] = _lpips(self._lpips, forecast, truth)
        counts: list[Tensor] = []
        fractions: dict[tuple[float, int], Tensor] = {}
        for threshold in self.thresholds:
            forecast, truth = (_exceeds(x, threshold) & known for x in physical)  # events
            counts.append(_contingency_table(forecast, truth, known))
            for window in self.windows:
                fractions[threshold, window] = _fraction_sums(forecast, truth, window)
        return _Measured(scores, counts, fractions)


class _Measured(NamedTuple):
    """What one pass over some frames measures.

    Attributes:
        scores: (T,) by metric.
        counts: (T, a b c d) for every threshold.
        fractions: (T, 2) by threshold and window, see :func:`_fraction_sums`.
    """

    scores: Mapping[str, Tensor]
    counts: Sequence[Tensor]
    fractions: Mapping[tuple[float, int], Tensor]


def skill_scores(counts: np.ndarray) -> dict[str, float | None]:
    """Return the scores of a contingency table.

    Args:
        counts: a hits, b false alarms, c misses, d correct negatives.
    """
    a, b, c, d = (int(count) for count in counts)

    def ratio(numerator: int, denominator: int) -> float | None:
        return numerator / denominator if denominator else None

    return {
        "pod": ratio(a, a + c),
        "far": ratio(b, a + b),
        "csi": ratio(a, a + b + c),
        "hss": ratio(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d)),
        "bias": ratio(a + b, a + c),
    }


# Formulas, all for (T, C, H, W). Unknown pixels are 0 in both the forecast and the truth.


def _frame_scores(forecast: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Metrics of scaled values: (T,) each."""
    pixels = truth[0].numel()
    error = forecast - truth
    mse, mae = _frame_sum(error**2, known), _frame_sum(error.abs(), known)
    return {
        "mse": mse,
        "mae": mae,
        "ssim": _ssim(forecast, truth, known),
        "ssim_7x7": _ssim_uniform(forecast, truth, known),
        "psnr": -10 * (mse / pixels).clamp(min=10 ** (-PSNR_CAP / 10)).log10(),
        "gdl": _gdl(forecast, truth, known),
        "mse_mean": mse / pixels,
        "mae_mean": mae / pixels,
    }


def _unit_scores(forecast: Tensor, truth: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Errors in the unit of the data, per pixel: (T,) each."""
    error, pixels = forecast - truth, truth[0].numel()
    return {
        "mse_unit": _frame_sum(error**2, known) / pixels,
        "mae_unit": _frame_sum(error.abs(), known) / pixels,
    }


def _balanced_scores(
    forecast: Tensor, truth: Tensor, known: Tensor, rain: Tensor
) -> dict[str, Tensor]:
    """B-MSE and B-MAE, which weight errors by the true rain rate in mm/h: (T,) each."""
    error, weight = forecast - truth, torch.zeros_like(truth)
    for rate, factor in BALANCE:
        weight = weight.masked_fill(_exceeds(rain, rate), factor)
    return {
        "b_mse": _frame_sum(weight * error**2, known),
        "b_mae": _frame_sum(weight * error.abs(), known),
    }


def _frame_sum(values: Tensor, known: Tensor) -> Tensor:
    """Sum over the known pixels of a frame, scaled to all pixels; NaN if none is known: (T,)."""
    share = reduce(known.double(), "t c h w -> t", "mean")
    return reduce(values, "t c h w -> t", "sum") / share.masked_fill(share == 0, torch.nan)


def _exceeds(values: Tensor, threshold: float) -> Tensor:
    """Return where values are at or above a threshold.

    Scaling to [0, 1] and back in float32 changes the last digits, so that a value of exactly
    0.5 mm/h may come back a little lower.
    """
    return values >= threshold - 1e-5 * abs(threshold)


def _contingency_table(forecast: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Hits, false alarms, misses and correct negatives of events: (T, 4)."""
    cells = (forecast & truth, forecast & ~truth, ~forecast & truth, ~forecast & ~truth & known)
    counts = [reduce(cell.long(), "t c h w -> t", "sum") for cell in cells]
    return torch.stack(counts, dim=-1)


def _fraction_sums(forecast: Tensor, truth: Tensor, window: int) -> Tensor:
    """Σ (f − o)² and Σ f² + o², where f and o are fractions of events in square windows: (T, 2).

    Roberts and Lean (2008). Outside the frame and where the truth is missing there are no events,
    as in pysteps and scores.
    """
    both = torch.stack([forecast, truth]).double()  # (2, T, C, H, W)
    counts = F.avg_pool2d(
        rearrange(both, "k t c h w -> (k t c) 1 h w"), window, 1, window // 2, divisor_override=1
    )
    f, o = (rearrange(counts, "(k t c) 1 h w -> k t c h w", k=2, t=len(truth))) / window**2
    reference = reduce(f**2 + o**2, "t c h w -> t", "sum")
    return torch.stack([reduce((f - o) ** 2, "t c h w -> t", "sum"), reference], dim=-1)


def _gdl(forecast: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Gradient difference loss (Mathieu et al. 2016), α = 1: (T,)."""
    total = torch.zeros(len(truth), dtype=truth.dtype, device=truth.device)
    for axis in (-2, -1):
        length = known.shape[axis] - 1
        both_known = known.narrow(axis, 1, length) & known.narrow(axis, 0, length)
        error = (forecast.diff(dim=axis).abs() - truth.diff(dim=axis).abs()).abs()
        total += _frame_sum(error * both_known, both_known)
    return total


def _ssim(forecast: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """SSIM with a Gaussian window of 11×11, σ = 1.5, or the largest odd one that fits: (T,)."""
    height, width = forecast.shape[-2:]
    radius = min(5, (height - 1) // 2, (width - 1) // 2)
    if radius < 1:
        raise DataError(f"frames are {height}×{width}; SSIM needs 3×3 pixels or more")
    sigma = 0.3 * radius
    weights = [math.exp(-((i / sigma) ** 2) / 2) for i in range(-radius, radius + 1)]
    return _similarity(forecast, truth, known, [weight / sum(weights) for weight in weights])


def _ssim_uniform(forecast: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """SSIM with a uniform window of 7×7, or the largest odd one that fits: (T,)."""
    side = min(7, *(side - 1 + side % 2 for side in forecast.shape[-2:]))
    sample = side**2 / (side**2 - 1)
    return _similarity(forecast, truth, known, [1 / side] * side, sample)


def _similarity(
    forecast: Tensor, truth: Tensor, known: Tensor, weights: Sequence[float], sample: float = 1.0
) -> Tensor:
    """SSIM (Wang et al. 2004), mean over the windows inside a frame: (T,).

    Args:
        forecast: The forecast.
        truth: The truth.
        known: Where the truth is not missing.
        weights: Weights of a window's rows, and of its columns; their sum is 1.
        sample: Factor of the variances and the covariance; n / (n − 1) for those of a sample.
    """
    products = [forecast, truth, forecast * truth, forecast**2 + truth**2]
    mean_f, mean_t, mean_ft, mean_squares = _window_means(torch.stack(products), weights)
    product, squares = mean_f * mean_t, mean_f**2 + mean_t**2
    covariance = sample * (mean_ft - product)
    variances = sample * (mean_squares - squares)  # of both, summed
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * product + c1) * (2 * covariance + c2)
    similarity /= (squares + c1) * (variances + c2)
    return _mean_over_windows(similarity, known, len(weights))


def _window_means(values: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted means of all windows inside a frame: (…, H, W) to (…, H − k + 1, W − k + 1).

    The window is separable, so this is a sum of shifted rows, then of shifted columns. It is
    several times as fast as a convolution in float64.
    """
    for axis in (-2, -1):
        length = values.shape[axis] - len(weights) + 1
        mean = weights[0] * values.narrow(axis, 0, length)
        for shift, weight in enumerate(weights[1:], 1):
            mean.add_(values.narrow(axis, shift, length), alpha=weight)
        values = mean
    return values


def _mean_over_windows(score: Tensor, known: Tensor, window: int) -> Tensor:
    """Mean over the windows without a missing pixel; NaN if there are none: (T,)."""
    if known.all():
        return reduce(score, "t c h w -> t", "mean")
    whole = F.max_pool2d((~known).float(), window, 1) == 0
    total = reduce(score.where(whole, 0.0), "t c h w -> t", "sum")
    count = reduce(whole.double(), "t c h w -> t", "sum")
    return total / count.masked_fill(count == 0, torch.nan)


def _load_lpips() -> Any:
    try:
        import lpips
    except ImportError:
        raise ConfigError("LPIPS needs the package lpips: pip install lpips") from None
    return lpips.LPIPS(net="alex", verbose=False).eval()


def _lpips(network: Any, forecast: Tensor, truth: Tensor) -> Tensor:
    if forecast.shape[1] not in (1, 3):
        raise DataError(
            f"frames have {forecast.shape[1]} channels; LPIPS takes 1 (gray) or 3 (RGB)"
        )
    network = network.to(forecast.device)
    pair = [2 * x.float().expand(-1, 3, -1, -1) - 1 for x in (forecast, truth)]
    distances: Tensor = network(*pair).flatten().double()
    return distances


# Aggregation over sequences and frames


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the defined values, exactly rounded; None without any."""
    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None


def _sqrt(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _fss(sums: Sequence[np.ndarray]) -> float | None:
    difference, reference = (math.fsum(float(row[i]) for row in sums) for i in (0, 1))
    return 1 - difference / reference if reference else None
