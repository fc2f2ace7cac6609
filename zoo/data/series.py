"""Data sets that are cut from recordings: windows, gaps in time, splits, scaling.

A reader says what recordings there are (:class:`Series`); everything else is here, so that it is
the same for a radar, a road and a video.
"""

from __future__ import annotations

import functools
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from zoo.data.dataset import FrameDataset
from zoo.errors import ZooError
from zoo.memory import trim
from zoo.units import to_unit_interval

if TYPE_CHECKING:
    import xarray

__all__ = ["SPLITS", "SequenceDataset", "Series"]

SPLITS = ("train", "valid", "test")
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
    """

    name: str
    length: int
    read: Callable[[int, int], np.ndarray]
    times: np.ndarray | None = None
    labels: Sequence[str] | None = None
    part: str | None = None
    whole: bool = False
    stride: int | None = None

    def label(self, index: int) -> str:
        """The name of a frame for a message."""
        return self.labels[index] if self.labels else f"{self.name}, frame {index}"


@dataclass
class _Run:
    """Frames of a series that follow one another without a gap, all in one split."""

    series: int
    frames: np.ndarray  # indices in the series


@dataclass
class Split:
    """How a data set is split: by time or by series.

    test_from, valid_from: times, such as "2015-01-01", from which on frames are test and
        valid. test_share, valid_share: in place of them, the share of all frames (by time) or of
        all series, taken from the end: the test part last, the valid part before it.
    """

    by: Literal["time", "series"]
    test_from: str | None = None
    valid_from: str | None = None
    test_share: float = 0.2
    valid_share: float = 0.0


class SequenceDataset(FrameDataset):
    """Windows of recordings.

    Options of every such data set:

    stride: frames from the start of one window to that of the next, by default 1.
    every: take every so many-th frame: 6 makes steps of 30 minutes of those of 5.
    crop: (top, left, height, width), in cells of the files.
    pool: average over squares of so many cells; a square is missing where more than half of it
        is.
    test_from, valid_from, test_share, valid_share: where the parts begin, see
        :class:`Split`. A window lies in one part with all its frames, so no frame of the test
        part is ever seen in training.
    low, high: the values that become 0 and 1; by default of the data set, or the smallest and
        the largest of the training part.
    sequences, seed: if given, so many windows, drawn in shuffled passes over all of them.

    Windows never cross a gap in time. Raises ZooError for files that are absent or broken, for
    times that do not rise, and for a split without a window.
    """

    split_by: ClassVar[Literal["time", "series"]] = "time"
    test_share: ClassVar[float] = 0.2

    #: Fields of Data beside those that are found out; low and high only where they are fixed.
    meaning: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        root: Path,
        *,
        split: str = "train",
        frames: int = 20,
        stride: int | None = None,
        every: int = 1,
        crop: Sequence[int] | None = None,
        pool: int = 1,
        test_from: str | None = None,
        valid_from: str | None = None,
        test_share: float | None = None,
        valid_share: float = 0.0,
        low: float | None = None,
        high: float | None = None,
        sequences: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.root, self.split, self.frames = Path(root), split, frames
        if split not in SPLITS:
            raise ZooError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
        for name, value in (("frames", frames), ("every", every), ("pool", pool), ("stride", 1)):
            if not isinstance(value, int) or value < 1:
                raise ZooError(f"{name} is {value!r}; it must be a whole number, 1 or more")
        self.options = {
            **{k: v for k, v in options.items() if v is not None},
            **_given(stride=stride, test_from=test_from, valid_from=valid_from, low=low, high=high),
            **_given(every=None if every == 1 else every, pool=None if pool == 1 else pool),
            **_given(crop=None if crop is None else [*crop], test_share=test_share),
            **_given(valid_share=valid_share or None),
        }
        self.every, self.pool = every, pool
        self.crop = None if crop is None else _check_crop(crop)
        self.where = Split(
            self.split_by,
            test_from,
            valid_from,
            self.test_share if test_share is None else test_share,
            valid_share,
        )
        if not 0 <= self.where.test_share + valid_share <= 1:
            raise ZooError(
                f"test_share is {self.where.test_share}, valid_share {valid_share}; their sum must "
                "be from 0 to 1"
            )
        if not self.root.is_dir() and not self.root.is_file():
            raise ZooError(
                f"there is no folder {self.root}: {self._where_to_get()}, or set ZOO_DATA to the "
                "folder that holds it"
            )
        self._prepared = (self.root / PREPARED).is_file()
        if self._prepared:
            self.series, self.found, made_with = _read_prepared(self.root)
            fixed = {**options, **_given(crop=self.options.get("crop"))}
            fixed |= {k: v for k, v in (("every", every), ("pool", pool)) if v != 1}
            for name, value in fixed.items():
                if value is not None and value != made_with.get(name):
                    raise ZooError(
                        f"{self.root} was prepared with {name} = {made_with.get(name)!r}, not "
                        f"{value!r}; leave the option out or prepare it anew"
                    )
            self.options = made_with | self.options
            self.every = self.pool = 1  # it is done already
        else:
            self.series, self.found = self.read_series(**options)
        if not self.series:
            raise ZooError(f"{self.root} holds no recording: {self._where_to_get()}")
        self._cache, self._frame_bytes, self._read_bytes = _Cache(CACHE), dict[int, int](), 0
        self.time_step = self._find_step()
        self.runs = self._cut_runs()
        self.windows = self._cut_windows(stride, split)
        if not self.windows:
            longest = max((len(run.frames) for run in self.runs[split]), default=0)
            raise ZooError(
                f"the {split} part of {self.root} has no window of {frames} frames: its longest "
                f"run without a gap has {longest}; ask for fewer frames or choose the parts by "
                "test_from or test_share"
            )
        self._linear = low is not None or high is not None
        self._shape = self._frames(*self.windows[0]).shape[1:]  # (C, H, W)
        self._low, self._high = self._find_range(low, high)
        self.sequences, self.seed = sequences, seed
        self._data = self.record

    def read_series(self, *_: Any, **options: Any) -> tuple[list[Series], dict[str, Any]]:
        """The recordings in the folder `self.root`, and fields of Data that the files tell.

        Subclasses write this. Options of theirs arrive as keywords.
        """
        raise NotImplementedError

    @property
    def data(self) -> dict[str, Any]:
        """Variable, unit, scaling, grid and time step, size, options."""
        meaning = {**self.meaning, **self.found}
        if meaning.get("grid_step"):
            meaning["grid_step"] = meaning["grid_step"] * self.pool
        if self._linear or "reflectivity" not in meaning:
            meaning.pop("reflectivity", None)
            meaning |= {"low": self._low, "high": self._high}
        return {
            **meaning,
            "time_step": self.time_step,
            "size": tuple(self._shape[1:]),
            "options": self.options,
        }

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.windows) if self.sequences is None else self.sequences

    def __getitem__(self, index: int) -> Tensor:
        """One sequence, (T, C, H, W) in [0, 1]; raises IndexError past the end."""
        index = range(len(self))[index]
        if self.sequences is not None:
            passes, place = divmod(index, len(self.windows))
            index = int(self._order(passes)[place])
        return to_unit_interval(torch.from_numpy(self._frames(*self.windows[index])), self._data)

    def when(self, index: int) -> np.ndarray | None:
        """The times of a sequence, (T,) of datetime64, where they are known."""
        number, chosen = self.windows[index]
        times = self.series[number].times
        return None if times is None else times[chosen]

    def labelled(self, index: int) -> xarray.DataArray:
        """A sequence in units of the data, with its times where they are known.

        Its dimensions are time, channel where there are several, y and x.
        """
        import xarray

        number, chosen = self.windows[index]
        frames, record, times = self._frames(number, chosen), self._data, self.when(index)
        dims = ["time", "channel", "y", "x"]
        if frames.shape[1] == 1:
            frames = frames[:, 0]  # (T, 1, H, W) to (T, H, W)
            dims.remove("channel")
        coords = {} if times is None else {"time": times.astype("datetime64[ns]")}
        return xarray.DataArray(frames, coords, dims, record.variable, {"units": record.unit})

    def describe(self) -> dict[str, str]:
        """What was found, for people."""
        channels, height, width = self._shape
        record = self._data
        all_times = [s.times for s in self.series if s.times is not None and len(s.times)]
        facts = {
            "recordings": f"{len(self.series):,}",
            "frames": f"{sum(s.length for s in self.series):,}",
            "frame": f"{channels} × {height} × {width} (C × H × W)",
            "values": f"{record.variable} in {record.unit!r}, "
            f"{record.limits[0]:g} to {record.limits[1]:g} is 0 to 1",
        }
        if record.grid_step:
            facts["grid step"] = f"{record.grid_step:g} m"
        if self.time_step:
            facts["time step"] = f"{self.time_step:g} s"
        if all_times:
            first, last = min(t.min() for t in all_times), max(t.max() for t in all_times)
            facts["times"] = f"{first} to {last} UTC"
            facts["gaps in time"] = f"{self.gaps:,}"
        for split in SPLITS:
            windows = self._cut_windows(self.options.get("stride"), split)
            seen = sum(len(run.frames) for run in self.runs[split])
            facts[split] = f"{seen:,} frames, {len(windows):,} sequences of {self.frames}"
        return facts

    def scan(self) -> Iterator[tuple[int, int]]:
        """Read every frame of every recording; note what is missing."""
        total, done = sum(s.length for s in self.series), 0
        self.missing = 0.0
        for number, series in enumerate(self.series):
            for start in range(0, series.length, 16):
                stop = min(start + 16, series.length)
                frames = self._frames(number, np.arange(start, stop))
                absent = np.isnan(frames).mean(axis=(1, 2, 3))  # (T, C, H, W) to (T,)
                if (absent == 1).any():
                    which = series.label(start + int(np.argmax(absent == 1)))
                    raise ZooError(
                        f"{which}: all values are missing; take it away, so that its time becomes "
                        "a gap"
                    )
                self.missing += float(absent.sum()) / total
                done += stop - start
                yield done, total

    def prepare(self, output: Path) -> Iterator[tuple[int, int]]:
        """Write all frames, cropped, pooled and thinned, as one array that is read in place.

        The folder is then opened by the same name: ``folder`` among the options.
        """
        total, done = sum(len(range(0, s.length, self.every)) for s in self.series), 0
        pictures = self._data.is_picture
        dtype = np.uint8 if pictures else np.float32
        array = np.lib.format.open_memmap(output / "frames.npy", "w+", dtype, (total, *self._shape))
        records = []
        for number, series in enumerate(self.series):
            chosen = np.arange(0, series.length, self.every)
            for start in range(0, len(chosen), 16):
                part = self._frames(number, chosen[start : start + 16])
                values = np.rint(part * 255) if pictures else part
                array[done : done + len(part)] = values.astype(dtype)
                done += len(part)
                yield done, total
            times = None if series.times is None else [str(t) for t in series.times[chosen]]
            stride = series.stride
            records.append(
                {"name": series.name, "length": len(chosen), "times": times}
                | _given(part=series.part, stride=stride and max(1, stride // self.every))
            )
        array.flush()
        found = {**self.found, "time_step": self.time_step}
        if found.get("grid_step"):
            found["grid_step"] = found["grid_step"] * self.pool
        facts = {"series": records, "found": found, "options": self.options}
        (output / PREPARED).write_text(json.dumps(facts) + "\n", encoding="utf-8")

    def _where_to_get(self) -> str:
        place = f" (from {self.source})" if self.source else ""
        return f"put {self.layout or 'the files of the data set'}{place} there"

    def _find_step(self) -> float | None:
        """Seconds between frames: the smallest difference, or what the data set says."""
        for series in self.series:
            _check_times(series)
        smallest = [
            np.diff(s.times).min() / np.timedelta64(1, "s")
            for s in self.series
            if s.times is not None and s.length > 1
        ]
        known = {**self.meaning, **self.found}.get("time_step")
        step = float(known or (min(smallest) if smallest else 0)) or None
        return step and step * self.every

    def _cut_runs(self) -> dict[str, list[_Run]]:
        """The frames of every split in runs without a gap, thinned to every so many-th."""
        starts = self._starts()
        step = None if self.time_step is None else self.time_step / self.every
        runs: dict[str, list[_Run]] = {split: [] for split in SPLITS}
        self.gaps = 0
        for number, series in enumerate(self.series):
            position = self._positions[number]
            if series.part:
                part = np.full(series.length, SPLITS.index(series.part))
            else:
                part = (position >= starts[0]).astype(int) + (position >= starts[1])
            cuts = part[1:] != part[:-1]
            if series.times is not None and step is not None:
                apart = np.diff(series.times) / np.timedelta64(1, "s")
                gaps = np.abs(apart - step) > 0.01 * step
                self.gaps += int(gaps.sum())
                cuts = cuts | gaps
            for piece in np.split(np.arange(series.length), np.flatnonzero(cuts) + 1):
                if len(piece):
                    runs[SPLITS[part[piece[0]]]].append(_Run(number, piece[:: self.every]))
        return runs

    def _starts(self) -> tuple[Any, Any]:
        """Where valid and test begin, on the scale of `self._positions`: times or numbers."""
        free = [s for s in self.series if not s.part]
        timed = self.where.by == "time" and all(s.times is not None for s in free)
        given = (self.where.valid_from, self.where.test_from)
        if not timed and any(given):
            raise ZooError(
                f"test_from and valid_from need frames with times, and a split by time; "
                f"{type(self).__name__} has none here: use test_share and valid_share"
            )
        by_series = self.where.by == "series"
        self._positions: list[np.ndarray] = []
        first = 0
        for number, series in enumerate(self.series):
            if timed and series.times is not None:
                self._positions.append(series.times)
            elif by_series:
                self._positions.append(np.full(series.length, number))
            else:
                self._positions.append(np.arange(first, first + series.length))
            first += series.length
        parts = [p for s, p in zip(self.series, self._positions, strict=True) if not s.part]
        scale = np.unique(np.concatenate(parts)) if parts else np.arange(1)
        after = scale[-1] + (scale[-1] - scale[0]) + (np.timedelta64(1, "s") if timed else 1)
        count = len(scale)

        def begin(text: str | None, share: float) -> Any:
            if text:
                try:
                    return np.datetime64(text, "s")
                except ValueError:
                    raise ZooError(f"{text!r} is no time; write it as 2015-01-31T12:00") from None
            place = count - round(share * count)
            # A test part that is asked for has at least one series.
            if share > 0 and by_series and place == count and count > 1:
                place = count - 1
            return scale[place] if place < count else after

        test = begin(given[1], self.where.test_share)
        whole = self.where.test_share + self.where.valid_share
        valid = begin(given[0], whole) if given[0] or self.where.valid_share else test
        if valid > test:
            raise ZooError(
                f"valid begins at {valid}, after test at {test}; put valid_from before test_from"
            )
        return valid, test

    def _cut_windows(self, stride: int | None, split: str) -> list[tuple[int, np.ndarray]]:
        """(series, indices of frames) of every window of a split."""
        return [
            (run.series, run.frames[start : start + self.frames])
            for run in self.runs[split]
            for start in range(
                0,
                len(run.frames) - self.frames + 1,
                stride or self.series[run.series].stride or 1,
            )
        ]

    def _find_range(self, low: float | None, high: float | None) -> tuple[float, float]:
        """The values that become 0 and 1: given, of the data set, or of the training part."""
        meaning = {**self.meaning, **self.found}
        low = meaning.get("low") if low is None else low
        high = meaning.get("high") if high is None else high
        if "reflectivity" in meaning and not self._linear:
            return 0.0, 1.0
        if low is None or high is None:
            smallest, largest = self._extremes()
            low, high = smallest if low is None else low, largest if high is None else high
        if not low < high:
            raise ZooError(
                f"low is {low:g}, high {high:g}: the training part of {self.root} has one value, "
                "or these options are the wrong way round; give low and high"
            )
        return float(low), float(high)

    def _extremes(self) -> tuple[float, float]:
        """The smallest and the largest value of the training part."""
        low, high = np.inf, -np.inf
        for run in self.runs["train"]:
            for start in range(0, len(run.frames), 16):
                frames = self._frames(run.series, run.frames[start : start + 16])
                if not np.isnan(frames).all():
                    low, high = min(low, np.nanmin(frames)), max(high, np.nanmax(frames))
        if not np.isfinite(low):
            raise ZooError(
                f"the training part of {self.root} has no frames to find low and high from; "
                "give them as options"
            )
        return float(low), float(high)

    def _order(self, passes: int) -> np.ndarray:
        return np.random.default_rng([self.seed, passes]).permutation(len(self.windows))

    def _frames(self, number: int, chosen: np.ndarray) -> np.ndarray:
        """Frames of a series, cropped and pooled, from the cache where they are there."""
        series = self.series[number]
        absent = [int(i) for i in chosen if (number, int(i)) not in self._cache]
        fresh: dict[int, np.ndarray] = {}
        if absent:
            # A recording that is read in one go is kept whole if that is not too much.
            one = self._frame_bytes.get(number, 0) * series.length if series.whole else CACHE
            first, last = (0, series.length) if one < CACHE / 2 else (absent[0], absent[-1] + 1)
            for start in range(first, last, 32):
                stop = min(start + 32, last)
                wanted = range(start, stop) if series.whole else range(start, stop, self.every)
                block = series.read(start, stop)
                self._read_bytes += block.nbytes
                for i in wanted:
                    frame = self._fit(block[i - start])
                    self._frame_bytes[number] = frame.nbytes
                    self._cache.put((number, i), frame)
                    if i in chosen:
                        fresh[i] = frame
            if self._read_bytes > CACHE:
                self._read_bytes = 0
                trim()
        taken = []
        for i in map(int, chosen):
            kept = fresh[i] if i in fresh else self._cache.get((number, i))
            if kept is None:  # it fell out of the cache, or is none of every so many
                kept = self._fit(series.read(i, i + 1)[0])
            taken.append(kept)
        first_shape = taken[0].shape
        for i, frame in zip(chosen, taken, strict=True):
            if frame.shape != first_shape:
                raise ZooError(
                    f"{series.label(int(i))}: the frame is {_size(frame)}, others are "
                    f"{'×'.join(map(str, first_shape[1:]))}; expected frames of one size"
                )
        frames = np.stack(taken)
        return frames / np.float32(255) if frames.dtype == np.uint8 else frames

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        """Crop and pool a frame (C, H, W); a prepared one is so already."""
        if self._prepared:
            return np.array(frame)
        if self.crop:
            top, left, height, width = self.crop
            frame = frame[:, top : top + height, left : left + width]
            if frame.shape[1:] != (height, width):
                raise ZooError(
                    f"crop is {list(self.crop)} (top, left, height, width), which reaches beyond "
                    f"the frames of {self.root}; choose a smaller one"
                )
        if self.pool > 1:
            k = self.pool
            frame = frame / np.float32(255) if frame.dtype == np.uint8 else frame
            height, width = (side // k * k for side in frame.shape[1:])
            if not height or not width:
                raise ZooError(f"pool is {k}, more than a frame has cells; choose a smaller one")
            cells = rearrange(frame[:, :height, :width], "c (h k) (w l) -> c h w (k l)", k=k, l=k)
            known = ~np.isnan(cells)
            count = known.sum(-1)
            mean = np.where(known, cells, 0).sum(-1) / np.maximum(count, 1)
            frame = np.where(2 * count >= k * k, mean, np.nan)
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


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """Sort key by which number 10 comes after number 9."""
    name = str(path)
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _size(frame: np.ndarray) -> str:
    return "×".join(map(str, frame.shape[1:]))


def _check_crop(crop: Sequence[int]) -> tuple[int, int, int, int]:
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


def _check_times(series: Series) -> None:
    """Refuse times that repeat or go back."""
    if series.times is None or not series.length:
        return
    if np.isnat(series.times).any():
        i = int(np.argmax(np.isnat(series.times)))
        raise ZooError(f"{series.label(i)} has no time (NaT); give all frames times, or none")
    wrong = np.flatnonzero(np.diff(series.times) <= np.timedelta64(0, "s"))
    if len(wrong):
        i = int(wrong[0])
        what = "repeats" if series.times[i] == series.times[i + 1] else "comes after"
        raise ZooError(
            f"{series.label(i + 1)}: its time, {series.times[i + 1]}, {what} that of the frame "
            f"before it, {series.label(i)} ({series.times[i]}); expected rising times: take one "
            "away or sort them"
        )


def _read_prepared(folder: Path) -> tuple[list[Series], dict[str, Any], dict[str, Any]]:
    """What :meth:`SequenceDataset.prepare` wrote."""
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
                    part=record.get("part"),
                    stride=record.get("stride"),
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
