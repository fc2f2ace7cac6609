"""Frames with labels: xarray.DataArrays to plain arrays and back.

xarray is imported only when a DataArray is at hand.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from zoo.config import Data
from zoo.errors import ZooError
from zoo.units import ABSENT, duration, is_same_unit, seconds

if TYPE_CHECKING:
    import xarray

__all__ = [
    "BATCHES",
    "CHANNELS",
    "LABELLED",
    "Labels",
    "is_labelled",
    "open_labelled",
    "read_labelled",
    "unlabel",
    "write_labelled",
]

#: Endings of files with coordinates, and what xarray reads them by.
LABELLED = {".nc": "h5netcdf", ".nc4": "h5netcdf", ".zarr": "zarr"}

#: Names under which dimensions other than time and the grid are known.
CHANNELS = ("channel", "channels", "band", "variable")
BATCHES = ("batch", "sample", "member", "realization")

SECOND = np.timedelta64(1, "s")


def is_labelled(frames: object) -> TypeGuard[xarray.DataArray]:
    """Whether frames are an xarray.DataArray."""
    return type(frames).__module__.partition(".")[0] == "xarray" and hasattr(frames, "dims")


@dataclass
class Labels:
    """What a DataArray says beside its values, or was told of it.

    unit: its attribute "units". time_step: between its frames in seconds. Each may be None.
    """

    array: xarray.DataArray
    unit: str | None
    time_step: float | None

    def label(self, forecast: np.ndarray, data: Data) -> xarray.DataArray:
        """The forecast of :func:`unlabel`'s frames as a DataArray of the same dimensions.

        Its coordinates are those of the frames; "time" goes on, and along it stand "lead_time",
        with the time of the last frame as "reference_time". A grid without coordinates gets them
        from the grid step of the data, where that is known.
        """
        import datetime

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
        made = xarray.DataArray(forecast, coords, order, name, attributes)
        return made.transpose(*past.dims)


def _grid(past: xarray.DataArray, data: Data) -> dict[str, Any]:
    """Coordinates of the grid in metres, where it has none and its step is known."""
    grid = past.dims[-2:]
    if data.grid_step is None or any({*grid} & {*c.dims} for c in past.coords.values()):
        return {}
    names = ("below", "right of")
    return {
        str(dim): (
            dim,
            np.arange(past.sizes[dim]) * data.grid_step,
            {"units": "m", "long_name": f"distance {where} the centre of the first cell"},
        )
        for dim, where in zip(grid, names, strict=True)
    }


def unlabel(
    frames: xarray.DataArray,
    *,
    unit: str | None = None,
    time_step: object = None,
) -> tuple[np.ndarray, Labels]:
    """The values of a DataArray, (T, H, W), (T, C, H, W) or (B, T, C, H, W), and its labels.

    `unit` and `time_step` are what is told beside them. Raises ZooError where it has no dimension
    "time", others that are not known, times that are not evenly spaced, a grid that is not its
    last two dimensions, a frame without any value, or where it contradicts what is told.
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
    _check_present(frames)
    said = None if (units := frames.attrs.get("units")) is None else str(units)
    if unit is not None and said is not None and not is_same_unit(unit, said):
        raise ZooError(
            f"the frames are told to be in {unit!r}, and the DataArray says {said!r} (its "
            "attribute units); correct the one or the other"
        )
    step = _step(frames["time"]) if "time" in frames.coords else None
    told = None if time_step is None else seconds(time_step)
    if step is not None and told is not None and abs(step - told) > 1e-3 * step:
        raise ZooError(
            f"the frames are told to be {duration(told)} apart, and the times of the DataArray are "
            f"{duration(step)} apart; correct the one or the other"
        )
    return values, Labels(frames, said or unit, step or told)


def _step(time: xarray.DataArray) -> float | None:
    """Seconds from one time to the next, None of a single one; ZooError for what are no times."""
    times = time.values
    dates = times.dtype.kind == "O" and all(hasattr(t, "calendar") for t in times)  # of cftime
    if not dates and times.dtype.kind not in "mM":
        shown = ", ".join(map(str, times[:2]))
        raise ZooError(
            f"the coordinate 'time' of the DataArray is {times.dtype} ({shown}, …), neither dates "
            "nor durations; give it as datetime64, in a file by the attribute units = "
            "'minutes since 2020-01-01', or drop it, drop_vars('time'), and tell the time step"
        )
    if not dates and np.isnat(times).any():
        raise ZooError("a time of the DataArray is missing (NaT); give all frames times, or none")
    if len(times) < 2:
        return None
    gaps = np.diff(times)
    steps = np.array([g.total_seconds() for g in gaps]) if dates else gaps / SECOND
    if steps.min() <= 0 or steps.max() - steps.min() > 1e-3 * steps.max():
        raise ZooError(
            f"the times of the DataArray are {steps.min():g} to {steps.max():g} s apart; "
            "expected rising, evenly spaced ones: select or interpolate them"
        )
    return float(steps[0])


def _check_present(frames: xarray.DataArray) -> None:
    """Refuse a frame of which all is missing, by its time."""
    if frames.dtype.kind != "f" or not frames.size:
        return
    within = [d for d in frames.dims if d != "time" and d not in BATCHES]
    absent = frames.isnull().all(within)
    whole = absent.any([d for d in absent.dims if d != "time"]).values  # (T,)
    if whole.any() and not absent.all():
        i = int(whole.argmax())
        when = ""
        if "time" in frames.coords:
            time = frames["time"].values[i]
            when = f" ({time.astype('M8[s]') if frames['time'].dtype.kind == 'M' else time})"
        raise ZooError(f"frame {i}{when} is missing whole: all its values are NaN; {ABSENT}")


def open_labelled(file: Path) -> xarray.Dataset:
    """A NetCDF file or zarr store, of which nothing is read yet; ZooError where it cannot be."""
    import xarray

    engine: Any = LABELLED[file.suffix]
    if find_spec(engine) is None:
        raise ZooError(f"{file} needs {engine}, which is not installed: pip install {engine}")
    if not file.exists():
        raise ZooError(f"{file}: there is no such file or folder; check the path")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stores without consolidated metadata
        try:
            return xarray.open_dataset(file, engine=engine, chunks=None, cache=False)
        except Exception as error:  # what engines raise is no closed list
            if any(name in str(error) for name in ("dimension_names", "_ARRAY_DIMENSIONS")):
                raise ZooError(
                    f"{file}: the store names no dimensions, so that time and grid cannot be told "
                    "apart; write it anew, xarray.DataArray(array, dims=('time', 'y', 'x'), "
                    "name='rain').to_dataset().to_zarr('named.zarr'), or as .npy, whose dimensions "
                    "the option dims of the data set arrays names"
                ) from error
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise ZooError(f"{file}: could not be read ({first}); is it complete?") from error


def read_labelled(file: Path, variable: str | None = None) -> xarray.DataArray:
    """A variable of a NetCDF file or zarr store, by name where there are several."""
    dataset = open_labelled(file)
    names = [str(name) for name, array in dataset.data_vars.items() if array.ndim > 2]
    if variable is None and len(names) == 1:
        variable = names[0]
    if variable not in names:
        listed = ", ".join(names) or "no variable with three dimensions"
        told = "several variables" if variable is None else f"no variable {variable!r}"
        raise ZooError(f"{file} has {told}; it holds {listed}: choose one by the option variable")
    return dataset[variable]


def write_labelled(file: Path, array: xarray.DataArray) -> None:
    """Write a DataArray as NetCDF or zarr; it appears whole or not at all."""
    from zoo.atomic import atomic_folder, atomic_path

    if file.suffix == ".zarr":
        with atomic_folder(file) as temporary:
            array.to_dataset().to_zarr(temporary, mode="w")
        return
    with atomic_path(file) as temporary:
        array.to_dataset().to_netcdf(temporary, engine="h5netcdf")
