"""Frames with labels: xarray.DataArrays to plain arrays and back.

xarray is imported only when a DataArray is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from zoo.config import Data
from zoo.errors import ZooError

if TYPE_CHECKING:
    import xarray

__all__ = ["BATCHES", "CHANNELS", "Labels", "is_labelled", "unlabel"]

#: Names under which dimensions other than time and the grid are known.
CHANNELS = ("channel", "channels", "band", "variable")
BATCHES = ("batch", "sample", "member", "realization")


def is_labelled(frames: object) -> TypeGuard[xarray.DataArray]:
    """Whether frames are an xarray.DataArray."""
    return type(frames).__module__.partition(".")[0] == "xarray" and hasattr(frames, "dims")


@dataclass
class Labels:
    """What a DataArray says beside its values.

    unit: its attribute "units". time_step: between its frames in seconds. Each may be None.
    """

    array: xarray.DataArray
    unit: str | None
    time_step: float | None

    def label(self, forecast: np.ndarray, data: Data) -> xarray.DataArray:
        """The forecast of :func:`unlabel`'s frames as a DataArray of the same dimensions.

        Its coordinates are those of the frames; "time" goes on, and along it stand "lead_time",
        with the time of the last frame as "reference_time".
        """
        import xarray

        past = self.array
        order = [d for d in (*BATCHES, "time", *CHANNELS) if d in past.dims]
        order += map(str, past.dims[-2:])
        steps = np.arange(1, forecast.shape[order.index("time")] + 1)
        coords: dict[Any, Any] = {
            name: coordinate
            for name, coordinate in past.coords.items()
            if "time" not in coordinate.dims and name not in ("lead_time", "reference_time")
        }
        if data.time_step or self.time_step:
            step = np.timedelta64(round((self.time_step or data.time_step or 0) * 1e9), "ns")
            coords["lead_time"] = ("time", steps * step)
            if "time" in past.coords:
                last = past["time"].values[-1]
                coords["time"] = last + steps * step
                coords["reference_time"] = last
        else:
            coords["lead_time"] = ("time", steps)
        attributes = {**past.attrs, "units": self.unit or data.unit}
        attributes.setdefault("long_name", data.variable)
        name = past.name if past.name is not None else data.variable
        if forecast.ndim > len(order):
            forecast = forecast[:, :, 0]  # (B, T, 1, H, W) to (B, T, H, W)
        made = xarray.DataArray(forecast, coords, order, name, attributes)
        return made.transpose(*past.dims)


def unlabel(frames: xarray.DataArray, data: Data) -> tuple[np.ndarray, Labels]:
    """The values of a DataArray, (T, H, W), (T, C, H, W) or (B, T, C, H, W), and its labels.

    Raises ZooError where it has no dimension "time", others that are not known, times that are
    not evenly spaced, or a grid that is not its last two dimensions.
    """
    dims = tuple(map(str, frames.dims))
    extra = [d for d in dims[:-2] if d not in ("time", *CHANNELS, *BATCHES)]
    if "time" not in dims[:-2] or extra or len(dims) > 5:
        raise ZooError(
            f"the DataArray has the dimensions {dims}; expected a dimension 'time', the grid as "
            f"the last two, and if needed one of {', '.join(CHANNELS)} and of "
            f"{', '.join(BATCHES)}: rename or transpose it"
        )
    order = [d for d in (*BATCHES, "time", *CHANNELS) if d in dims] + list(dims[-2:])
    values = np.asarray(frames.transpose(*order).values)
    if order[0] != "time" and not set(CHANNELS) & set(order):
        values = values[:, :, None]  # (B, T, H, W) to (B, T, 1, H, W)
    unit = frames.attrs.get("units")
    step = None
    if "time" in frames.coords and frames.sizes["time"] > 1:
        times = frames["time"].values
        if np.issubdtype(times.dtype, np.datetime64):
            steps = np.diff(times) / np.timedelta64(1, "s")
            if steps.min() <= 0 or steps.max() - steps.min() > 1e-3 * steps.max():
                raise ZooError(
                    f"the times of the DataArray are {steps.min():g} to {steps.max():g} s apart; "
                    "expected rising, evenly spaced ones: select or interpolate them"
                )
            step = float(steps[0])
    return values, Labels(frames, None if unit is None else str(unit), step)
