"""Grids in NetCDF files with the CF conventions, one time a file or several."""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.composite import Composite, describe_values
from zoo.errors import ConfigError, DataError
from zoo.inputs import decoding
from zoo.labeled import open_labeled, read_values
from zoo.stores import check_netcdf
from zoo.units import is_same_unit

if TYPE_CHECKING:
    import xarray

__all__ = ["open_cf"]

TIMES = ("time", "valid_time")
STARTS = ("start_time",)  # of an accumulation, if the time has no bounds
X_NAMES = ("x", "lon", "longitude")
METERS = {"m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0, "km": 1000.0}


def open_cf(path: Path, variable: str | None = None) -> list[Composite]:
    """Open the grids of a variable, at the times in the file.

    Args:
        path: A NetCDF file.
        variable: Name of the variable; by default the only one.

    Raises:
        ConfigError: If there are several variables, or none of this name.
        DataError: If the file is corrupt, or has no times.
    """
    with open_labeled(path) as dataset, decoding(path, "is it complete, and NetCDF?"):
        name = _choose(path, dataset, variable)
        array = dataset[name]
        axis = _time_axis(path, array)
        starts, ends = _intervals(path, dataset, axis)
        unit = str(array.attrs.get("units", "1"))
        label = str(array.attrs.get("standard_name", name))
        fields, factor = describe_values(label, unit, ends[0] - starts[0])
        if step := _grid_step(array):
            fields["grid_step"] = step
        place = _place(dataset, array)
    several = axis is not None
    return [
        Composite(
            end,
            name,
            fields,
            functools.partial(_read, path, name, i if several else None, factor),
            f"{path}, frame {i}" if several else str(path),
            place,
        )
        for i, end in enumerate(ends)
    ]


def _choose(path: Path, dataset: xarray.Dataset, variable: str | None) -> str:
    """Return the given name, or that of the only variable on a grid."""
    bounds = {v.attrs.get("bounds", v.encoding.get("bounds")) for v in dataset.variables.values()}
    names = [
        str(name)
        for name, array in dataset.data_vars.items()
        if array.ndim >= 2 and array.dtype.kind in "iuf" and name not in bounds
    ]
    if variable is None and len(names) == 1:
        return names[0]
    listed = ", ".join(names[:12]) or "none with a grid"
    if variable is None and names:
        raise ConfigError(f"{path} has several variables; set the option variable: {listed}")
    if variable not in names:
        raise ConfigError(f"{path} has no variable {variable or 'of a grid'!r}; it has: {listed}")
    return variable


def _time_axis(path: Path, array: xarray.DataArray) -> str | None:
    """Return the dimension besides the grid; None if the file contains a single time."""
    dims = [str(dim) for dim in array.dims[:-2] if array.sizes[dim] != 1]
    if len(dims) > 1:
        raise DataError(
            f"{path}: {array.name} has the dimensions {array.dims}; expected one time and two of "
            "the grid"
        )
    return dims[0] if dims else None


def _intervals(
    path: Path, dataset: xarray.Dataset, axis: str | None
) -> tuple[list[datetime], list[datetime]]:
    """Return start and end of every time; they are equal if the file has no intervals."""
    count = 1 if axis is None else dataset.sizes[axis]
    moments = {
        str(name): v for name, v in dataset.variables.items() if v.dtype.kind == "M" and v.size
    }
    found = [
        name
        for name, v in moments.items()
        if v.size == count and (name in TIMES or v.attrs.get("standard_name") == "time")
    ]
    if not found:
        raise DataError(
            f"{path} has no times of its {count} grids; expected a variable with the standard_name "
            "'time' and units such as 'seconds since 1970-01-01'"
        )
    time = moments[found[0]]
    bounds = moments.get(str(time.attrs.get("bounds", time.encoding.get("bounds"))))
    if bounds is not None and bounds.size == 2 * count:
        pairs = bounds.values.reshape(count, 2)  # (T, 2), from (2,) if there is one time
        return _to_datetimes(path, pairs[:, 0]), _to_datetimes(path, pairs[:, 1])
    ends = _to_datetimes(path, time.values)
    start = next((moments[name] for name in STARTS if name in moments), None)
    if start is None or start.size != count:
        return ends, ends
    return _to_datetimes(path, start.values), ends


def _to_datetimes(path: Path, times: np.ndarray) -> list[datetime]:
    moments: list[Any] = times.astype("datetime64[s]").ravel().tolist()
    if wrong := [moment for moment in moments if not isinstance(moment, datetime)]:
        raise DataError(f"{path} has the time {wrong[0]}; expected times, all within 9999 years")
    return moments


def _grid_step(array: xarray.DataArray) -> float | None:
    """Return the size of a cell in meters, unless the grid is in degrees or not stated."""
    for dim in array.dims[-2:]:
        if dim not in array.coords or array.sizes[dim] < 2:
            continue
        coordinate = array[dim]
        unit = str(coordinate.attrs.get("units", "")).lower()
        meters = next((size for name, size in METERS.items() if is_same_unit(unit, name)), None)
        step = abs(float(coordinate[1] - coordinate[0]))
        if meters and 0 < step < np.inf:
            return step * meters
    return None


def _place(dataset: xarray.Dataset, array: xarray.DataArray) -> tuple[str, ...]:
    """Return the projection and the corners of the grid."""
    mapping = str(array.attrs.get("grid_mapping", array.encoding.get("grid_mapping", "")))
    attributes = dataset[mapping].attrs if mapping in dataset.variables else {}
    texts = [f"{name}={np.asarray(value).tolist()}" for name, value in sorted(attributes.items())]
    for dim in array.dims[-2:]:
        if dim in array.coords:
            first, last = (float(array[dim][i]) for i in (0, -1))
            texts.append(f"{dim} from {first:g} to {last:g}")
    return (f"{'×'.join(str(n) for n in array.shape[-2:])} cells", *texts)


def _read(path: Path, name: str, index: int | None, factor: float) -> np.ndarray:
    """Read a grid (H, W), north up and west on the left, as float32."""
    with open_labeled(path) as dataset, decoding(path, "is it complete, and NetCDF?"):
        array = dataset[name]
        chosen = slice(None) if index is None else slice(index, index + 1)
        part = [chosen if n > 1 else slice(None) for n in array.shape[:-2]]
        part += [slice(None), slice(None)]  # the grid
        check_netcdf(path, name, part)
        array = array[tuple(part)]
        grid = read_values(array).reshape(array.shape[-2:])  # (1, …, H, W) to (H, W)
        dims = [str(dim) for dim in array.dims[-2:]]
        if dims[0].lower() in X_NAMES:
            grid, dims = grid.T, dims[::-1]
        if _is_increasing(array, dims[0]):
            grid = grid[::-1]
        if dims[1] in array.coords and not _is_increasing(array, dims[1]):
            grid = grid[:, ::-1]
    return np.asarray(grid * np.float64(factor), np.float32)


def _is_increasing(array: xarray.DataArray, dim: str) -> bool:
    """Return whether a coordinate of the grid increases; False without it."""
    if dim not in array.coords or array.sizes[dim] < 2:
        return False
    return bool(array[dim][1] > array[dim][0])
