"""Forecasts without a network, which a model has to beat.

A baseline reads scaled frames (B, T, C, H, W) with NaN where values are missing, and returns what a
model returns, (B, T − 1 + horizon, C, H, W). The seasonal ones, such as "seasonal 7d", read frames
of a period before instead.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from zoo.config import Data
from zoo.data.dataset import data_of
from zoo.errors import ConfigError, DataError, did_you_mean
from zoo.tables import SEASONAL
from zoo.units import duration, seconds

__all__ = [
    "BASELINES",
    "check_baseline",
    "earlier_frames",
    "optical_flow",
    "persistence",
    "seasonal",
]

Baseline = Callable[[Tensor, int, Data], Tensor]


def persistence(frames: Tensor, horizon: int) -> Tensor:
    """Repeat the last frame, at every step that a model would forecast.

    Args:
        frames: (B, T, C, H, W). A missing value (NaN) is replaced by the last known one, or 0.
        horizon: How often the last frame is repeated.

    Returns:
        (B, T − 1 + horizon, C, H, W): each input frame but the last is the forecast of the next.

    Raises:
        DataError: If there are no frames, or the horizon is below 1.
    """
    if frames.ndim != 5 or not frames.shape[1] or horizon < 1:
        raise DataError(
            f"frames are {tuple(frames.shape)}, horizon {horizon}; "
            "expected (B, T, C, H, W) with T of 1 or more and a horizon of 1 or more"
        )
    filled = [frames[:, 0]]
    for frame in frames.unbind(dim=1)[1:]:
        filled.append(frame.where(~frame.isnan(), filled[-1]))
    frames = torch.stack(filled, dim=1).nan_to_num(nan=0.0)
    last = frames[:, -1:].expand(-1, horizon, -1, -1, -1)  # (B, horizon, C, H, W)
    return torch.cat([frames[:, :-1], last], dim=1)


def optical_flow(frames: Tensor, horizon: int, data: Data) -> Tensor:
    """Extrapolate the last frame along the motion of the frames before it, with pysteps.

    Motion is estimated by Lucas and Kanade's method and extrapolated by a semi-Lagrangian scheme
    (Pulkkinen et al. 2019), on the scaled values; for rain rates these are reflectivities. Pixels
    that come from outside the frame, and the first frame, which has no motion yet, are as in
    persistence.

    Raises:
        ConfigError: If pysteps is not installed.
    """
    check_baseline("optical flow")
    from pysteps import extrapolation, motion

    lucas_kanade = motion.get_method("LK")
    extrapolate = extrapolation.get_method("semilagrangian")
    forecast = persistence(frames, horizon)
    filled = persistence(frames, 1)  # the frames themselves, without missing values
    series = rearrange(filled, "b t c h w -> b c t h w").cpu().numpy().astype(np.float64)
    for b, c in np.ndindex(series.shape[:2]):
        past = series[b, c]
        for t in range(1, len(past)):
            steps = horizon if t == len(past) - 1 else 1
            recent = past[max(0, t - 2) : t + 1]
            if np.ptp(recent) == 0:
                continue
            with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
                velocity = lucas_kanade(recent, verbose=False)
                ahead = extrapolate(past[t], velocity, steps)  # (steps, H, W), NaN from outside
            moved = torch.from_numpy(ahead).to(forecast)
            still = forecast[b, t : t + steps, c]
            forecast[b, t : t + steps, c] = moved.where(~moved.isnan(), still)
    return forecast


def seasonal(earlier: Tensor) -> Tensor:
    """Repeat what was one period before, as the seasonal naive forecast does.

    Args:
        earlier: The frames a period before all frames of a sequence, (B, T + horizon, C, H, W). A
            missing value (NaN) is replaced by the last known one, or 0.

    Returns:
        (B, T − 1 + horizon, C, H, W).
    """
    return persistence(earlier, 1)[:, 1:]


BASELINES: dict[str, Baseline] = {
    "persistence": lambda frames, horizon, _: persistence(frames, horizon),
    "optical flow": optical_flow,
}


def earlier_frames(
    dataset: Any, indices: Sequence[int], baselines: Sequence[str], horizon: int
) -> dict[str, Tensor]:
    """Read the frames that seasonal baselines repeat.

    Args:
        dataset: The data set, with times.
        indices: Indices of its sequences.
        baselines: Names of baselines, also of others.
        horizon: Frames to forecast.

    Returns:
        By name of the baseline, (B, T + horizon, C, H, W).

    Raises:
        ConfigError: If a period is shorter than the forecast.
        DataError: If the data have no times, or none of a period before a sequence.
    """
    earlier = {}
    for name in baselines:
        if not name.startswith(SEASONAL):
            continue
        period = seconds(name.removeprefix(SEASONAL))
        step = data_of(dataset).time_step
        if step is None or not hasattr(dataset, "earlier"):
            raise DataError(f"{name} needs frames with times; choose another baseline")
        if period < horizon * step:
            raise ConfigError(
                f"the period of {name} is shorter than the forecast, {duration(horizon * step)}; "
                "it would repeat frames that are not known yet: use a multiple of the period"
            )
        earlier[name] = torch.stack([dataset.earlier(index, period) for index in indices])
    return earlier


def check_baseline(name: str) -> None:
    """Raise ConfigError if a baseline or its period is invalid, or its library not installed."""
    if name.startswith(SEASONAL):
        seconds(name.removeprefix(SEASONAL))
    elif name not in BASELINES:
        raise ConfigError(
            f"unknown baseline {name!r}{did_you_mean(name, BASELINES)}; "
            f"choose from: {', '.join(BASELINES)}, {SEASONAL}7d"
        )
    if name == "optical flow":
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # pysteps prints a greeting
                import cv2  # noqa: F401, needed by pysteps for Lucas and Kanade
                import pysteps  # noqa: F401
        except ImportError:
            raise ConfigError(
                "optical flow needs pysteps and OpenCV: pip install 'spatiotemporal-zoo[flow]'"
            ) from None
