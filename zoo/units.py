"""Conversion of frames between the unit of the data and the model's [0, 1].

The functions take torch tensors and numpy arrays alike. Only tensors need torch.
"""

from __future__ import annotations

import datetime
import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from zoo.config import Data
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    import xarray
    from torch import Tensor

__all__ = [
    "Array",
    "Frames",
    "check_data",
    "clips",
    "duration",
    "is_same_unit",
    "scale",
    "seconds",
    "to_physical",
    "to_unit_interval",
    "unscale",
]

Frames = TypeVar("Frames", "Tensor", np.ndarray, "xarray.DataArray")
Array = TypeVar("Array", "Tensor", np.ndarray)

#: How far intensities may be outside [0, 1].
TOLERANCE = 0.01

#: How to fix a frame without any value.
ABSENT = "fill it (for a DataArray, interpolate_na('time')), or forecast from the frames after it"

SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400}


def to_unit_interval(x: Array, data: Data) -> Array:
    """Convert values in the unit of the data to the model's scale; any shape, NaN stays NaN.

    `data.low` and `data.high` become 0 and 1, and values beyond them stay beyond. Reflectivity,
    and rain converted to it, is clipped to [0, 1], as published.
    """
    if (z := data.reflectivity) is None:
        x = (x - data.low) / (data.high - data.low)
        return x.clip(0, 1) if clips(data) else x
    with np.errstate(divide="ignore"):
        dbz = 10 * _library(x).log10(z.a * x.clip(0) ** z.b)  # −∞ without rain
    return ((dbz - z.low) / (z.high - z.low)).clip(0, 1)


def clips(data: Data) -> bool:
    """Return whether values beyond the range are clipped, as reflectivity is.

    Products encode "no echo" as a very low dBZ, often −32, which is not a measurement.
    """
    return data.reflectivity is not None or is_same_unit(data.unit, "dBZ")


def to_physical(x: Array, data: Data) -> Array:
    """Convert the model's scale to the unit of the data; any shape, NaN stays NaN."""
    if (z := data.reflectivity) is None:
        return x * (data.high - data.low) + data.low
    dbz = x * (z.high - z.low) + z.low
    rate = (10 ** (dbz / 10) / z.a) ** (1 / z.b)
    return _library(x).where(x <= 0, 0.0, rate)


def scale(frames: Tensor | np.ndarray, data: Data, like: Array) -> Array:
    """Convert frames in the unit of the data to (B, T, C, H, W) in [0, 1], clipped.

    Args:
        frames: (B, T, C, H, W), (T, C, H, W) or (T, H, W); pictures also as uint8.
        data: What the values mean. NaN is allowed if `data.missing`.
        like: A tensor or numpy array with the device and the dtype of the result.

    Raises:
        DataError: For other shapes and dtypes, infinity, unexpected NaN, frames without any
            value, and intensities outside [0, 1].
    """
    if not (isinstance(frames, np.ndarray) or _is_tensor(frames)):
        raise DataError(
            f"got frames of type {type(frames).__name__}; expected a torch tensor, a numpy array "
            "or an xarray.DataArray"
        )
    if frames.ndim not in (3, 4, 5):
        raise DataError(
            f"got frames of shape {tuple(frames.shape)}; expected (B, T, C, H, W), or for one "
            "sequence (T, C, H, W) or (T, H, W)"
        )
    x: Any = _convert(frames, like)
    if x.ndim == 3:
        x = x[:, None]  # (T, H, W) to (T, 1, H, W)
    if x.ndim == 4:
        x = x[None]  # (T, C, H, W) to (1, T, C, H, W)
    _check_finite(x, data.missing)
    if _is_uint8(frames, data):
        return x / 255
    known = x[~_library(x).isnan(x)]
    if data.is_picture and ((known < -TOLERANCE) | (known > 1 + TOLERANCE)).any():
        raise DataError(
            f"got frames from {float(known.min()):g} to {float(known.max()):g}; expected "
            "intensities from 0 to 1, or uint8 from 0 to 255"
        )
    return to_unit_interval(x, data).clip(0, 1)


def unscale(x: Tensor | np.ndarray, data: Data, like: Array) -> Array:
    """Convert clipped (B, T, C, H, W) to the unit of the data, in the form of `like`."""
    y: Any = x.clip(0, 1)
    is_uint8 = _is_uint8(like, data)
    y = (y * 255).round() if is_uint8 else to_physical(y, data)
    if like.ndim < 5:
        y = y[0]  # (1, T, C, H, W) to (T, C, H, W)
    if like.ndim == 3:
        y = y[:, 0]  # (T, 1, H, W) to (T, H, W)
    if isinstance(like, np.ndarray):
        if _is_tensor(y):  # numpy has no bfloat16
            y = (y.float() if str(y.dtype) == "torch.bfloat16" else y).cpu().numpy()
        return y.astype(np.uint8) if is_uint8 else y
    return (y.byte() if is_uint8 else y).to(like.device)


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


def _is_tensor(x: object) -> bool:
    """Whether `x` is a torch tensor; if torch has not been imported, it is not."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _library(x: object) -> Any:
    """Return torch or numpy, whichever `x` belongs to."""
    return sys.modules["torch"] if _is_tensor(x) else np


def _convert(frames: Tensor | np.ndarray, like: Any) -> Any:
    """Return frames as a tensor or an array, as `like` is, with its device and dtype."""
    if isinstance(frames, np.ndarray):
        if frames.dtype.kind in "iufb":
            if isinstance(like, np.ndarray):
                return frames.astype(like.dtype)
            # torch needs a writable array in native byte order without negative strides.
            plain = np.array(frames, frames.dtype.newbyteorder("="), order="C")
            return _library(like).from_numpy(plain).to(like.device, like.dtype)
    elif not frames.is_complex():
        return frames.to(like.device, like.dtype)
    raise DataError(f"got frames of dtype {frames.dtype}; expected real numbers")


def _is_uint8(frames: Tensor | np.ndarray, data: Data) -> bool:
    return data.is_picture and str(frames.dtype) in ("uint8", "torch.uint8")


def _check_finite(x: Any, missing: bool) -> None:
    """Raise DataError for infinity, unexpected NaN, and frames without any value."""
    library = _library(x)
    bad = library.isinf(x) if missing else ~library.isfinite(x)
    if bad.any():
        wrong = bad.any((0, 2, 3, 4))  # (B, T, C, H, W) to (T,)
        raise DataError(
            f"the frames have {int(bad.sum())} {'' if missing else 'NaN or '}infinite values, "
            f"the first in frame {wrong.tolist().index(True)}; replace them, for example with "
            "numpy.nan_to_num"
        )
    if 0 in x.shape:
        return
    absent = library.isnan(x)
    if absent.all((1, 2, 3, 4)).any():
        raise DataError("all values of a sequence are missing (NaN); expected at least one")
    empty = absent.all((2, 3, 4)).any(0)  # (B, T, C, H, W) to (T,)
    if empty.any():
        raise DataError(f"frame {empty.tolist().index(True)} has no values, only NaN; {ABSENT}")
