"""Arrays: npy, npz, HDF5, zarr and NetCDF, read lazily, with named dimensions."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.files import CHANNELS_LAST, check_numbers, decoding, natural
from zoo.data.meteonet import FrameFile
from zoo.data.recordings import Series
from zoo.data.series import SequenceDataset
from zoo.errors import ZooError
from zoo.labelled import CHANNELS, read_labelled
from zoo.units import seconds

__all__ = ["Arrays"]

ENDINGS = (".npy", ".npz", ".h5", ".hdf5", ".nc", ".nc4", ".zarr")
RECORDINGS = ("recording", "clip", "sample")
BY_NUMBER = {
    3: ("time", "y", "x"),
    4: ("time", "channel", "y", "x"),
    5: ("recording", "time", "channel", "y", "x"),
}
NAME_THEM = 'name them by the option dims, as in "time y x" or "time y x channel"'
IN_MEMORY = 2**28  # bytes up to which an array of an .npz is unpacked at once


@dataclass
class _Array:
    """An array in a file: what it is called, its axes, and how to take a part of it.

    take: of a tuple of slices, one for each axis. times, unit, name: where the file tells.
    """

    label: str
    dims: tuple[str, ...] | None
    shape: tuple[int, ...]
    dtype: np.dtype
    take: Callable[[tuple[slice, ...]], np.ndarray]
    times: np.ndarray | None = None
    unit: str | None = None
    name: str | None = None


class Arrays(SequenceDataset):
    """Any arrays of frames: .npy, .npz, HDF5, NetCDF, zarr.

    They are read a few frames at a time, so that a store may be larger than the memory (an .npz,
    being packed, as a whole up to 256 MiB, and slowly beyond). NetCDF and zarr are read by
    xarray, which minds scale_factor, _FillValue and the calendar; a zarr store that does not name
    its dimensions by zarr alone, as the option dims says.

    Options, beside those of every data set of recordings: path, the file or store in
    the folder, where there are several; variable, which of several arrays (of an .npz several
    are several recordings otherwise); dims, the names of the axes in order, such as "time y x
    channel", where the file does not name them ("time y x", or "time channel y x", or "recording
    time channel y x" by number otherwise); channels, numbers of those to take; start and
    time_step, the time of the first frame and from one to the next, where the file tells no
    times; quantity, unit, grid_step, what the numbers mean, where it does not tell that. Arrays
    of uint8 are pictures unless they have a unit. Negative values mean missing where
    negative_is_missing.
    """

    title = "Arrays"
    folder = "arrays"
    licence = "that of the data"
    layout = "a file .npy, .npz, .h5, .nc, or a folder .zarr"
    counts = "as they are"

    def read_series(
        self,
        path: str | None = None,
        variable: str | None = None,
        dims: str | Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        start: str | None = None,
        time_step: Any = None,
        quantity: str | None = None,
        unit: str | None = None,
        grid_step: float | None = None,
        negative_is_missing: bool = False,
    ) -> tuple[list[Series], dict[str, Any]]:
        """The recordings of one file."""
        file = self._file(path)
        names = tuple(dims.split() if isinstance(dims, str) else dims or ()) or None
        arrays = _open(file, variable, names)
        step = None if time_step is None else seconds(time_step)
        series: list[Series] = []
        pictures = arrays[0].dtype == np.uint8 and unit is None and arrays[0].unit is None
        for array in arrays:
            check_numbers(array.label, array.dtype)
            axes = _axes(array, names)
            length, height, width = (array.shape[axes.index(axis)] for axis in ("time", "y", "x"))
            for name, first in _recordings(array, axes):
                read = functools.partial(
                    _read, array, axes, first, channels, negative_is_missing, pictures
                )
                times = array.times
                if times is None and start is not None:
                    if step is None:
                        raise ZooError("start needs time_step, the time from frame to frame: 30min")
                    ticks = np.arange(length) * np.timedelta64(round(step * 1e3), "ms")
                    times = (_time(start).astype("datetime64[ms]") + ticks).astype("datetime64[s]")
                series.append(Series(name, length, read, times, size=(height, width)))
        found: dict[str, Any] = {"low": 0.0, "high": 1.0} if pictures else {}
        if not pictures:
            found["unit"] = unit or arrays[0].unit or "1"
            found["variable"] = quantity or arrays[0].name or "value"
        # In a file that names its axes NaN means missing; elsewhere it is taken for a mistake.
        named = arrays[0].dtype.kind == "f" and arrays[0].dims is not None
        found["missing"] = negative_is_missing or named
        if step:
            found["time_step"] = step
        if grid_step:
            found["grid_step"] = float(grid_step)
        return series, found

    def _file(self, path: str | None) -> Path:
        place = self.root if path is None else self.root / path
        if place.suffix in ENDINGS or self.root.is_file():
            if not place.exists():
                raise ZooError(f"there is no {place}; check the option path")
            return place
        files = [p for p in sorted(place.glob("*"), key=natural) if p.suffix in ENDINGS]
        if len(files) != 1:
            there = ", ".join(p.name for p in files[:8]) or "none of them"
            raise ZooError(
                f"{place} holds {there}; expected one of {', '.join(ENDINGS)}: choose it by the "
                "option path"
            )
        return files[0]


def _time(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "s")
    except ValueError:
        raise ZooError(f"start is {text!r}; write it as 2015-01-31T12:00") from None


def _axes(array: _Array, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names of an array's axes as this module calls them, "time" and "y" and "x" among them."""
    dims = names or array.dims or BY_NUMBER.get(len(array.shape))
    mend = NAME_THEM
    if dims is not None and not names and not array.dims and _is_channels_last(array.shape):
        raise ZooError(f"{array.label} is {array.shape}; {CHANNELS_LAST}, or {mend}")
    if dims is None or len(dims) != len(array.shape):
        raise ZooError(
            f"{array.label} is {array.shape}, with the dimensions {dims or 'not named'}; {mend}"
        )
    axes = [
        "channel" if d in CHANNELS else "recording" if d in RECORDINGS else str(d) for d in dims
    ]
    grid = [d for d in axes if d not in ("time", "channel", "recording")]
    if "time" not in axes or len(grid) != 2:
        raise ZooError(
            f"{array.label} has the dimensions {tuple(dims)}; expected 'time', two of the grid, "
            f"and if needed 'channel' and 'recording': {mend}"
        )
    # The grid's axes keep their order and get their names; (x, y) by name is turned round.
    if grid != ["x", "y"]:
        axes[axes.index(grid[0])], axes[axes.index(grid[1])] = "y", "x"
    return tuple(axes)


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether (…, C, H, W) seems to be (…, H, W, C): the last axis short, and "C" is not."""
    return len(shape) > 3 and 1 <= shape[-1] <= 4 < shape[-3]


def _recordings(array: _Array, axes: tuple[str, ...]) -> list[tuple[str, int | None]]:
    if "recording" not in axes:
        return [(array.label, None)]
    return [(f"{array.label}[{i}]", i) for i in range(array.shape[axes.index("recording")])]


def _read(
    array: _Array,
    axes: tuple[str, ...],
    recording: int | None,
    channels: Sequence[int] | None,
    negative_is_missing: bool,
    pictures: bool,
    start: int,
    stop: int,
) -> np.ndarray:
    """Frames (T, C, H, W) of an array with any order of axes."""
    chosen = {"time": slice(start, stop), "recording": slice(recording, (recording or 0) + 1)}
    with decoding(array.label, "is it complete?"):
        block = array.take(tuple(chosen.get(axis, slice(None)) for axis in axes))
    order = [axes.index(a) for a in ("recording", "time", "channel", "y", "x") if a in axes]
    block = block.transpose(order)
    block = block[0] if "recording" in axes else block
    block = block if "channel" in axes else block[:, None]  # (T, H, W) to (T, 1, H, W)
    if channels is not None:
        if not all(0 <= c < block.shape[1] for c in channels):
            raise ZooError(f"{array.label} has {block.shape[1]} channels; there is no {channels}")
        block = block[:, [*channels]]
    if block.dtype == np.uint8 and not pictures:
        block = block.astype(np.float32)  # uint8 would be taken for pictures
    if negative_is_missing:
        block = np.where(block < 0, np.nan, block.astype(np.float32))
    return block


def _open(file: Path, variable: str | None, names: tuple[str, ...] | None) -> list[_Array]:
    """The arrays of a file, or the one that is asked for."""
    ending = file.suffix
    with decoding(file, "is it complete, and of the kind its name says?"):
        if ending == ".npy":
            loaded = np.load(file, mmap_mode="r", allow_pickle=False)
            return [_Array(str(file), None, loaded.shape, loaded.dtype, loaded.__getitem__)]
        if ending == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                keys = list(archive.files)
            chosen = sorted(keys, key=natural) if variable is None else [variable]
            _check_name(file, chosen[0], keys)
            return [_open_packed(file, key) for key in chosen]
        if ending in (".h5", ".hdf5"):
            return [_open_hdf5(file, variable)]
        if ending == ".zarr" and importlib.util.find_spec("zarr"):
            bare = _bare(file)
            if bare and names is None:
                raise ZooError(f"{file} does not name the dimensions of its arrays; {NAME_THEM}")
            if bare:
                return [_open_bare(file, bare, variable)]
        return [_open_labelled(file, variable)]


def _check_name(file: Path, name: str | None, names: Sequence[Any]) -> None:
    listed = ", ".join(map(str, names[:12]))
    if name is None:
        raise ZooError(f"{file} holds several arrays; choose one by the option variable: {listed}")
    if name not in names:
        raise ZooError(f"{file} has no array {name!r}; it holds {listed or 'none'}")


def _open_packed(file: Path, key: str) -> _Array:
    packed = FrameFile(file, key)
    small = math.prod(packed.shape) * packed._dtype.itemsize <= IN_MEMORY

    def take(part: tuple[slice, ...]) -> np.ndarray:
        if small:
            return _unpacked(file, key)[part]
        start, stop, _ = part[0].indices(packed.shape[0])
        return packed.read(start, stop)[(slice(None), *part[1:])]

    return _Array(f"{file}:{key}", None, packed.shape, packed._dtype, take)


@functools.lru_cache(maxsize=64)
def _unpacked(file: Path, key: str) -> np.ndarray:
    with np.load(file, allow_pickle=False) as archive:
        return np.asarray(archive[key])


def _open_hdf5(file: Path, variable: str | None) -> _Array:
    import h5py

    opened = h5py.File(file)
    names: list[str] = []
    opened.visititems(
        lambda name, item: (
            names.append(name) if isinstance(item, h5py.Dataset) and item.ndim > 2 else None
        )
    )
    if variable is None and len(names) == 1:
        variable = names[0]
    _check_name(file, variable, names)
    array = opened[variable]
    labels = tuple(dim.label for dim in array.dims)
    unit = array.attrs.get("units")
    return _Array(
        f"{file}:{variable}",
        labels if all(labels) else None,
        array.shape,
        array.dtype,
        lambda part: opened[variable][part],
        unit=None if unit is None else str(unit),
        name=variable,
    )


def _bare(file: Path) -> dict[str, Any]:
    """The arrays of a zarr store, if it does not name their dimensions, as xarray asks for."""
    import zarr

    store = zarr.open(file, mode="r")
    arrays = {"": store} if isinstance(store, zarr.Array) else dict(store.arrays())
    # The names are in the metadata of format 3, and among the attributes of format 2.
    named = [
        getattr(array.metadata, "dimension_names", None) or "_ARRAY_DIMENSIONS" in array.attrs
        for array in arrays.values()
    ]
    return {} if all(named) else arrays


def _open_bare(file: Path, arrays: dict[str, Any], variable: str | None) -> _Array:
    """An array of a zarr store without names of dimensions, by zarr itself."""
    names = [name for name, array in arrays.items() if array.ndim > 2]
    if variable is None and len(names) == 1:
        variable = names[0]
    _check_name(file, variable, names)
    array = arrays[variable or ""]
    if packed := {"scale_factor", "add_offset"} & {*array.attrs}:
        raise ZooError(
            f"{file}:{variable} has {packed.pop()} but no names of dimensions; write it by xarray, "
            "which minds both"
        )
    unit = array.attrs.get("units")
    return _Array(
        f"{file}:{variable}" if variable else str(file),
        None,
        array.shape,
        array.dtype,
        array.__getitem__,
        unit=None if unit is None else str(unit),
        name=variable or None,
    )


def _open_labelled(file: Path, variable: str | None) -> _Array:
    """A variable of a NetCDF file or a zarr store, by xarray."""
    array = read_labelled(file, variable)
    times = None
    if "time" in array.coords and np.issubdtype(array["time"].dtype, np.datetime64):
        times = array["time"].values.astype("datetime64[s]")
    unit = array.attrs.get("units")
    return _Array(
        f"{file}:{array.name}",
        tuple(map(str, array.dims)),
        array.shape,
        array.dtype,
        lambda part: array[part].values,
        times,
        None if unit is None else str(unit),
        str(array.attrs.get("standard_name", array.name)),
    )
