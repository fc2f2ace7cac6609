"""Prepared data: all frames as one array that is memory-mapped, with the facts about them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.reader import FrameReader
from zoo.data.recordings import Series
from zoo.errors import ConfigError, DataError

__all__ = ["is_prepared", "read_prepared", "write_prepared"]

FACTS = "frames.json"
FRAMES = "frames.npy"
CHUNK = 16  # frames


def is_prepared(folder: Path) -> bool:
    """Return whether :func:`write_prepared` wrote the folder."""
    return (folder / FACTS).is_file()


def write_prepared(
    folder: Path,
    reader: FrameReader,
    frame: np.ndarray,
    fields: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Iterator[tuple[int, int]]:
    """Write all frames of all recordings, and what is known about them.

    Args:
        folder: An empty folder.
        reader: Reads the frames.
        frame: Any frame (C, H, W) as stored, for the shape and the dtype.
        fields: Fields of :class:`zoo.config.Data` that hold for the frames.
        options: The options that the frames were made with.

    Yields:
        Frames written and in total.
    """
    total, done = sum(series.length for series in reader.series), 0
    shape = (total, *frame.shape)
    array = np.lib.format.open_memmap(folder / FRAMES, "w+", frame.dtype, shape)
    for number, series in enumerate(reader.series):
        for start in range(0, series.length, CHUNK):
            chosen = np.arange(start, min(start + CHUNK, series.length))
            array[done : done + len(chosen)] = reader.read_stored(number, chosen)
            done += len(chosen)
            yield done, total
    array.flush()
    records = [_to_record(series) for series in reader.series]
    facts = {"series": records, "found": dict(fields), "options": dict(options)}
    (folder / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def read_prepared(
    folder: Path, options: Mapping[str, Any]
) -> tuple[list[Series], dict[str, Any], dict[str, Any]]:
    """Open a prepared folder.

    Args:
        folder: Written by :func:`write_prepared`.
        options: Options that change the frames, as given now.

    Returns:
        The recordings, fields of :class:`zoo.config.Data`, and the options that the frames were
        made with.

    Raises:
        ConfigError: If an option differs from those the frames were made with.
        DataError: If the folder is corrupt.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        array = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)
        series = _from_records(facts["series"], array)
        fields, made_with = facts["found"], facts["options"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is corrupt ({error}); run zoo data prepare again") from None
    for name, value in options.items():
        if value != made_with.get(name):
            raise ConfigError(
                f"{folder} was prepared with {name} = {made_with.get(name)!r}, not {value!r}; omit "
                "the option or prepare the data again"
            )
    return series, fields, made_with


def _to_record(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "length": series.length,
        "times": None if series.times is None else [str(t) for t in series.times],
        "part": series.part,
        "stride": series.stride,
        "breaks": [*map(int, series.breaks)],
        "extremes": None if series.extremes is None else series.extremes.tolist(),
    }


def _from_records(records: Sequence[Mapping[str, Any]], array: np.ndarray) -> list[Series]:
    series, first = [], 0
    for record in records:
        times, extremes = record["times"], record["extremes"]
        series.append(
            Series(
                record["name"],
                record["length"],
                functools.partial(_read_slice, array, first),
                None if times is None else np.array(times, "datetime64[s]"),
                part=record["part"],
                stride=record["stride"],
                breaks=record["breaks"],
                extremes=None if extremes is None else np.array(extremes),
            )
        )
        first += record["length"]
    if first != len(array):
        raise ValueError(f"{FRAMES} has {len(array)} frames, expected {first}")
    return series


def _read_slice(array: np.ndarray, first: int, start: int, stop: int) -> np.ndarray:
    return np.asarray(array[first + start : first + stop])
