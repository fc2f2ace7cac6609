"""Conversion of frames between the unit of the data and the model's [0, 1]."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from zoo.config import Data, Standardization
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    import xarray

__all__ = [
    "Array",
    "Frames",
    "check_data",
    "clip",
    "clips",
    "duration",
    "is_same_unit",
    "scale",
    "seconds",
    "to_physical",
    "to_unit_interval",
    "unscale",
]

Frames = TypeVar("Frames", Tensor, np.ndarray, "xarray.DataArray")
Array = TypeVar("Array", Tensor, np.ndarray)

#: How far intensities may be outside [0, 1].
TOLERANCE = 0.01

#: How to fix a frame without any value.
ABSENT = "fill it (for a DataArray, interpolate_na('time')), or forecast from the frames after it"

SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400}


def to_unit_interval(x: Tensor, data: Data) -> Tensor:
    """Convert values in the unit of the data to the model's scale; any shape, NaN stays NaN.

    `data.low` and `data.high` become 0 and 1, and values beyond them stay beyond. Reflectivity,
    and rain converted to it, is clipped to [0, 1], as published. Standardized data get mean 0 and
    standard deviation 1; their shape is (…, C, H, W).
    """
    if data.standardization is not None:
        mean, std = _moments(x, data.standardization)
        return (x - mean) / std
    if (z := data.reflectivity) is None:
        x = (x - data.low) / (data.high - data.low)
        return x.clamp(0, 1) if clips(data) else x
    dbz = 10 * (z.a * x.clamp(min=0) ** z.b).log10()  # −∞ without rain
    return ((dbz - z.low) / (z.high - z.low)).clamp(0, 1)


def clip(x: Tensor, data: Data) -> Tensor:
    """Clip values on the model's scale to [0, 1], unless the data are standardized."""
    return x.clamp(0, 1) if data.standardization is None else x


def clips(data: Data) -> bool:
    """Return whether values beyond the range are clipped, as reflectivity is.

    Products encode "no echo" as a very low dBZ, often −32, which is not a measurement.
    """
    return data.reflectivity is not None or is_same_unit(data.unit, "dBZ")


def to_physical(x: Tensor, data: Data) -> Tensor:
    """Convert the model's scale to the unit of the data, as in :func:`to_unit_interval`."""
    if data.standardization is not None:
        mean, std = _moments(x, data.standardization)
        return x * std + mean
    if (z := data.reflectivity) is None:
        return x * (data.high - data.low) + data.low
    dbz = x * (z.high - z.low) + z.low
    rate = (10 ** (dbz / 10) / z.a) ** (1 / z.b)
    return torch.where(x <= 0, torch.zeros_like(rate), rate)


def scale(frames: Tensor | np.ndarray, data: Data, like: Tensor) -> Tensor:
    """Convert frames in the unit of the data to (B, T, C, H, W) on the model's scale, clipped.

    Args:
        frames: (B, T, C, H, W), (T, C, H, W) or (T, H, W); pictures also as uint8.
        data: What the values mean. NaN is allowed if `data.missing`.
        like: A tensor with the device and the dtype of the result.

    Raises:
        DataError: For other shapes and dtypes, infinity, unexpected NaN, frames without any
            value, and intensities outside [0, 1].
    """
    if not isinstance(frames, (Tensor, np.ndarray)):
        raise DataError(
            f"got frames of type {type(frames).__name__}; expected a torch tensor, a numpy array "
            "or an xarray.DataArray"
        )
    if frames.ndim not in (3, 4, 5):
        raise DataError(
            f"got frames of shape {tuple(frames.shape)}; expected (B, T, C, H, W), or for one "
            "sequence (T, C, H, W) or (T, H, W)"
        )
    x = _to_tensor(frames).to(device=like.device, dtype=like.dtype)
    if x.ndim == 3:
        x = x.unsqueeze(1)  # (T, H, W) to (T, 1, H, W)
    if x.ndim == 4:
        x = x.unsqueeze(0)  # (T, C, H, W) to (1, T, C, H, W)
    _check_finite(x, data.missing)
    if _is_uint8(frames, data):
        return x / 255
    known = x[~x.isnan()]
    if data.is_picture and ((known < -TOLERANCE) | (known > 1 + TOLERANCE)).any():
        raise DataError(
            f"got frames from {float(known.min()):g} to {float(known.max()):g}; expected "
            "intensities from 0 to 1, or uint8 from 0 to 255"
        )
    return clip(to_unit_interval(x, data), data)


def unscale(x: Tensor, data: Data, like: Array) -> Array:
    """Convert clipped (B, T, C, H, W) to the unit of the data, in the form of `like`."""
    x = clip(x, data)
    x = (x * 255).round().to(torch.uint8) if _is_uint8(like, data) else to_physical(x, data)
    if like.ndim < 5:
        x = x.squeeze(0)  # (1, T, C, H, W) to (T, C, H, W)
    if like.ndim == 3:
        x = x.squeeze(1)  # (T, 1, H, W) to (T, H, W)
    if isinstance(like, np.ndarray):
        return (
            (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
        )  # numpy has no bfloat16
    return x.to(like.device)


def check_data(
    data: Data,
    *,
    unit: str | None = None,
    time_step: object = None,
    grid_step: float | None = None,
) -> None:
    """Check that frames have the unit, the time step and the grid step of a model's data.

    Args:
        data: Data of the model; fields that it leaves open are not checked.
        unit: Unit of the frames, such as "mm/h"; None is not checked.
        time_step: Time between frames, as for :func:`seconds`; None is not checked.
        grid_step: Size of a cell in meters, to 1 %; None is not checked.

    Raises:
        DataError: If one differs.
    """
    if unit is not None and not is_same_unit(unit, data.unit):
        raise DataError(
            f"unit mismatch: the frames are in {unit!r}, the model expects {data.variable} in "
            f"{data.unit!r}; convert them first"
        )
    if grid_step and data.grid_step and abs(grid_step - data.grid_step) > 0.01 * data.grid_step:
        raise DataError(
            f"grid step mismatch: the frames have cells of {grid_step:g} m, the model expects "
            f"{data.grid_step:g} m; resample the frames (a data set has the option pool)"
        )
    if time_step is None or data.time_step is None:
        return
    if abs(seconds(time_step) - data.time_step) > 1e-3 * data.time_step:
        raise DataError(
            f"time step mismatch: the frames are {duration(seconds(time_step))} apart, the model "
            f"expects {duration(data.time_step)}; resample the frames, and use horizon to forecast "
            "further"
        )


def seconds(step: object) -> float:
    """Return a time step in seconds.

    Args:
        step: Seconds, a text such as "5 min" or "1h", or a timedelta of any kind.

    Raises:
        ConfigError: For anything else.
    """
    if isinstance(step, datetime.timedelta):
        return step.total_seconds()
    if isinstance(step, np.timedelta64):
        return float(step / np.timedelta64(1, "ns")) * 1e-9
    if isinstance(step, (int, float)):
        return float(step)
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", str(step).lower())
    if match:
        name = match[2] or "s"
        name = name if name in SECONDS else name.rstrip("s")  # "hours", "mins"
        name = {"minute": "min", "hour": "h", "hr": "h", "day": "d", "second": "s"}.get(name, name)
        if name in SECONDS and re.fullmatch(r"\d+\.?\d*|\.\d+", match[1]):
            return float(match[1]) * SECONDS[name]
    raise ConfigError(f"{step!r} is not a valid time step; write it as 5min, 300s or 1h")


def is_same_unit(unit: str, other: str) -> bool:
    """Return whether two units are the same in any spelling: "mm h-1", "mm/hr", "mm/h"."""
    return _normalize_unit(unit) == _normalize_unit(other)


def _normalize_unit(unit: str) -> str:
    text = unit.strip().lower().replace("hours", "h").replace("hour", "h")
    text = re.sub(r"\bhr\b", "h", text)
    text = re.sub(r"\s*[*·. ]?\s*\b([a-z]+)\s*(\^|\*\*)?-1\b", r"/\1", text)
    text = re.sub(r"\bhr\b", "h", re.sub(r"\s+", "", text))
    return {"": "1", "dimensionless": "1", "-": "1", "dbz": "dbz"}.get(text, text)


def duration(time: float) -> str:
    """Format seconds: "90 s", "5 min", "1 h"."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if time >= size and time % size == 0:
            return f"{time / size:g} {name}"
    return f"{time:g} s"


def _moments(x: Tensor, standardization: Standardization) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, each (C, 1, 1) or (1, 1, 1), for `x` (…, C, H, W)."""
    mean, std = (
        torch.tensor(values, dtype=x.dtype, device=x.device)[:, None, None]
        for values in (standardization.mean, standardization.std)
    )
    return mean, std


def _to_tensor(frames: Tensor | np.ndarray) -> Tensor:
    if isinstance(frames, np.ndarray):
        if frames.dtype.kind in "iufb":
            # torch needs a writable array in native byte order without negative strides.
            return torch.from_numpy(np.array(frames, frames.dtype.newbyteorder("="), order="C"))
    elif not frames.is_complex():
        return frames
    raise DataError(f"got frames of dtype {frames.dtype}; expected real numbers")


def _is_uint8(frames: Tensor | np.ndarray, data: Data) -> bool:
    return data.is_picture and frames.dtype in (torch.uint8, np.uint8)


def _check_finite(x: Tensor, missing: bool) -> None:
    """Raise DataError for infinity, unexpected NaN, and frames without any value."""
    bad = x.isinf() if missing else ~x.isfinite()
    if bad.any():
        wrong = bad.sum(dim=(0, 2, 3, 4))  # (B, T, C, H, W) to (T,)
        raise DataError(
            f"the frames have {int(wrong.sum())} {'' if missing else 'NaN or '}infinite values, "
            f"the first in frame {int(wrong.nonzero()[0])}; replace them, for example with "
            "numpy.nan_to_num"
        )
    if x.numel() and x.isnan().flatten(1).all(dim=1).any():
        raise DataError("all values of a sequence are missing (NaN); expected at least one")
    empty = x.isnan().flatten(2).all(dim=2).any(dim=0)  # (B, T, C, H, W) to (T,)
    if x.numel() and empty.any():
        raise DataError(f"frame {int(empty.nonzero()[0])} has no values, only NaN; {ABSENT}")
