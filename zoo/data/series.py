"""Data sets that are cut from recordings: windows, gaps in time, splits, scaling.

A subclass only reads the recordings (:class:`zoo.data.recordings.Series`).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic_core import to_jsonable_python
from torch import Tensor

from zoo.config import Data
from zoo.data.dataset import FrameDataset, data_of
from zoo.data.prepared import is_prepared, read_prepared, write_prepared
from zoo.data.reader import FrameReader, check_crop
from zoo.data.recordings import Series, check_sizes, describe_recordings
from zoo.data.scaling import find_range
from zoo.data.splits import SPLITS, Split
from zoo.data.windows import Window, cut_windows, find_step, newest_window
from zoo.errors import ConfigError, DataError, NoWindowError
from zoo.inputs import check_frames, decoding
from zoo.labeled import label_frames
from zoo.units import duration, is_same_unit, to_unit_interval

if TYPE_CHECKING:
    import xarray

__all__ = ["SequenceDataset"]

#: Options that change the frames themselves. `zoo data prepare` takes no others.
FRAME_OPTIONS = ("every", "crop", "pool")


class SequenceDataset(FrameDataset):
    """Windows of recordings.

    Options of every data set of recordings:

    stride: Frames between the starts of two windows (default: 1).
    train_stride: The same for the training part only (default: stride).
    every: Use every n-th frame: 6 turns steps of 5 minutes into steps of 30.
    crop: (top, left, height, width), in cells of the files.
    pool: Average over squares of this many cells a side. A square is missing if more than half of
        it is. For dBZ the reflectivities, 10^(dBZ / 10), are averaged.
    test_from, valid_from: Times, such as "2015-01-01", at which the test and the validation part
        start.
    test_share, valid_share: Without these times, the shares of all frames (of all recordings, if
        these have no times) at the end, the test part last. All frames of a window are in one
        part, so training never sees a frame of the test part.
    low, high: The values that become 0 and 1 (default: those of the data set, or the smallest
        and the largest of the training part).
    sequences, seed: Draw this many windows, in shuffled passes over all of them.

    Windows never cross a gap in time.

    Attributes:
        split_by: Whether the parts are cut by "time" or by "series".
        test_share: The default of that option.
        split_options: Options that do not change the frames but how they are cut and scaled.
        data: Of a subclass, the fields of Data that hold for all its files, with low and high
            only if these are fixed. Of an instance, complete.
    """

    split_by: ClassVar[Literal["time", "series"]] = "time"
    test_share: ClassVar[float] = 0.2
    split_options: ClassVar[tuple[str, ...]]
    data: Data = Data()

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
        given = {
            name: value
            for name, value in locals().items()
            if name in OPTIONS and value != OPTIONS[name]
        }
        self.root, self.split, self.frames = Path(root), split, frames
        self.sequences, self.seed = sequences, seed
        _check_counts(split, **{"frames": frames, "every": every, "pool": pool, **given})
        cells = None if crop is None else check_crop(crop)
        frame_options = {name: given[name] for name in FRAME_OPTIONS if name in given}
        self._made_with = _jsonable(options | frame_options)

        found = self._open(options)
        if is_prepared(self.root):  # the frames are cropped, pooled and thinned already
            every, pool, cells = 1, 1, None
        self.options = self._made_with | {
            name: given[name]
            for name in self.split_options
            if name in given and name not in ("sequences", "seed")
        }
        self._fields = data_of(self).model_dump(exclude_unset=True) | found
        self._thin(every)
        self._reader = self._make_reader(cells, pool)
        self.runs = self._split(test_from, valid_from, test_share, valid_share)
        self.windows = self.cut_windows(split)
        if not self.windows:
            raise NoWindowError(self._explain_no_window())
        self.data = self._complete_data(low, high)
        self.options = self.data.options  # one dict, to which open_dataset adds the folder

    def read_series(self, *_: Any, **options: Any) -> tuple[list[Series], dict[str, Any]]:
        """Return the recordings in the folder `self.root`, and the fields of Data in the files.

        Subclasses implement this, with their own options as keywords.
        """
        raise NotImplementedError

    def default_test_from(self) -> str | None:
        """Return the time at which the test part starts by default; None to use `test_share`."""
        return None

    def cut_windows(self, split: str) -> list[Window]:
        """Return the windows of a part, each as the index of a recording and those of frames."""
        stride = self.options.get("stride")
        if split == "train":
            stride = self.options.get("train_stride", stride)
        return cut_windows(self.runs[split], self.series, self.frames, stride)

    @property
    def time_step(self) -> float | None:
        """Seconds between frames, if known."""
        step: float | None = self._fields["time_step"]
        return step

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.windows) if self.sequences is None else self.sequences

    def __getitem__(self, index: int) -> Tensor:
        """Return a sequence, (T, C, H, W), `low` to `high` as 0 to 1."""
        frames = torch.from_numpy(self._reader.read(*self._window(index)))
        return to_unit_interval(frames, self.data)

    def _window(self, index: int) -> Window:
        """Return the window of a sequence, drawn with the option `sequences`."""
        index = range(len(self))[index]  # IndexError past the end
        if self.sequences is not None:
            passes, place = divmod(index, len(self.windows))
            order = np.random.default_rng([self.seed, passes]).permutation(len(self.windows))
            index = int(order[place])
        return self.windows[index]

    def when(self, index: int) -> np.ndarray | None:
        """Return the times of a sequence, (T,) of datetime64, if known."""
        number, chosen = self._window(index)
        times = self.series[number].times
        return None if times is None else times[chosen]

    def earlier(self, index: int, period: float) -> Tensor:
        """Return the frames a period before those of a sequence, (T, C, H, W), scaled as these.

        Args:
            index: Index of the sequence.
            period: Seconds.

        Raises:
            DataError: If the recording has no times, or begins later, or has a gap there.
        """
        number, chosen = self._window(index)
        series, before = self.series[number], np.timedelta64(round(period), "s")
        if series.times is None:
            raise DataError(f"{series.name} has no times, so that its history cannot be found")
        wanted = series.times[chosen] - before
        found = np.searchsorted(series.times, wanted)
        missing = series.times[found] != wanted
        if missing.any():
            raise DataError(
                f"{series.name} has no frame at {wanted[missing][0]}, {duration(period)} before "
                f"{series.times[chosen][missing][0]}; use a shorter period, or data that begin "
                "earlier"
            )
        frames = torch.from_numpy(self._reader.read(number, found))
        return to_unit_interval(frames, self.data)

    def labeled(self, index: int) -> xarray.DataArray:
        """Return a sequence in the unit of the data, with its times if known.

        Its dimensions are time, channel if there are several, y and x.
        """
        return self._label(*self._window(index))

    def newest(self, frames: int, every: int = 1) -> xarray.DataArray:
        """Return the newest frames, `every` apart counted back from the last, with their times.

        Raises:
            NoWindowError: If there are too few frames after the last gap.
        """
        source = str(self.root)
        return self._label(*newest_window(self.series, frames, every, self.time_step, source))

    def describe(self) -> dict[str, str]:
        """Return facts about the recordings and the parts."""
        facts = describe_recordings(self.series, self.data, self._shape)
        for split in SPLITS:
            count = sum(len(run.frames) for run in self.runs[split])
            windows = len(self.cut_windows(split))
            facts[split] = f"{count:,} frames, {windows:,} sequences of {self.frames}"
        return facts

    def scan(self) -> Iterator[tuple[int, int]]:
        """Read every frame of every recording, and count the missing values."""
        total, done = sum(series.length for series in self.series), 0
        self.missing = 0.0
        for count, missing in self._reader.scan():
            self.missing += missing / total
            done += count
            yield done, total

    def prepare(self, output: Path) -> Iterator[tuple[int, int]]:
        """Write all frames, cropped, pooled and thinned, as one array that is memory-mapped.

        The data set reads the folder as it reads its source, and cuts and scales it the same way.
        """
        frame = self._reader.read_stored(*self.windows[0])[0]
        yield from write_prepared(output, self._reader, frame, self._fields, self._made_with)

    def _open(self, options: dict[str, Any]) -> dict[str, Any]:
        """Open the recordings; return the fields of Data in the files."""
        place = f" (from {self.source})" if self.source else ""
        self._where_to_get = f"put {self.layout or 'the files of the data set'}{place} there"
        if not os.path.exists(self.root):
            raise DataError(
                f"the folder {self.root} does not exist: {self._where_to_get}, or set ZOO_DATA to "
                "the data root"
            )
        if is_prepared(self.root):
            self.series, found, self._made_with = read_prepared(self.root, self._made_with)
        else:
            with decoding(self.root, "check the files and the options"):
                self.series, found = self.read_series(**options)
        if not self.series:
            raise DataError(f"{self.root} contains no recordings: {self._where_to_get}")
        length = sum(series.length for series in self.series)
        if not length:
            raise DataError(f"{self.root} contains no frames: {self._where_to_get}")
        check_frames(self.root, length)
        return found

    def _thin(self, every: int) -> None:
        """Find the time step, and keep every `every`-th frame of each run."""
        for series in self.series:
            series.check_times()
        step = self._fields.get("time_step") or find_step(self.series)
        self._fields["time_step"] = step and float(step) * every
        if every > 1:
            self.series = [series.thinned(every, step) for series in self.series]

    def _make_reader(self, crop: tuple[int, int, int, int] | None, pool: int) -> FrameReader:
        fix = "put recordings of another size into a folder of their own"
        if "size" in inspect.signature(self.read_series).parameters:
            fix = "set the option size to resize all"
        if crop is None:
            check_sizes(self.series, fix)
        if self._fields.get("grid_step"):
            self._fields["grid_step"] *= pool
        decibels = is_same_unit(self._fields.get("unit", "1"), "dBZ")
        return FrameReader(self.series, crop, pool, decibels, fix)

    def _split(
        self,
        test_from: str | None,
        valid_from: str | None,
        test_share: float | None,
        valid_share: float,
    ) -> dict[str, Any]:
        if test_from is None and test_share is None:
            test_from = self.default_test_from()
        share = self.test_share if test_share is None else test_share
        split = Split(self.split_by, test_from, valid_from, share, valid_share)
        return split.cut(self.series, self.time_step)

    def _explain_no_window(self) -> str:
        longest = max((len(run.frames) for run in self.runs[self.split]), default=0)
        return (
            f"the {self.split} part of {self.root} has no window of {self.frames} frames: its "
            f"longest run without a gap has {longest}; use fewer frames, or change the parts with "
            "test_from or test_share"
        )

    def _complete_data(self, low: float | None, high: float | None) -> Data:
        """Return the fields known so far with the range, the size and the options."""
        self._shape = self._reader.read(*self.windows[0]).shape[1:]  # (C, H, W)
        fields = dict(self._fields)
        if "reflectivity" not in fields or low is not None or high is not None:
            fields.pop("reflectivity", None)
            low, high = find_range(fields, low, high, self._reader, self.runs["train"])
            fields |= {"low": low, "high": high}
        fields |= {"size": self._shape[1:], "options": self.options}
        return Data.parse(fields, source=f"the data set {type(self).__name__}")

    def _label(self, number: int, chosen: np.ndarray) -> xarray.DataArray:
        """Return frames of a recording with their times."""
        times = self.series[number].times
        frames = self._reader.read(number, chosen)
        return label_frames(frames, None if times is None else times[chosen], self.data)


#: Options of every data set of recordings, and their defaults.
OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(SequenceDataset.__init__).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in ("split", "frames")
}
SequenceDataset.split_options = tuple(name for name in OPTIONS if name not in FRAME_OPTIONS)


def _check_counts(split: str, **options: Any) -> None:
    """Raise ConfigError for an unknown split, and for counts that are not positive."""
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    for name in ("frames", "every", "pool", "stride", "train_stride", "sequences"):
        value = options.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is {value!r}; expected a whole number, at least 1")


def _jsonable(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are not None, as JSON stores them."""
    given = {name: value for name, value in options.items() if value is not None}
    converted: dict[str, Any] = to_jsonable_python(given)
    return converted
