"""Forecasts without a network, which a model has to beat.

A baseline reads scaled frames (B, T, C, H, W) with NaN where values are missing, and returns what a
model returns, (B, T − 1 + horizon, C, H, W); an ensemble has a leading axis of members. Seasonal
baselines, such as "seasonal 7d", read frames of a period before instead.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from zoo.config import Data
from zoo.data.dataset import data_of
from zoo.errors import ConfigError, DataError, did_you_mean
from zoo.extrapolation import extrapolations
from zoo.tables import SEASONAL
from zoo.units import duration, seconds

__all__ = [
    "BASELINES",
    "ENSEMBLES",
    "check_baseline",
    "earlier_frames",
    "extrapolation",
    "forecast_baseline",
    "optical_flow",
    "persistence",
    "seasonal",
    "steps",
]

#: Names of the baselines except the seasonal ones, and which of them are ensembles or need pysteps.
BASELINES = ("persistence", "extrapolation", "optical flow", "STEPS")
ENSEMBLES = ("STEPS",)
NEED_PYSTEPS = ("optical flow", "STEPS")

DRY = 10.0  # dBZ, 0.1 mm/h; STEPS takes less for dry
GAP = 7.0  # dBZ between the weakest rain and the value that STEPS reads where it is dry


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


def extrapolation(frames: Tensor, horizon: int) -> Tensor:
    """Move the last frame along the motion of the frames before it (:mod:`zoo.extrapolation`).

    Models with the input "extrapolation" start from this forecast. Arguments and missing values are
    as in :func:`persistence`.
    """
    filled = persistence(frames, 1)  # the frames themselves, without missing values
    return extrapolations(filled, frames.shape[1] - 1 + horizon, horizon)


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
            count = horizon if t == len(past) - 1 else 1
            recent = past[max(0, t - 2) : t + 1]
            if np.ptp(recent) == 0:
                continue
            with _quiet():
                velocity = lucas_kanade(recent, verbose=False)
                ahead = extrapolate(past[t], velocity, count)  # (count, H, W), NaN from outside
            moved = torch.from_numpy(ahead).to(forecast)
            still = forecast[b, t : t + count, c]
            forecast[b, t : t + count, c] = moved.where(~moved.isnan(), still)
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


def steps(frames: Tensor, horizon: int, data: Data, members: int, numbers: Sequence[int]) -> Tensor:
    """Forecast an ensemble with STEPS, the stochastic nowcasts of pysteps (Bowler et al. 2006).

    The last three frames are extrapolated along their motion; noise with the spatial structure of
    the rain replaces the scales that are no longer predictable. The one-step predictions of the
    warm-up, and sequences with a dry frame among these three, are as in optical flow.

    Args:
        frames: (B, T, 1, H, W), T of 3 or more, rain scaled as reflectivity, or reflectivity.
        horizon: Number of frames to forecast.
        data: What the values mean.
        members: Number of members.
        numbers: Numbers of the sequences, the seeds of their noise.

    Returns:
        (members, B, T − 1 + horizon, 1, H, W).

    Raises:
        ConfigError: If pysteps is not installed.
        DataError: If the frames are too few, or the data not those of a radar.
    """
    check_baseline("STEPS")
    if frames.shape[1] < 3 or frames.shape[2] > 1:
        raise DataError(
            f"frames are {tuple(frames.shape)}; STEPS needs 3 or more frames of one channel"
        )
    low, high, grid = _radar(data)
    ensemble = optical_flow(frames, horizon, data).repeat(members, 1, 1, 1, 1, 1)
    series = rearrange(frames[:, -3:], "b t 1 h w -> b t h w").cpu().numpy().astype(np.float64)
    for b, number in enumerate(numbers):
        reflectivity = low + np.nan_to_num(series[b]) * (high - low)
        wet = reflectivity > DRY
        if not wet.any(axis=(1, 2)).all():
            continue
        sampled = _sample(np.where(wet, reflectivity, DRY - GAP), horizon, grid, members, number)
        scaled = torch.from_numpy((sampled - low) / (high - low) * ~(sampled <= DRY)).to(ensemble)
        forecast = ensemble[:, b, -horizon:, 0]  # (members, horizon, H, W)
        ensemble[:, b, -horizon:, 0] = scaled.where(~scaled.isnan(), forecast)
    return ensemble


def _radar(data: Data) -> tuple[float, float, dict[str, float]]:
    """Return the reflectivities in dBZ that are scaled to 0 and 1, and the arguments of pysteps."""
    if data.grid_step is not None and data.time_step is not None:
        grid = {"kmperpixel": data.grid_step / 1000, "timestep": data.time_step / 60}
        if data.reflectivity is not None:
            return data.reflectivity.low, data.reflectivity.high, grid
        if data.unit == "dBZ":
            return *data.limits, grid
    raise DataError(
        f"the data are {data.variable} in {data.unit} with a grid step of {data.grid_step} m and a "
        f"time step of {data.time_step} s; STEPS needs rain scaled as reflectivity, or "
        "reflectivity in dBZ, and both steps"
    )


def _sample(
    past: np.ndarray, horizon: int, grid: dict[str, float], members: int, seed: int
) -> np.ndarray:
    """Run STEPS on three frames in dBZ, (3, H, W); return (members, horizon, H, W), NaN outside."""
    from pysteps import motion, nowcasts

    state = np.random.get_state()  # pysteps seeds the global generator
    try:
        with _quiet():
            return nowcasts.get_method("steps")(
                past,
                motion.get_method("LK")(past, verbose=False),
                horizon,
                n_ens_members=members,
                n_cascade_levels=max(2, min(6, int(math.log2(min(past.shape[1:]))) - 1)),
                precip_thr=DRY,
                **grid,
                seed=seed,
            )
    finally:
        np.random.set_state(state)


def forecast_baseline(
    name: str, frames: Tensor, horizon: int, data: Data, members: int, numbers: Sequence[int]
) -> Tensor:
    """Return the forecast of a baseline, (members, B, T − 1 + horizon, C, H, W).

    Baselines that are not ensembles have one member.
    """
    if name == "STEPS":
        return steps(frames, horizon, data, members, numbers)
    if name == "optical flow":
        return optical_flow(frames, horizon, data)[None]
    if name == "extrapolation":
        return extrapolation(frames, horizon)[None]
    return persistence(frames, horizon)[None]


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
    if name in NEED_PYSTEPS:
        try:
            with _quiet():
                import cv2  # noqa: F401, needed by pysteps for Lucas and Kanade
                import pysteps  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"{name} needs pysteps and OpenCV: pip install 'spatiotemporal-zoo[flow]'"
            ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what pysteps prints, such as its greeting, and numerical warnings."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        np.errstate(all="ignore"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
