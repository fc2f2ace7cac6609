"""Prepared data: all frames as one array that is memory-mapped, with the facts about them."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError, model_validator

from zoo.config import Data
from zoo.data.reader import FrameReader
from zoo.data.recordings import Series
from zoo.errors import ConfigError
from zoo.inputs import check_file, decoding, read_text

__all__ = ["is_prepared", "read_prepared", "write_prepared"]

FACTS = "frames.json"
FRAMES = "frames.npy"
CHUNK = 16  # frames


def is_prepared(folder: Path) -> bool:
    """Return whether :func:`write_prepared` wrote the folder."""
    return os.path.lexists(folder / FACTS)


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
    with decoding(folder, "run zoo data prepare again"):
        try:
            facts = _Facts.model_validate_json(read_text(folder / FACTS))
            Data.model_validate(facts.found)
        except ValidationError as error:
            raise ValueError(f"{FACTS}: {error.errors()[0]['msg']}") from None
        check_file(folder / FRAMES)
        array = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)
        series = _from_records(facts.series, array)
    fields, made_with = facts.found, facts.options
    for name, value in options.items():
        if value != made_with.get(name):
            raise ConfigError(
                f"{folder} was prepared with {name} = {made_with.get(name)!r}, not {value!r}; omit "
                "the option or prepare the data again"
            )
    return series, fields, made_with


class _Record(BaseModel):
    """What is known about a recording; see :class:`zoo.data.recordings.Series`."""

    name: str
    length: NonNegativeInt
    times: list[str] | None
    part: Literal["train", "valid", "test"] | None
    stride: PositiveInt | None
    breaks: list[PositiveInt]
    extremes: list[tuple[float, float]] | None

    @model_validator(mode="after")
    def _check_breaks(self) -> _Record:
        if self.breaks and max(self.breaks) >= self.length:
            raise ValueError(f"{self.name} has {self.length} frames and breaks beyond")
        return self


class _Facts(BaseModel):
    """What is known about prepared frames."""

    series: list[_Record]
    found: dict[str, Any]
    options: dict[str, Any]


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


def _from_records(records: Sequence[_Record], array: np.ndarray) -> list[Series]:
    series, first = [], 0
    for record in records:
        times = None if record.times is None else np.array(record.times, "datetime64[s]")
        extremes = None if record.extremes is None else np.array(record.extremes)
        for name, values in (("times", times), ("extremes", extremes)):
            if values is not None and len(values) != record.length:
                raise ValueError(f"{record.name} has {len(values)} {name}")
        read = functools.partial(_read_slice, array, first)
        series.append(
            Series(
                record.name,
                record.length,
                read,
                times,
                part=record.part,
                stride=record.stride,
                breaks=record.breaks,
                extremes=extremes,
            )
        )
        first += record.length
    if first != len(array):
        raise ValueError(f"{FRAMES} has {len(array)} frames, expected {first}")
    return series


def _read_slice(array: np.ndarray, first: int, start: int, stop: int) -> np.ndarray:
    return np.asarray(array[first + start : first + stop])
