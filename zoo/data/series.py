"""Data sets that are cut from recordings: windows, gaps in time, splits, scaling.

A reader says what recordings there are (:class:`Series`); everything else is here, so that it is
the same for a radar, a road and a video.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic_core import to_jsonable_python
from torch import Tensor

from zoo.data.dataset import FrameDataset
from zoo.data.recordings import (
    PREPARED,
    Recordings,
    Series,
    check_crop,
    check_sizes,
    read_prepared,
)
from zoo.data.splits import SPLITS, Split, gaps
from zoo.errors import ZooError
from zoo.units import is_same_unit, to_unit_interval

if TYPE_CHECKING:
    import xarray

__all__ = ["SequenceDataset"]


class SequenceDataset(FrameDataset):
    """Windows of recordings.

    Options of every data set of recordings:

    stride: frames from the start of one window to that of the next, by default 1.
    train_stride: the same for the training part alone, by default `stride`.
    every: take every so many-th frame: 6 makes steps of 30 minutes of those of 5.
    crop: (top, left, height, width), in cells of the files.
    pool: average over squares of so many cells; a square is missing where more than half of it
        is. Of dBZ the reflectivities, 10^(dBZ / 10), are averaged.
    test_from, valid_from: times, such as "2015-01-01", from which on frames are test and valid.
    test_share, valid_share: in place of them, the share of all frames (or of all recordings,
        where these are without times), taken from the end, the test part last. A window lies in
        one part with all its frames, so no frame of the test part is ever seen in training.
    low, high: the values that become 0 and 1; by default of the data set, or the smallest and
        the largest of the training part.
    sequences, seed: if given, so many windows, drawn in shuffled passes over all of them.

    Windows never cross a gap in time. Raises ZooError for files that are absent or broken, for
    times that do not rise, and for a split without a window.
    """

    split_by: ClassVar[Literal["time", "series"]] = "time"
    test_share: ClassVar[float] = 0.2

    #: Options that change no frame: they are told when training, not when preparing.
    later: ClassVar[tuple[str, ...]] = (
        *("stride", "train_stride", "test_from", "valid_from", "test_share", "valid_share"),
        *("low", "high", "sequences", "seed"),
    )

    #: Fields of Data beside those that are found out; low and high only where they are fixed.
    meaning: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        root: Path,
        *,
        split: str = "train",
        frames: int = 20,
        stride: int | None = None,
        train_stride: int | None = None,
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
        whole = {"frames": frames, "every": every, "pool": pool}
        for name, value in (
            whole | _given(stride=stride, train_stride=train_stride, sequences=sequences)
        ).items():
            if not isinstance(value, int) or value < 1:
                raise ZooError(f"{name} is {value!r}; it must be a whole number, 1 or more")
        cells = None if crop is None else check_crop(crop)
        self._made_with = to_jsonable_python(
            {
                **_given(**options),
                **_given(every=None if every == 1 else every, pool=None if pool == 1 else pool),
                **_given(crop=None if cells is None else [*cells]),
            }
        )
        if not self.root.is_dir() and not self.root.is_file():
            raise ZooError(
                f"there is no folder {self.root}: {self._where_to_get()}, or set ZOO_DATA to the "
                "folder that holds it"
            )
        self.pool = pool
        if (self.root / PREPARED).is_file():
            self.series, self.found, made_with = read_prepared(self.root)
            self._check_prepared(made_with)
            self._made_with = made_with
            cells, every, self.pool = None, 1, 1  # it is done already
        else:
            self.series, self.found = self.read_series(**options)
        if not self.series:
            raise ZooError(f"{self.root} holds no recording: {self._where_to_get()}")
        self.options = self._made_with | {
            **_given(stride=stride, train_stride=train_stride, low=low, high=high),
            **_given(test_from=test_from, valid_from=valid_from),
            **_given(test_share=test_share, valid_share=valid_share or None),
        }
        self._thin(every)
        meaning = {**self.meaning, **self.found}
        mend = "keep those of another in a folder apart"
        if "size" in inspect.signature(self.read_series).parameters:
            mend = "resize all by the option size"
        if cells is None:
            check_sizes(self.series, mend)
        decibels = is_same_unit(str(meaning.get("unit", "1")), "dBZ")
        self._recordings = Recordings(self.series, cells, self.pool, decibels, mend)
        if test_from is None and test_share is None:
            test_from = self._usual_test_from()
        where = Split(
            self.split_by,
            test_from,
            valid_from,
            self.test_share if test_share is None else test_share,
            valid_share,
        )
        self.runs = where.cut(self.series, self.time_step)
        self.windows = self._cut_windows(split)
        if not self.windows:
            longest = max((len(run.frames) for run in self.runs[split]), default=0)
            raise ZooError(
                f"the {split} part of {self.root} has no window of {frames} frames: its longest "
                f"run without a gap has {longest}; ask for fewer frames or choose the parts by "
                "test_from or test_share"
            )
        self._linear = low is not None or high is not None
        self._shape = self._recordings.frames(*self.windows[0]).shape[1:]  # (C, H, W)
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
        """One sequence, (T, C, H, W), `low` to `high` as 0 to 1; IndexError past the end."""
        index = range(len(self))[index]
        if self.sequences is not None:
            passes, place = divmod(index, len(self.windows))
            index = int(self._order(passes)[place])
        frames = torch.from_numpy(self._recordings.frames(*self.windows[index]))
        return to_unit_interval(frames, self._data)

    def when(self, index: int) -> np.ndarray | None:
        """The times of a sequence, (T,) of datetime64, where they are known."""
        number, chosen = self.windows[index]
        times = self.series[number].times
        return None if times is None else times[chosen]

    def labelled(self, index: int) -> xarray.DataArray:
        """A sequence in units of the data, with its times where they are known.

        Its dimensions are time, channel where there are several, y and x.
        """
        return self._label(*self.windows[index])

    def _label(self, number: int, chosen: np.ndarray) -> xarray.DataArray:
        """Frames of a recording with their times."""
        import xarray

        record, times = self._data, self.series[number].times
        frames = self._recordings.frames(number, chosen)
        dims = ["time", "channel", "y", "x"]
        if frames.shape[1] == 1:
            frames = frames[:, 0]  # (T, 1, H, W) to (T, H, W)
            dims.remove("channel")
        coords = {} if times is None else {"time": times[chosen].astype("datetime64[ns]")}
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
            count = sum(gaps(series, self.time_step).sum() for series in self.series)
            facts["gaps in time"] = f"{count:,}"
        for split in SPLITS:
            windows = self._cut_windows(split)
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
                frames = self._recordings.frames(number, np.arange(start, stop))
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

        The folder is then opened by the same name: ``folder`` among the options. It records what
        changed the frames alone, so that it is split and scaled as its source would be.
        """
        total, done = sum(series.length for series in self.series), 0
        dtype = self._recordings.stored(*self.windows[0]).dtype
        array = np.lib.format.open_memmap(output / "frames.npy", "w+", dtype, (total, *self._shape))
        for number, series in enumerate(self.series):
            for start in range(0, series.length, 16):
                chosen = np.arange(start, min(start + 16, series.length))
                array[done : done + len(chosen)] = self._recordings.stored(number, chosen)
                done += len(chosen)
                yield done, total
        array.flush()
        records = [
            {
                "name": series.name,
                "length": series.length,
                "times": None if series.times is None else [str(t) for t in series.times],
                "part": series.part,
                "stride": series.stride,
                "breaks": [*map(int, series.breaks)],
                "extremes": None if series.extremes is None else series.extremes.tolist(),
            }
            for series in self.series
        ]
        found = {**self.found, "time_step": self.time_step}
        if found.get("grid_step"):
            found["grid_step"] = found["grid_step"] * self.pool
        facts = {"series": records, "found": found, "options": self._made_with}
        (output / PREPARED).write_text(json.dumps(facts) + "\n", encoding="utf-8")

    def newest(self, frames: int, every: int = 1) -> xarray.DataArray:
        """The newest frames, every so many-th counted back from the last, as `labelled` has them.

        Raises ZooError where too few follow one another without a gap.
        """
        held = [(number, series) for number, series in enumerate(self.series) if series.length]
        timed = [(s.times[-1], number) for number, s in held if s.times is not None]
        number = max(timed)[1] if timed else held[-1][0]
        series = self.series[number]
        ends = np.flatnonzero(gaps(series, self.time_step)) + 1
        run = np.split(np.arange(series.length), ends)[-1]
        needed = (frames - 1) * every + 1
        if len(run) < needed:
            first, last = series.label(int(run[0])), series.label(int(run[-1]))
            spaced = f" ({frames}, {every} apart)" if every > 1 else ""
            raise ZooError(
                f"only the newest {len(run)} frames of {self.root} follow one another without a "
                f"gap: {first} to {last}{self._gap_before(series, int(run[0]))}; {needed} are "
                f"needed{spaced}: add what is absent or ask for fewer input frames"
            )
        return self._label(number, run[-needed::every])

    def _gap_before(self, series: Series, index: int) -> str:
        """What is known of the times around a gap, for a message."""
        if series.times is None:
            return ""
        told = f" ({series.times[index]} to {series.times[-1]})"
        return told if not index else f"{told}, and the one before is of {series.times[index - 1]}"

    def _where_to_get(self) -> str:
        place = f" (from {self.source})" if self.source else ""
        return f"put {self.layout or 'the files of the data set'}{place} there"

    def _check_prepared(self, made_with: dict[str, Any]) -> None:
        """Refuse options that prepared frames were not made with."""
        for name, value in self._made_with.items():
            if value != made_with.get(name):
                raise ZooError(
                    f"{self.root} was prepared with {name} = {made_with.get(name)!r}, not "
                    f"{value!r}; leave the option out or prepare it anew"
                )

    def _usual_test_from(self) -> str | None:
        """Where the test part begins if nobody tells, in place of the share `test_share`."""
        return None

    def _thin(self, every: int) -> None:
        """Find the step of time; take every so many-th frame of each run without a gap."""
        step = self._find_step()
        self.time_step = step and step * every
        if every == 1:
            return
        thinned = []
        for series in self.series:
            ends = np.flatnonzero(gaps(series, step)) + 1
            runs = [run[::every] for run in np.split(np.arange(series.length), ends)]
            breaks = np.cumsum([len(run) for run in runs])[:-1].tolist()
            thinned.append(series.thinned(np.concatenate(runs), every, breaks))
        self.series = thinned

    def _find_step(self) -> float | None:
        """Seconds between frames: the most frequent difference, or what the data set says."""
        for series in self.series:
            series.check_times()
        if known := {**self.meaning, **self.found}.get("time_step"):
            return float(known)
        steps = [np.diff(s.times) for s in self.series if s.times is not None and s.length > 1]
        if not steps:
            return None
        different, counts = np.unique(np.concatenate(steps), return_counts=True)
        return float(different[np.argmax(counts)] / np.timedelta64(1, "s"))

    def _cut_windows(self, split: str) -> list[tuple[int, np.ndarray]]:
        """(series, indices of frames) of every window of a split."""
        stride = self.options.get("stride")
        if split == "train":
            stride = self.options.get("train_stride", stride)
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
            series = self.series[run.series]
            for start in range(0, len(run.frames), 16):
                part = run.frames[start : start + 16]
                values = series.extremes
                values = (
                    self._recordings.frames(run.series, part) if values is None else values[part]
                )
                if np.isinf(values).any():
                    which = int(part[np.argmax(np.isinf(values).reshape(len(part), -1).any(1))])
                    raise ZooError(
                        f"{series.label(which)} holds infinite values, which no scale can have; "
                        "make them NaN, or take the frame away"
                    )
                if not np.isnan(values).all():
                    low, high = min(low, np.nanmin(values)), max(high, np.nanmax(values))
        if not np.isfinite(low):
            raise ZooError(
                f"the training part of {self.root} has no frames to find low and high from; "
                "give them as options"
            )
        return float(low), float(high)

    def _order(self, passes: int) -> np.ndarray:
        return np.random.default_rng([self.seed, passes]).permutation(len(self.windows))


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
