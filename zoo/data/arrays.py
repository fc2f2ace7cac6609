"""Arrays: npy, npz, HDF5, zarr and NetCDF, read lazily, with named dimensions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.array_files import NAME_DIMS, SUFFIXES, ArrayFile, open_arrays
from zoo.data.files import CHANNELS_LAST, check_numbers, natural
from zoo.data.recordings import Series
from zoo.data.series import SequenceDataset
from zoo.errors import ConfigError, DataError
from zoo.inputs import decoding
from zoo.labeled import CHANNELS
from zoo.units import seconds

__all__ = ["Arrays"]

RECORDINGS = ("recording", "clip", "sample")
BY_NUMBER = {
    3: ("time", "y", "x"),
    4: ("time", "channel", "y", "x"),
    5: ("recording", "time", "channel", "y", "x"),
}


class Arrays(SequenceDataset):
    """Any arrays of frames: .npy, .npz, HDF5, NetCDF, zarr.

    They are read a few frames at a time, so a store may be larger than memory (an .npz, being
    compressed, is read as a whole up to 256 MiB, and slowly beyond). NetCDF and zarr are read
    with xarray, which applies scale_factor, _FillValue and the calendar; a zarr store that does
    not name its dimensions is read without it and needs the option dims. Arrays of uint8 are
    pictures unless they have a unit.

    path: File or store in the folder, if there are several.
    variable: Name of one of several arrays. By default each array of an .npz is a recording.
    dims: Names of the axes in order, such as "time y x channel", if the file does not name them
        (default: "time y x", "time channel y x" or "recording time channel y x").
    channels: Indices of the channels to read.
    start, time_step: Time of the first frame and time between frames, if the file has no times.
    quantity, unit, grid_step: Meaning of the values, if the file does not say.
    negative_is_missing: Whether negative values are missing.
    """

    title = "Arrays"
    folder = "arrays"
    license = "that of the data"
    layout = "a file .npy, .npz, .h5, .nc, or a folder .zarr"
    counts = "depend on the files"

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
        """Return the recordings of one file."""
        names = tuple(dims.split() if isinstance(dims, str) else dims or ()) or None
        arrays = open_arrays(self._find_file(path), variable, names)
        first, step = arrays[0], None if time_step is None else seconds(time_step)
        pictures = first.dtype == np.uint8 and unit is None and first.unit is None
        series = []
        for array in arrays:
            check_numbers(array.label, array.dtype)
            axes = _name_axes(array, names)
            length, height, width = (array.shape[axes.index(axis)] for axis in ("time", "y", "x"))
            times = _times(start, step, length) if array.times is None else array.times
            for name, recording in _recordings(array, axes):
                read = functools.partial(
                    _read, array, axes, recording, channels, negative_is_missing, pictures
                )
                series.append(Series(name, length, read, times, size=(height, width)))
        # In a file that names its axes NaN means missing; elsewhere it is taken for a mistake.
        missing = negative_is_missing or (first.dtype.kind == "f" and first.dims is not None)
        fields: dict[str, Any] = {"missing": missing}
        if pictures:
            fields |= {"low": 0.0, "high": 1.0}
        else:
            fields["unit"] = unit or first.unit or "1"
            fields["variable"] = quantity or first.name or "value"
        if step:
            fields["time_step"] = step
        if grid_step:
            fields["grid_step"] = float(grid_step)
        return series, fields

    def _find_file(self, path: str | None) -> Path:
        place = self.root if path is None else self.root / path
        if place.suffix in SUFFIXES or self.root.is_file():
            if not place.exists():
                raise DataError(f"{place} does not exist; check the option path")
            return place
        files = [p for p in sorted(place.glob("*"), key=natural) if p.suffix in SUFFIXES]
        if len(files) != 1:
            found = ", ".join(p.name for p in files[:8]) or "none"
            fix = "set the option path"
            if {p.suffix for p in files} in ({".nc"}, {".nc4"}):
                fix += ", or read all as one recording with the data set grids"
            raise DataError(
                f"{place}: expected one file {', '.join(SUFFIXES)}, found {found}; {fix}"
            )
        return files[0]


def _times(start: str | None, step: float | None, length: int) -> np.ndarray | None:
    """Return the times of frames from the options start and time_step."""
    if start is None:
        return None
    if step is None:
        raise ConfigError("start needs time_step, the time between frames, such as 30min")
    try:
        first = np.datetime64(start, "s")
    except ValueError:
        raise ConfigError(f"start is {start!r}; write it as 2015-01-31T12:00") from None
    ticks = np.arange(length) * np.timedelta64(round(step * 1e3), "ms")
    return (first.astype("datetime64[ms]") + ticks).astype("datetime64[s]")


def _name_axes(array: ArrayFile, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the axes in order: "time", "y", "x", and perhaps "channel" and "recording"."""
    dims = names or array.dims or BY_NUMBER.get(len(array.shape))
    if dims is not None and not names and not array.dims and _is_channels_last(array.shape):
        raise DataError(f"{array.label} has shape {array.shape}; {CHANNELS_LAST}, or {NAME_DIMS}")
    if dims is None or len(dims) != len(array.shape):
        raise DataError(
            f"{array.label} has shape {array.shape} and the dimensions {dims or 'unnamed'}; "
            f"{NAME_DIMS}"
        )
    axes = [
        "channel" if d in CHANNELS else "recording" if d in RECORDINGS else str(d) for d in dims
    ]
    grid = [d for d in axes if d not in ("time", "channel", "recording")]
    if "time" not in axes or len(grid) != 2:
        raise DataError(
            f"{array.label} has the dimensions {tuple(dims)}; expected 'time', two of the grid, "
            f"and optionally 'channel' and 'recording': {NAME_DIMS}"
        )
    # The grid's axes keep their order and get their names; ("x", "y") is transposed.
    if grid != ["x", "y"]:
        axes[axes.index(grid[0])], axes[axes.index(grid[1])] = "y", "x"
    return tuple(axes)


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    """Return whether (…, C, H, W) looks like (…, H, W, C): a short last axis, and a long "C"."""
    return len(shape) > 3 and 1 <= shape[-1] <= 4 < shape[-3]


def _recordings(array: ArrayFile, axes: tuple[str, ...]) -> Iterator[tuple[str, int | None]]:
    """Yield the name and the index of every recording."""
    if "recording" not in axes:
        yield array.label, None
        return
    for i in range(array.shape[axes.index("recording")]):
        yield f"{array.label}[{i}]", i


def _read(
    array: ArrayFile,
    axes: tuple[str, ...],
    recording: int | None,
    channels: Sequence[int] | None,
    negative_is_missing: bool,
    pictures: bool,
    start: int,
    stop: int,
) -> np.ndarray:
    """Read frames (T, C, H, W) from an array with any order of axes."""
    chosen = {"time": slice(start, stop), "recording": slice(recording, (recording or 0) + 1)}
    with decoding(array.label, "is it complete?"):
        block = array.take(tuple(chosen.get(axis, slice(None)) for axis in axes))
    order = [axes.index(a) for a in ("recording", "time", "channel", "y", "x") if a in axes]
    block = block.transpose(order)  # (1, T, C, H, W), without missing axes
    block = block[0] if "recording" in axes else block
    block = block if "channel" in axes else block[:, None]  # (T, H, W) to (T, 1, H, W)
    if channels is not None:
        if not all(0 <= c < block.shape[1] for c in channels):
            raise ConfigError(
                f"channels is {channels}, but {array.label} has {block.shape[1]} channels"
            )
        block = block[:, [*channels]]
    if block.dtype == np.uint8 and not pictures:
        block = block.astype(np.float32)  # uint8 would be read as pictures
    if negative_is_missing:
        block = np.where(block < 0, np.nan, block.astype(np.float32))
    return block
