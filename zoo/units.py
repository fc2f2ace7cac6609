"""Frames as people have them, in the units of their data, to the model's [0, 1] and back."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from zoo.config import Data
from zoo.errors import ZooError

if TYPE_CHECKING:
    import xarray

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

Frames = TypeVar("Frames", Tensor, np.ndarray, "xarray.DataArray")
Array = TypeVar("Array", Tensor, np.ndarray)

#: How far intensities may be outside [0, 1] before they are taken for something else.
TOLERANCE = 0.01

#: What to do where a frame is missing whole.
ABSENT = "fill it (of a DataArray, interpolate_na('time')), or forecast from the frames after it"

SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400}


def to_unit_interval(x: Tensor, data: Data) -> Tensor:
    """Values in the units of the data to the model's scale, NaN kept; any shape.

    `data.low` and `data.high` become 0 and 1 and what is beyond them is beyond. Reflectivity, and
    rain by way of it, is clipped to [0, 1], as published.
    """
    if (z := data.reflectivity) is None:
        x = (x - data.low) / (data.high - data.low)
        return x.clamp(0, 1) if clips(data) else x
    dbz = 10 * (z.a * x.clamp(min=0) ** z.b).log10()  # −∞ without rain
    return ((dbz - z.low) / (z.high - z.low)).clamp(0, 1)


def clips(data: Data) -> bool:
    """Whether values beyond the range are clipped: those of a reflectivity.

    What reflects nothing has some very low dBZ, which by its product is -32 or another: a code
    rather than a measurement.
    """
    return data.reflectivity is not None or is_same_unit(data.unit, "dBZ")


def to_physical(x: Tensor, data: Data) -> Tensor:
    """The way back: the model's scale to the units of the data, NaN kept; any shape."""
    if (z := data.reflectivity) is None:
        return x * (data.high - data.low) + data.low
    dbz = x * (z.high - z.low) + z.low
    rate = (10 ** (dbz / 10) / z.a) ** (1 / z.b)
    return torch.where(x <= 0, torch.zeros_like(rate), rate)


def scale(frames: Tensor | np.ndarray, data: Data, like: Tensor) -> Tensor:
    """Frames in units of the data to (B, T, C, H, W) in [0, 1], values outside clipped.

    Args:
        frames: (B, T, C, H, W), (T, C, H, W) or (T, H, W); pictures also as uint8.
        data: what their values mean.
        like: a tensor whose device and dtype the result takes.

    NaN stays where `data.missing` says that values can be missing.

    Raises ZooError for other shapes and types, for infinity and other NaN, for frames that
    are missing whole, and for intensities that are not from 0 to 1.
    """
    if not isinstance(frames, (Tensor, np.ndarray)):
        raise ZooError(
            f"frames are a {type(frames).__name__}; give a torch tensor, a numpy array or an "
            "xarray.DataArray"
        )
    if frames.ndim not in (3, 4, 5):
        raise ZooError(
            f"frames are {tuple(frames.shape)}; expected (B, T, C, H, W), or for one sequence "
            "(T, C, H, W) or (T, H, W)"
        )
    x = _to_tensor(frames).to(device=like.device, dtype=like.dtype)
    if x.ndim == 3:
        x = x.unsqueeze(1)  # (T, H, W) to (T, 1, H, W)
    if x.ndim == 4:
        x = x.unsqueeze(0)  # (T, C, H, W) to (1, T, C, H, W)
    _check_finite(x, data.missing)
    if _is_uint8(frames, data):
        return x / 255
    seen = x[~x.isnan()]
    if data.is_picture and seen.numel() and (seen.min() < -TOLERANCE or seen.max() > 1 + TOLERANCE):
        raise ZooError(
            f"frames range from {float(seen.min()):g} to {float(seen.max()):g}; this model takes "
            "intensities from 0 to 1, or uint8 from 0 to 255"
        )
    return to_unit_interval(x, data).clamp(0, 1)


def unscale(x: Tensor, data: Data, like: Array) -> Array:
    """The way back: (B, T, C, H, W), clipped to [0, 1], in the units and the form of `like`."""
    x = x.clamp(0, 1)
    x = (x * 255).round().to(torch.uint8) if _is_uint8(like, data) else to_physical(x, data)
    if like.ndim < 5:
        x = x.squeeze(0)  # (1, T, C, H, W) to (T, C, H, W)
    if like.ndim == 3:
        x = x.squeeze(1)  # (T, 1, H, W) to (T, H, W)
    if isinstance(like, np.ndarray):
        return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()  # numpy has none
    return x.to(like.device)


def check_data(
    data: Data,
    *,
    unit: str | None = None,
    time_step: object = None,
    grid_step: float | None = None,
) -> None:
    """Raise ZooError where frames have another unit, time step or grid than a model's data.

    Args:
        data: of the model; what it leaves open is not checked.
        unit: that of the frames, "mm/h", say; None is not checked.
        time_step: from one frame to the next, as :func:`seconds` takes it; None is not checked.
        grid_step: from one cell to the next in metres, to 1 %; None is not checked.
    """
    if unit is not None and not is_same_unit(unit, data.unit):
        raise ZooError(
            f"the frames are in {unit!r}; this model takes {data.variable} in {data.unit!r}: "
            "convert them first"
        )
    if grid_step and data.grid_step and abs(grid_step - data.grid_step) > 0.01 * data.grid_step:
        raise ZooError(
            f"the frames have cells of {grid_step:g} m; this model was trained on cells of "
            f"{data.grid_step:g} m: give it frames of that grid (of a data set, by the option pool)"
        )
    if time_step is None or data.time_step is None:
        return
    if abs(seconds(time_step) - data.time_step) > 1e-3 * data.time_step:
        raise ZooError(
            f"frames {duration(seconds(time_step))} apart are asked for; this model makes steps "
            f"of {duration(data.time_step)}: give it frames so far apart, and take more or fewer "
            "of them with horizon"
        )


def seconds(step: object) -> float:
    """A time step in seconds: a number of them, "5 min", "1h", or a timedelta of any kind."""
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
    raise ZooError(f"{step!r} is no time step; write it as 5min, 300s or 1h")


def is_same_unit(one: str, other: str) -> bool:
    """Whether two spellings are of one unit: "mm h-1", "mm/hr" and "mm/h", say."""
    return _spelling(one) == _spelling(other)


def _spelling(unit: str) -> str:
    text = unit.strip().lower().replace("hours", "h").replace("hour", "h")
    text = re.sub(r"\bhr\b", "h", text)
    text = re.sub(r"\s*[*·. ]?\s*\b([a-z]+)\s*(\^|\*\*)?-1\b", r"/\1", text)
    text = re.sub(r"\bhr\b", "h", re.sub(r"\s+", "", text))
    return {"": "1", "dimensionless": "1", "-": "1", "dbz": "dbz"}.get(text, text)


def duration(time: float) -> str:
    """Seconds as people say them."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if time >= size and time % size == 0:
            return f"{time / size:g} {name}"
    return f"{time:g} s"


def _to_tensor(frames: Tensor | np.ndarray) -> Tensor:
    if isinstance(frames, np.ndarray):
        if frames.dtype.kind in "iufb":
            # torch takes no array that is read-only, of another byte order or runs backwards.
            return torch.from_numpy(np.array(frames, frames.dtype.newbyteorder("="), order="C"))
    elif not frames.is_complex():
        return frames
    raise ZooError(f"frames are of type {frames.dtype}; expected real numbers")


def _is_uint8(frames: Tensor | np.ndarray, data: Data) -> bool:
    return data.is_picture and frames.dtype in (torch.uint8, np.uint8)


def _check_finite(x: Tensor, missing: bool) -> None:
    """Refuse infinities, NaN unless values can be missing, and frames without any value."""
    bad = x.isinf() if missing else ~x.isfinite()
    if bad.any():
        wrong = bad.sum(dim=(0, 2, 3, 4))  # (B, T, C, H, W) to (T,)
        raise ZooError(
            f"frames hold {int(wrong.sum())} {'' if missing else 'NaN or '}infinite values, the "
            f"first in frame {int(wrong.nonzero()[0])}; fill them before forecasting "
            "(numpy.nan_to_num, say)"
        )
    if x.numel() and x.isnan().flatten(1).all(dim=1).any():
        raise ZooError("all values of a sequence are missing (NaN); there is nothing to forecast")
    whole = x.isnan().flatten(2).all(dim=2).any(dim=0)  # (B, T, C, H, W) to (T,)
    if x.numel() and whole.any():
        i = int(whole.nonzero()[0])
        raise ZooError(f"frame {i} is missing whole: all its values are NaN; {ABSENT}")
