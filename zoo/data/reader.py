"""Frames of recordings: cached, cropped and pooled."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from einops import rearrange

from zoo.data.cache import ArrayCache
from zoo.data.files import check_numbers
from zoo.data.recordings import BLOCK, Series, format_size
from zoo.errors import ConfigError, DataError
from zoo.inputs import VALUE_BYTES, check_values, decoding
from zoo.memory import trim

__all__ = ["FrameReader", "check_crop"]

CHUNK = 16  # frames
CACHE = 128 * 2**20  # bytes of frames kept in memory


class FrameReader:
    """Reads frames of recordings and caches the most recent ones.

    Args:
        series: The recordings.
        crop: (top, left, height, width), in cells of the files.
        pool: Side of the squares of cells that are averaged; a square is missing if more than
            half of it is.
        decibels: Whether the values are decibels, whose powers are averaged.
        fix: How to fix frames of different sizes, for messages.
    """

    def __init__(
        self,
        series: Sequence[Series],
        crop: tuple[int, int, int, int] | None,
        pool: int,
        decibels: bool,
        fix: str,
    ) -> None:
        self.series, self.crop, self.pool = series, crop, pool
        self.decibels, self.fix = decibels, fix
        self.cache = ArrayCache(CACHE)
        self._frame_bytes: dict[int, int] = {}
        self._lengths: dict[int, int] = {}  # of blocks of frames that are read at once
        self._read_bytes = 0
        self._first: tuple[tuple[int, ...], str] | None = None  # shape and name

    def read(self, number: int, chosen: np.ndarray) -> np.ndarray:
        """Return frames of a recording as float32 (T, C, H, W), in the unit of the data.

        Args:
            number: Index of the recording.
            chosen: Indices of its frames.

        Raises:
            DataError: If a frame differs in size from the first one read of all recordings.
        """
        frames = self.read_stored(number, chosen)
        return frames / np.float32(255) if frames.dtype == np.uint8 else frames

    def read_stored(self, number: int, chosen: np.ndarray) -> np.ndarray:
        """Return frames as :meth:`read` does, but pictures without pooling as uint8."""
        series = self.series[number]
        absent = [int(i) for i in chosen if (number, int(i)) not in self.cache]
        fresh = self._fill_cache(number, absent, {*map(int, chosen)}) if absent else {}
        frames = []
        for i in map(int, chosen):
            make = functools.partial(self._read_one, number, i)  # if it was dropped meanwhile
            frame = fresh[i] if i in fresh else self.cache.get((number, i), make)
            self._check_shape(series, i, frame)
            frames.append(frame)
        return np.stack(frames)

    def scan(self) -> Iterator[tuple[int, float]]:
        """Read every frame of every recording.

        Yields:
            Numbers of frames read, and the sum of their shares of missing values.

        Raises:
            DataError: If a frame has no values.
        """
        for number, series in enumerate(self.series):
            for start in range(0, series.length, CHUNK):
                chosen = np.arange(start, min(start + CHUNK, series.length))
                absent = np.isnan(self.read(number, chosen)).mean((1, 2, 3))  # (T, C, H, W) to (T,)
                if (absent == 1).any():
                    raise DataError(
                        f"{series.label(start + int(np.argmax(absent == 1)))}: all values are "
                        "missing; remove the frame, which leaves a gap"
                    )
                yield len(chosen), float(absent.sum())

    def _check_shape(self, series: Series, index: int, frame: np.ndarray) -> None:
        if self._first is None:
            self._first = frame.shape, series.label(index)
        shape, first = self._first
        if frame.shape != shape:
            raise DataError(
                f"{series.label(index)}: the frame is {format_size(frame.shape)}, that of {first} "
                f"is {format_size(shape)}; expected frames of one size: {self.fix}"
            )

    def _fill_cache(
        self, number: int, absent: list[int], wanted: set[int]
    ) -> dict[int, np.ndarray]:
        """Cache the absent frames and those between them; return the wanted ones."""
        series, frames = self.series[number], dict[int, np.ndarray]()
        # Cache a recording that is best read at once as a whole, if it fits.
        size = self._frame_bytes.get(number, 0) * series.length if series.whole else CACHE
        first, last = (0, series.length) if size < CACHE / 2 else (absent[0], absent[-1] + 1)
        step = self._block_length(number)
        for start in range(first, last, step):
            stop = min(start + step, last)
            block = _read(series, start, stop)
            self._read_bytes += block.nbytes
            for i in range(start, stop):
                frame = self._crop_and_pool(series, block[i - start])
                check_values(series.name, len(wanted), frame.size)
                self._frame_bytes[number] = frame.nbytes
                self.cache.put((number, i), frame)
                if i in wanted:
                    frames[i] = frame
        if self._read_bytes > CACHE:
            self._read_bytes = 0
            trim()
        return frames

    def _block_length(self, number: int) -> int:
        """Return the number of frames of a recording to read at once."""
        series = self.series[number]
        if number not in self._lengths:
            # Of a video, which is best read once, the size is known.
            known = series.whole and series.size
            values = math.prod(series.size or ()) if known else _read(series, 0, 1).size
            self._lengths[number] = max(1, min(BLOCK, CACHE // (VALUE_BYTES * max(1, values))))
        return self._lengths[number]

    def _read_one(self, number: int, index: int) -> np.ndarray:
        """Return a frame (C, H, W), cropped and pooled."""
        series = self.series[number]
        return self._crop_and_pool(series, _read(series, index, index + 1)[0])

    def _crop_and_pool(self, series: Series, frame: np.ndarray) -> np.ndarray:
        """Crop and pool a frame (C, H, W)."""
        if self.crop:
            frame = _crop(frame, self.crop, series.name)
        if self.pool > 1:
            frame = _pool(frame, self.pool, self.decibels)
        # A copy does not keep the whole block in memory.
        return np.array(frame, np.uint8 if frame.dtype == np.uint8 else np.float32)


def _read(series: Series, start: int, stop: int) -> np.ndarray:
    """Read frames (T, C, H, W) of a recording."""
    with decoding(series.label(start), "is it complete?"):
        frames = series.read(start, stop)
    if frames.ndim != 4 or frames.shape[0] != stop - start or 0 in frames.shape:
        raise DataError(
            f"{series.label(start)}: the frames have shape {frames.shape}; expected {stop - start} "
            "frames (T, C, H, W) with at least one value"
        )
    check_numbers(series.label(start), frames.dtype)
    return frames


def _crop(frame: np.ndarray, crop: tuple[int, int, int, int], name: str) -> np.ndarray:
    top, left, height, width = crop
    cropped = frame[:, top : top + height, left : left + width]
    if cropped.shape[1:] != (height, width):
        raise ConfigError(
            f"crop is {list(crop)} (top, left, height, width), which exceeds the frames of "
            f"{name}, {format_size(frame.shape)}; choose a smaller one"
        )
    return cropped


def _pool(frame: np.ndarray, k: int, decibels: bool) -> np.ndarray:
    """Average a frame (C, H, W) over squares of k × k cells; an incomplete edge is cut off."""
    frame = frame / np.float32(255) if frame.dtype == np.uint8 else frame
    height, width = (side // k * k for side in frame.shape[1:])
    if not height or not width:
        raise ConfigError(
            f"pool is {k}, but the frames are {format_size(frame.shape)}; choose a smaller one"
        )
    cells = rearrange(frame[:, :height, :width], "c (h k) (w l) -> c h w (k l)", k=k, l=k)
    known = ~np.isnan(cells)
    count = known.sum(-1)
    cells = 10 ** (cells / 10) if decibels else cells
    mean = np.where(known, cells, 0).sum(-1) / np.maximum(count, 1)
    pooled = np.where(2 * count >= k * k, mean, np.nan)
    if decibels:
        with np.errstate(divide="ignore"):
            pooled = 10 * np.log10(pooled)
    return pooled


def check_crop(crop: Sequence[int]) -> tuple[int, int, int, int]:
    """Return a crop as four numbers; raise ConfigError for anything else."""
    values = [*crop]
    valid = len(values) == 4 and all(isinstance(v, int) and v >= 0 for v in values)
    if not valid or not values[2] or not values[3]:
        raise ConfigError(f"crop is {values}; expected four numbers: top, left, height, width")
    top, left, height, width = values
    return top, left, height, width
