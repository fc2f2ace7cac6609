"""Recordings: frames one after another, read a few at a time, cropped and pooled."""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from zoo.errors import ZooError
from zoo.memory import trim

__all__ = ["PREPARED", "Recordings", "Series", "check_crop", "check_sizes", "read_prepared"]

CACHE = 128 * 2**20  # bytes of frames that are kept
PREPARED = "frames.json"  # tells that a folder holds what prepare() wrote


@dataclass(frozen=True)
class Series:
    """A recording: frames one after another.

    name: as people know it: a file, a subject, a product.
    length: number of frames.
    read: (start, stop) to frames (stop − start, C, H, W) in units of the data, NaN where
        missing, or pictures as uint8. It may raise ZooError.
    times: (length,) of datetime64[s] in UTC, where they are known.
    labels: (length,) names for messages, of the file of each frame, say.
    part: "train", "valid" or "test", where the data set itself says.
    whole: whether it is read in one go, as a video is.
    stride: frames between the starts of two windows, where it is not the same for all.
    size: (height, width), where it is known before a frame is read.
    breaks: numbers of frames before which there is a gap, where the times do not show it.
    extremes: (length, 2), the smallest and the largest value of each frame, where the range of
        the data set is that of more than `read` gives.
    """

    name: str
    length: int
    read: Callable[[int, int], np.ndarray]
    times: np.ndarray | None = None
    labels: Sequence[str] | None = None
    part: str | None = None
    whole: bool = False
    stride: int | None = None
    size: tuple[int, int] | None = None
    breaks: Sequence[int] = ()
    extremes: np.ndarray | None = None

    def label(self, index: int) -> str:
        """The name of a frame for a message."""
        return self.labels[index] if self.labels else f"{self.name}, frame {index}"

    def thinned(self, chosen: np.ndarray, every: int, breaks: Sequence[int] = ()) -> Series:
        """The frames `chosen` alone, `every` apart where there is no gap, as a recording."""
        return Series(
            self.name,
            len(chosen),
            functools.partial(_read_chosen, self, chosen),
            None if self.times is None else self.times[chosen],
            [self.label(int(i)) for i in chosen],
            self.part,
            self.whole,
            self.stride and max(1, self.stride // every),
            self.size,
            breaks,
            None if self.extremes is None else self.extremes[chosen],
        )

    def check_times(self) -> None:
        """Refuse times that repeat or go back."""
        if self.times is None or not self.length:
            return
        if np.isnat(self.times).any():
            i = int(np.argmax(np.isnat(self.times)))
            raise ZooError(f"{self.label(i)} has no time (NaT); give all frames times, or none")
        wrong = np.flatnonzero(np.diff(self.times) <= np.timedelta64(0, "s"))
        if len(wrong):
            i = int(wrong[0])
            what = "repeats" if self.times[i] == self.times[i + 1] else "comes after"
            raise ZooError(
                f"{self.label(i + 1)}: its time, {self.times[i + 1]}, {what} that of the frame "
                f"before it, {self.label(i)} ({self.times[i]}); expected rising times: take one "
                "away or sort them"
            )


def check_sizes(series: Sequence[Series], mend: str) -> None:
    """Refuse recordings of several sizes, as far as these are known."""
    known = [(one.name, one.size) for one in series if one.size is not None]
    for name, size in known[1:]:
        if size != known[0][1]:
            raise ZooError(
                f"{name} has frames of {_size((1, *size))}, {known[0][0]} of "
                f"{_size((1, *known[0][1]))}; expected frames of one size: {mend}"
            )


class Recordings:
    """Reads frames of recordings; those that were read last are kept in memory.

    crop: (top, left, height, width), in cells of the files. pool: average over squares of so
    many cells; a square is missing where more than half of it is. decibels: whether the values
    are such, whose powers are averaged. mend: what to do about frames of two sizes.
    """

    def __init__(
        self,
        series: Sequence[Series],
        crop: tuple[int, int, int, int] | None,
        pool: int,
        decibels: bool,
        mend: str,
    ) -> None:
        self.series, self.crop, self.pool = series, crop, pool
        self.decibels, self.mend = decibels, mend
        self.cache = _Cache(CACHE)
        self._frame_bytes: dict[int, int] = {}
        self._read_bytes = 0
        self._first: tuple[tuple[int, ...], str] | None = None  # shape and name of the first

    def frames(self, number: int, chosen: np.ndarray) -> np.ndarray:
        """The frames `chosen` of recording `number`, float32 (T, C, H, W), in units of the data.

        Raises ZooError where one has another size than the first that was read of all recordings.
        """
        frames = self.stored(number, chosen)
        return frames / np.float32(255) if frames.dtype == np.uint8 else frames

    def stored(self, number: int, chosen: np.ndarray) -> np.ndarray:
        """The same, but pictures that are not pooled as uint8, 0 to 255."""
        series = self.series[number]
        absent = [int(i) for i in chosen if (number, int(i)) not in self.cache]
        fresh = self._read(number, absent, {*map(int, chosen)}) if absent else {}
        taken = []
        for i in map(int, chosen):
            kept = fresh[i] if i in fresh else self.cache.get((number, i))
            if kept is None:  # it fell out of the cache
                kept = self._fit(series, series.read(i, i + 1)[0])
            taken.append(kept)
        for i, frame in zip(chosen, taken, strict=True):
            if self._first is None:
                self._first = frame.shape, series.label(int(i))
            if frame.shape != self._first[0]:
                shape, first = self._first
                raise ZooError(
                    f"{series.label(int(i))}: the frame is {_size(frame.shape)}, that of {first} "
                    f"{_size(shape)}; expected frames of one size: {self.mend}"
                )
        return np.stack(taken)

    def _read(self, number: int, absent: list[int], wanted: set[int]) -> dict[int, np.ndarray]:
        """Read the frames that are absent, and what lies between them, into the cache."""
        series, read = self.series[number], dict[int, np.ndarray]()
        # A recording that is read in one go is kept whole if that is not too much.
        size = self._frame_bytes.get(number, 0) * series.length if series.whole else CACHE
        first, last = (0, series.length) if size < CACHE / 2 else (absent[0], absent[-1] + 1)
        for start in range(first, last, 32):
            stop = min(start + 32, last)
            block = series.read(start, stop)
            self._read_bytes += block.nbytes
            for i in range(start, stop):
                frame = self._fit(series, block[i - start])
                self._frame_bytes[number] = frame.nbytes
                self.cache.put((number, i), frame)
                if i in wanted:
                    read[i] = frame
        if self._read_bytes > CACHE:
            self._read_bytes = 0
            trim()
        return read

    def _fit(self, series: Series, frame: np.ndarray) -> np.ndarray:
        """Crop and pool a frame (C, H, W)."""
        if self.crop:
            top, left, height, width = self.crop
            cropped = frame[:, top : top + height, left : left + width]
            if cropped.shape[1:] != (height, width):
                raise ZooError(
                    f"crop is {list(self.crop)} (top, left, height, width), which reaches beyond "
                    f"the frames of {series.name}, {_size(frame.shape)}; choose a smaller one"
                )
            frame = cropped
        if self.pool > 1:
            k = self.pool
            frame = frame / np.float32(255) if frame.dtype == np.uint8 else frame
            height, width = (side // k * k for side in frame.shape[1:])
            if not height or not width:
                raise ZooError(f"pool is {k}, more than a frame has cells; choose a smaller one")
            cells = rearrange(frame[:, :height, :width], "c (h k) (w l) -> c h w (k l)", k=k, l=k)
            known = ~np.isnan(cells)
            count = known.sum(-1)
            cells = 10 ** (cells / 10) if self.decibels else cells
            mean = np.where(known, cells, 0).sum(-1) / np.maximum(count, 1)
            frame = np.where(2 * count >= k * k, mean, np.nan)
            if self.decibels:
                with np.errstate(divide="ignore"):
                    frame = 10 * np.log10(frame)
        # A copy, so that the whole block that it is a part of need not be kept.
        return np.array(frame, np.uint8 if frame.dtype == np.uint8 else np.float32)


class _Cache:
    """The frames that were read last, up to so many bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self.kept

    def get(self, key: tuple[int, int]) -> np.ndarray | None:
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key: tuple[int, int], frame: np.ndarray) -> None:
        if key not in self.kept:
            self.kept[key] = frame
            self.bytes += frame.nbytes
        while self.bytes > self.limit:
            _, old = self.kept.popitem(last=False)
            self.bytes -= old.nbytes


def check_crop(crop: Sequence[int]) -> tuple[int, int, int, int]:
    """A crop as four numbers; ZooError for anything else."""
    values = [*crop]
    if (
        len(values) != 4
        or not all(isinstance(v, int) and v >= 0 for v in values)
        or not values[2]
        or not values[3]
    ):
        raise ZooError(f"crop is {values}; expected four numbers: top, left, height, width")
    top, left, height, width = values
    return top, left, height, width


def read_prepared(folder: Path) -> tuple[list[Series], dict[str, Any], dict[str, Any]]:
    """The recordings, fields of Data and options that a data set's `prepare` wrote."""
    try:
        facts = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
        array = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
        series, first = [], 0
        for record in facts["series"]:
            length, times = record["length"], record["times"]
            series.append(
                Series(
                    record["name"],
                    length,
                    functools.partial(_slice, array, first),
                    None if times is None else np.array(times, "datetime64[s]"),
                    part=record["part"],
                    stride=record["stride"],
                    breaks=record["breaks"],
                    extremes=None if record["extremes"] is None else np.array(record["extremes"]),
                )
            )
            first += length
        if first != len(array):
            raise ValueError(f"frames.npy has {len(array)} frames, expected {first}")
        return series, facts["found"], facts["options"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(
            f"{folder} is not what zoo data prepare writes ({error}); prepare it again"
        ) from None


def _slice(array: np.ndarray, first: int, start: int, stop: int) -> np.ndarray:
    return np.asarray(array[first + start : first + stop])


def _read_chosen(series: Series, chosen: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Some of the chosen frames, read with what lies between them, at most 32 in one go.

    One by one, the chunks of a store would be unpacked again and again.
    """
    blocks: list[np.ndarray] = []
    while start < stop:
        until = int(np.searchsorted(chosen[:stop], chosen[start] + 32))
        block = series.read(int(chosen[start]), int(chosen[until - 1]) + 1)
        blocks.append(block[chosen[start:until] - chosen[start]])
        if blocks[-1].shape[1:] != blocks[0].shape[1:]:
            raise ZooError(
                f"{series.label(int(chosen[start]))}: the frame is {_size(block.shape[1:])}, those "
                f"before it {_size(blocks[0].shape[1:])}; expected frames of one size"
            )
        start = until
    return np.concatenate(blocks)


def _size(shape: Sequence[int]) -> str:
    """Height and width of (C, H, W) for a message."""
    return "×".join(map(str, shape[1:]))
