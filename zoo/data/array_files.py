"""Arrays in .npy, .npz, HDF5, NetCDF and zarr files, opened lazily."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.cache import ArrayCache
from zoo.data.files import natural
from zoo.data.npz import LazyArray
from zoo.errors import ConfigError, DataError
from zoo.inputs import check_file, decoding
from zoo.labeled import read_labeled, read_values
from zoo.stores import check_netcdf, check_part, check_zarr, open_hdf5, read_hdf5, shape_of

__all__ = ["NAME_DIMS", "SUFFIXES", "ArrayFile", "open_arrays"]

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".nc", ".nc4", ".zarr")
NAME_DIMS = 'set the option dims, as in "time y x" or "time y x channel"'

#: Arrays of .npz files that were decompressed as a whole, as those up to 256 MiB are.
UNPACKED = ArrayCache(2**28)


@dataclass
class ArrayFile:
    """An array in a file.

    Attributes:
        label: File, and the name of the array in it.
        dims: Names of the axes, if the file has them.
        shape: Its shape.
        dtype: Its dtype.
        take: Function of a tuple of slices, one for each axis, that reads a part.
        times: datetime64[s], if the file has them.
        unit: Unit, if the file has it.
        name: Name of the quantity, if the file has it.
    """

    label: str
    dims: tuple[str, ...] | None
    shape: tuple[int, ...]
    dtype: np.dtype
    take: Callable[[tuple[slice, ...]], np.ndarray]
    times: np.ndarray | None = None
    unit: str | None = None
    name: str | None = None


def open_arrays(file: Path, variable: str | None, dims: Sequence[str] | None) -> list[ArrayFile]:
    """Open the arrays of a file.

    Args:
        file: A file or store with one of SUFFIXES.
        variable: Name of one array. By default all arrays of an .npz, and otherwise the only one.
        dims: Names of the axes, which a zarr store may lack.
    """
    suffix = file.suffix
    with decoding(file, "is it complete, and of the type that its suffix says?"):
        if suffix == ".npy":
            check_file(file)
            loaded = np.load(file, mmap_mode="r", allow_pickle=False)
            return [ArrayFile(str(file), None, loaded.shape, loaded.dtype, loaded.__getitem__)]
        if suffix == ".npz":
            return _open_npz(file, variable)
        if suffix in (".h5", ".hdf5"):
            return [_open_hdf5(file, variable)]
        if suffix == ".zarr" and importlib.util.find_spec("zarr"):
            unnamed = _find_unnamed(file)
            if unnamed and dims is None:
                raise DataError(f"{file} does not name the dimensions of its arrays; {NAME_DIMS}")
            if unnamed:
                return [_open_zarr(file, unnamed, variable)]
        return [_open_labeled(file, variable)]


def _choose(file: Path, variable: str | None, names: Sequence[str]) -> str:
    """Return the given name or the only one."""
    if variable is None and len(names) == 1:
        return names[0]
    listed = ", ".join(map(str, names[:12])) or "none"
    if variable is None:
        raise ConfigError(f"{file} contains several arrays; set the option variable: {listed}")
    if variable not in names:
        raise ConfigError(f"{file} contains no array {variable!r}; available: {listed}")
    return variable


def _open_npz(file: Path, variable: str | None) -> list[ArrayFile]:
    check_file(file)
    with np.load(file, allow_pickle=False) as archive:
        names = sorted(archive.files, key=natural)
    chosen = names if variable is None and names else [_choose(file, variable, names)]
    return [_open_packed(file, name) for name in chosen]


def _open_packed(file: Path, name: str) -> ArrayFile:
    packed = LazyArray(file, name)
    small = math.prod(packed.shape) * packed.dtype.itemsize <= UNPACKED.limit

    def take(part: tuple[slice, ...]) -> np.ndarray:
        if small:
            return UNPACKED.get((file, name), lambda: packed.read(0, packed.shape[0]))[part]
        start, stop, _ = part[0].indices(packed.shape[0])
        return packed.read(start, stop)[(slice(None), *part[1:])]

    return ArrayFile(f"{file}:{name}", None, packed.shape, packed.dtype, take)


def _open_hdf5(file: Path, variable: str | None) -> ArrayFile:
    import h5py

    opened = open_hdf5(file)
    names: list[str] = []
    opened.visititems(
        lambda name, item: (
            names.append(name) if isinstance(item, h5py.Dataset) and item.ndim > 2 else None
        )
    )
    variable = _choose(file, variable, names)
    array = opened[variable]
    labels = tuple(dim.label for dim in array.dims)
    return ArrayFile(
        f"{file}:{variable}",
        labels if all(labels) else None,
        array.shape,
        array.dtype,
        lambda part: read_hdf5(file, opened[variable], part),
        unit=_unit(array),
        name=variable,
    )


def _find_unnamed(file: Path) -> dict[str, Any]:
    """Return the arrays of a zarr store if it does not name their dimensions, as xarray needs."""
    arrays = check_zarr(file)
    # The names are in the metadata of format 3, and in the attributes of format 2.
    named = [
        getattr(array.metadata, "dimension_names", None) or "_ARRAY_DIMENSIONS" in array.attrs
        for array in arrays.values()
    ]
    return {} if all(named) else arrays


def _open_zarr(file: Path, arrays: dict[str, Any], variable: str | None) -> ArrayFile:
    """Open an array of a zarr store without names of dimensions."""
    variable = _choose(file, variable, [name for name, array in arrays.items() if array.ndim > 2])
    array = arrays[variable]
    if packed := {"scale_factor", "add_offset"} & {*array.attrs}:
        raise DataError(
            f"{file}:{variable} has {packed.pop()} but no names of dimensions; write it with "
            "xarray, which applies both"
        )
    label = f"{file}:{variable}" if variable else str(file)

    def take(part: tuple[slice, ...]) -> np.ndarray:
        check_part(label, shape_of(array, part), array.dtype.itemsize, array.chunks)
        return np.asarray(array[part])

    return ArrayFile(
        label,
        None,
        array.shape,
        array.dtype,
        take,
        unit=_unit(array),
        name=variable or None,
    )


def _open_labeled(file: Path, variable: str | None) -> ArrayFile:
    """Open a variable of a NetCDF file or a zarr store with xarray."""
    array = read_labeled(file, variable)
    times = None
    if "time" in array.coords and np.issubdtype(array["time"].dtype, np.datetime64):
        times = array["time"].values.astype("datetime64[s]")

    def take(part: tuple[slice, ...]) -> np.ndarray:
        if file.suffix != ".zarr":
            check_netcdf(file, str(array.name), part)
        return read_values(array[part])

    return ArrayFile(
        f"{file}:{array.name}",
        tuple(map(str, array.dims)),
        array.shape,
        array.dtype,
        take,
        times,
        _unit(array),
        str(array.attrs.get("standard_name", array.name)),
    )


def _unit(array: Any) -> str | None:
    unit = array.attrs.get("units")
    return None if unit is None else str(unit)
