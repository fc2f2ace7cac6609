"""Frames with labels: conversion of xarray.DataArrays to plain arrays and back.

xarray is imported only when a DataArray is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from zoo.config import Data
from zoo.errors import ConfigError, DataError
from zoo.inputs import decoding
from zoo.stores import check_hdf5, check_netcdf, check_part, check_zarr
from zoo.units import ABSENT, duration, is_same_unit, seconds

if TYPE_CHECKING:
    import xarray

__all__ = [
    "BATCHES",
    "CHANNELS",
    "LABELED",
    "Labels",
    "is_labeled",
    "label_frames",
    "open_labeled",
    "read_first",
    "read_labeled",
    "read_values",
    "stack_members",
    "unlabel",
    "write_labeled",
]

#: Suffixes of files with coordinates, and xarray's engines for them.
LABELED = {".nc": "h5netcdf", ".nc4": "h5netcdf", ".zarr": "zarr"}

#: Names of dimensions other than time and the grid.
CHANNELS = ("channel", "channels", "band", "variable")
BATCHES = ("batch", "sample", "member", "realization")

SECOND = np.timedelta64(1, "s")


def is_labeled(frames: object) -> TypeGuard[xarray.DataArray]:
    """Return whether frames are an xarray.DataArray.

    Raises:
        DataError: If they are another object of xarray, such as a Dataset.
    """
    kind = type(frames)
    if kind.__module__.partition(".")[0] != "xarray":
        return False
    if not hasattr(frames, "dims") or not hasattr(frames, "coords") or hasattr(frames, "data_vars"):
        raise DataError(
            f"got an xarray.{kind.__name__}; expected an xarray.DataArray: select a variable, as "
            "in dataset['rain']"
        )
    return True


@dataclass
class Labels:
    """The labels of a DataArray.

    Attributes:
        array: The DataArray.
        unit: Its attribute "units", or as given; None if unknown.
        time_step: Seconds between its frames, or as given; None if unknown.
    """

    array: xarray.DataArray
    unit: str | None
    time_step: float | None

    @property
    def times(self) -> np.ndarray | None:
        """The times of the frames, (T,) of datetime64; None without them."""
        if "time" not in self.array.coords or self.array["time"].dtype.kind != "M":
            return None
        times: np.ndarray = self.array["time"].values
        return times

    def label(self, forecast: np.ndarray, data: Data) -> xarray.DataArray:
        """Label a forecast of the frames with the same dimensions.

        The coordinates are those of the frames. "time" continues, with "lead_time" along it and
        the time of the last frame as "reference_time". A grid without coordinates gets them from
        the grid step of the data, if known.

        Args:
            forecast: In the form of the values that :func:`unlabel` returned.
            data: Data of the model.
        """
        import datetime

        import xarray

        past = self.array
        for channel in set(CHANNELS) & {*past.dims}:  # without those that are only inputs
            past = past.isel({channel: slice(forecast.shape[-3])})
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
                if past["time"].dtype.kind == "O":  # dates of other calendars, by cftime
                    ahead = [datetime.timedelta(seconds=float(n)) for n in steps * step / SECOND]
                    coords["time"] = ("time", [last + lead for lead in ahead])
                else:
                    coords["time"] = last + steps * step
                coords["reference_time"] = last
        else:
            coords["lead_time"] = ("time", steps)
        coords |= _grid(past, data)
        attributes = {**past.attrs, "units": self.unit or data.unit}
        attributes.setdefault("long_name", data.variable)
        name = past.name if past.name is not None else data.variable
        if forecast.ndim > len(order):
            forecast = forecast[:, :, 0]  # (B, T, 1, H, W) to (B, T, H, W)
        return xarray.DataArray(forecast, coords, order, name, attributes).transpose(*past.dims)


def _grid(past: xarray.DataArray, data: Data) -> dict[str, Any]:
    """Return coordinates of the grid in meters, if it has none and its step is known."""
    grid = past.dims[-2:]
    if data.grid_step is None or any({*grid} & {*c.dims} for c in past.coords.values()):
        return {}
    names = ("below", "right of")
    return {
        str(dim): (
            dim,
            np.arange(past.sizes[dim]) * data.grid_step,
            {"units": "m", "long_name": f"distance {where} the center of the first cell"},
        )
        for dim, where in zip(grid, names, strict=True)
    }


def stack_members(forecasts: Sequence[Any]) -> Any:
    """Stack the members of an ensemble along a first axis, "member" of a DataArray.

    Raises:
        DataError: if the forecasts have a dimension of that name already.
    """
    first = forecasts[0]
    if is_labeled(first):
        import xarray

        if "member" in first.dims:
            raise DataError("the frames have a dimension 'member' already; rename it, to sample")
        return xarray.concat(forecasts, dim="member")
    if isinstance(first, np.ndarray):
        return np.stack(forecasts)
    import torch

    return torch.stack(list(forecasts))


def label_frames(frames: np.ndarray, times: np.ndarray | None, data: Data) -> xarray.DataArray:
    """Return frames (T, C, H, W) as a DataArray, without "channel" if there is only one."""
    import xarray

    dims = ["time", "channel", "y", "x"]
    if frames.shape[1] == 1:
        frames = frames[:, 0]  # (T, 1, H, W) to (T, H, W)
        dims.remove("channel")
    coords = {} if times is None else {"time": times.astype("datetime64[ns]")}
    return xarray.DataArray(frames, coords, dims, data.variable, {"units": data.unit})


def unlabel(
    frames: xarray.DataArray,
    *,
    unit: str | None = None,
    time_step: object = None,
) -> tuple[np.ndarray, Labels]:
    """Return the values of a DataArray, (T, H, W), (T, C, H, W) or (B, T, C, H, W), and its labels.

    Args:
        frames: The DataArray, with the dimension "time" and the grid as the last two.
        unit: Its unit, if it has no attribute "units".
        time_step: Time between frames, if it has no coordinate "time".

    Raises:
        DataError: For unknown dimensions, times that are not evenly spaced, a frame without any
            value, or labels that contradict `unit` or `time_step`.
    """
    dims = tuple(map(str, frames.dims))
    groups = [{"time"}, {*CHANNELS}, {*BATCHES}]  # each at most once, and not of the grid
    leading, grid = [*dims[:-2]], {*dims[-2:]}
    extra = [d for d in leading if not any(d in group for group in groups)]
    wrong = any(len([d for d in leading if d in group]) > 1 or group & grid for group in groups)
    if "time" not in leading or extra or wrong or len(grid) < 2:
        raise DataError(
            f"the DataArray has the dimensions {dims}; expected 'time', the grid as the last two, "
            f"and optionally one of {', '.join(CHANNELS)} and of {', '.join(BATCHES)}: rename or "
            "transpose it"
        )
    order = [d for d in (*BATCHES, "time", *CHANNELS) if d in dims] + list(dims[-2:])
    values = read_values(frames)
    _check_present(frames.copy(data=values))
    values = values.transpose([dims.index(d) for d in order])
    if order[0] != "time" and not set(CHANNELS) & set(order):
        values = values[:, :, None]  # (B, T, H, W) to (B, T, 1, H, W)
    units = None if frames.attrs.get("units") is None else str(frames.attrs["units"])
    if unit is not None and units is not None and not is_same_unit(unit, units):
        raise DataError(
            f"unit is {unit!r}, but the attribute units of the DataArray is {units!r}; correct one "
            "of them"
        )
    step = _find_step(frames["time"]) if "time" in frames.coords else None
    given = None if time_step is None else seconds(time_step)
    if step is not None and given is not None and abs(step - given) > 1e-3 * step:
        raise DataError(
            f"time_step is {duration(given)}, but the times of the DataArray are {duration(step)} "
            "apart; correct one of them"
        )
    return values, Labels(frames, units or unit, step or given)


def _find_step(time: xarray.DataArray) -> float | None:
    """Return the seconds between times, or None for a single one."""
    times = time.values
    dates = times.dtype.kind == "O" and all(hasattr(t, "calendar") for t in times)  # of cftime
    if not dates and times.dtype.kind not in "mM":
        shown = ", ".join(map(str, times[:2]))
        raise DataError(
            f"the coordinate 'time' of the DataArray is {times.dtype} ({shown}, …); expected dates "
            "or durations: convert it to datetime64 (in a file, set the attribute units = "
            "'minutes since 2020-01-01'), or use drop_vars('time') and pass time_step"
        )
    if not dates and np.isnat(times).any():
        raise DataError("a time of the DataArray is missing (NaT); give all frames a time, or none")
    if len(times) < 2:
        return None
    gaps = np.diff(times)
    steps = np.array([g.total_seconds() for g in gaps]) if dates else gaps / SECOND
    if steps.min() <= 0 or steps.max() - steps.min() > 1e-3 * steps.max():
        raise DataError(
            f"the times of the DataArray are {steps.min():g} to {steps.max():g} s apart; expected "
            "evenly spaced, increasing times: select or interpolate them"
        )
    return float(steps[0])


def _check_present(frames: xarray.DataArray) -> None:
    """Raise DataError for a frame without any value."""
    if frames.dtype.kind != "f" or not frames.size:
        return
    within = [d for d in frames.dims if d != "time" and d not in BATCHES]
    absent = frames.isnull().all(within)
    empty = absent.any([d for d in absent.dims if d != "time"]).values  # (T,)
    if empty.any() and not absent.all():
        i = int(empty.argmax())
        when = ""
        if "time" in frames.coords:
            time = frames["time"].values[i]
            when = f" ({time.astype('M8[s]') if frames['time'].dtype.kind == 'M' else time})"
        raise DataError(f"frame {i}{when} has no values, only NaN; {ABSENT}")


def open_labeled(file: Path) -> xarray.Dataset:
    """Open a NetCDF file or zarr store without reading its values.

    Raises:
        DataError: If it is missing, corrupt, refers to other files, or takes more memory than the
            limit.
    """
    import xarray

    engine: Any = LABELED[file.suffix]
    if find_spec(engine) is None:
        raise DataError(f"{file} needs {engine}, which is not installed: pip install {engine}")
    if engine == "zarr":
        check_zarr(file)
    else:
        check_hdf5(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stores without consolidated metadata
        try:
            return xarray.open_dataset(file, engine=engine, chunks=None, cache=False)
        except Exception as error:  # engines raise exceptions of many classes
            if any(name in str(error) for name in ("dimension_names", "_ARRAY_DIMENSIONS")):
                raise DataError(
                    f"{file}: the store does not name its dimensions; write it with "
                    "xarray.DataArray(array, dims=('time', 'y', 'x'), name='rain').to_dataset()"
                    ".to_zarr('named.zarr'), or read it as the data set arrays with the option dims"
                ) from error
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(f"{file}: could not be read ({first}); is it complete?") from error


def read_values(array: xarray.DataArray) -> np.ndarray:
    """Return the values of a DataArray, which are read from its file if it has one.

    Raises:
        DataError: If they take more memory than the limit, or the file is corrupt.
    """
    source = array.encoding.get("source", "the DataArray")
    if not getattr(array.variable, "_in_memory", True):
        chunks = array.encoding.get("chunksizes") or array.encoding.get("chunks")
        check_part(source, array.shape, array.dtype.itemsize, chunks)
    with decoding(source, "is it complete?"):
        return np.asarray(array.values)


def read_first(file: Path, variable: str | None, count: int | None) -> xarray.DataArray:
    """Open the first `count` frames of a variable, by default all; see :func:`read_labeled`."""
    array = read_labeled(file, variable)
    if "time" in array.dims:
        array = array.isel(time=slice(count))
    if file.suffix != ".zarr":
        check_netcdf(file, str(array.name), [slice(n) for n in array.shape])
    return array


def read_labeled(file: Path, variable: str | None = None) -> xarray.DataArray:
    """Open a variable of a NetCDF file or zarr store, by name if there are several."""
    dataset = open_labeled(file)
    names = [str(name) for name, array in dataset.data_vars.items() if array.ndim > 2]
    if variable is None and len(names) == 1:
        variable = names[0]
    if variable not in names:
        listed = ", ".join(names) or "no variable with three dimensions"
        problem = "several variables" if variable is None else f"no variable {variable!r}"
        raise ConfigError(f"{file} has {problem}; set the option variable: {listed}")
    array = dataset[variable]
    array.encoding["source"] = str(file)
    return array


def write_labeled(file: Path, array: xarray.DataArray) -> None:
    """Write a DataArray as NetCDF or zarr, atomically."""
    from zoo.atomic import atomic_folder, atomic_path

    atomic = atomic_folder if file.suffix == ".zarr" else atomic_path
    with atomic(file) as temporary, decoding(file, "drop coordinates and attributes", "written"):
        if file.suffix == ".zarr":
            array.to_dataset().to_zarr(temporary, mode="w")
        else:
            array.to_dataset().to_netcdf(temporary, engine="h5netcdf")
