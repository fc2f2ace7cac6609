"""Traffic on a grid: TaxiBJ. Other such grids are read by :class:`zoo.data.arrays.Arrays`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.data.files import decoding
from zoo.data.recordings import Series
from zoo.data.series import SequenceDataset
from zoo.data.splits import gaps
from zoo.errors import ZooError

__all__ = ["TaxiBJ"]

SLOTS = 48  # half hours of a day
TEST = 28 * 86_400  # seconds of frames: the last four weeks


class TaxiBJ(SequenceDataset):
    """TaxiBJ (Zhang et al. 2017): taxis that enter and leave 32 × 32 cells of Beijing.

    As in the papers: days without all of their 48 half hours are dropped, windows never cross
    what is dropped, negative counts are 0, and 0 to 1 are the smallest and the largest value of
    both flows in the training part. The sequences that end in the last four weeks are the test
    part, unless test_from or test_share is told: 1,344 of them, if no day there is dropped. (So
    the first frames of its first sequences are the last ones of the part before, as in the
    papers.)

    Options, beside those of every data set of recordings: flow, "in" (the default,
    as in the papers), "out" or "both".
    """

    title = "TaxiBJ, Beijing"
    folder = "taxibj"
    licence = "for research"
    source = "github.com/TolicWang/DeepST, data/TaxiBJ"
    layout = "BJ13_M32x32_T30_InOut.h5, BJ14_…, BJ15_…, BJ16_…"
    counts = (
        "4,888, 4,780, 5,596 and 7,220 frames; the papers have 19,560 sequences of 8 to train and "
        "1,344 to test; no checksums are published"
    )
    meaning: ClassVar[dict[str, Any]] = {
        "variable": "taxi_flow",
        "unit": "1/30min",
        "time_step": 1800.0,
    }

    def read_series(self, flow: str = "in") -> tuple[list[Series], dict[str, Any]]:
        """The four files, a recording each, without the days that are not whole."""
        if flow not in ("in", "out", "both"):
            raise ZooError(f"flow is {flow!r}; choose 'in', 'out' or 'both'")
        files = sorted(self.root.glob("BJ*.h5"))
        if not files:
            raise ZooError(f"{self.root} holds no BJ*.h5: {self._where_to_get()}")
        series = []
        for path in files:
            frames, times = _read_file(path)
            whole = _whole_days(times)
            frames, times = np.maximum(frames[whole], 0), times[whole]
            chosen = {"in": frames[:, :1], "out": frames[:, 1:], "both": frames}[flow]

            def read(start: int, stop: int, frames: np.ndarray = chosen) -> np.ndarray:
                return frames[start:stop]

            labels = [f"{path}, {time}" for time in times]
            # Of both flows, (T, C, H, W) to (T, 2).
            ends = np.stack([frames.min((1, 2, 3)), frames.max((1, 2, 3))], axis=1)
            series.append(Series(path.name, len(times), read, times, labels, extremes=ends))
        return series, {}

    def _usual_test_from(self) -> str:
        """The first of the last four weeks of frames."""
        assert self.time_step is not None  # it is fixed
        times = np.sort(np.concatenate([one.times for one in self.series if one.times is not None]))
        return str(times[-int(TEST / self.time_step) :][0])

    def _cut_windows(self, split: str) -> list[tuple[int, np.ndarray]]:
        """The papers' test part, unless another is told: by the last frame of a window."""
        if split != "test" or {"test_from", "test_share"} & {*self.options}:
            return super()._cut_windows(split)
        stride: int = self.options.get("stride", 1)
        first, windows = np.datetime64(self._usual_test_from()), []
        for number, series in enumerate(self.series):
            assert series.times is not None
            ends = np.flatnonzero(gaps(series, self.time_step)) + 1
            for run in np.split(np.arange(series.length), ends):
                for start in range(0, len(run) - self.frames + 1, stride):
                    window = run[start : start + self.frames]
                    if series.times[window[-1]] >= first:
                        windows.append((number, window))
        return windows


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, 2, H, W) and their times."""
    import h5py

    with decoding(path, "is it complete, and a file of TaxiBJ?"), h5py.File(path) as file:
        if missing := {"data", "date"} - {*file}:
            raise ZooError(f"{path} has no {missing.pop()!r}; expected a file of TaxiBJ")
        frames = np.asarray(file["data"], np.float32)
        dates = [d.decode() if isinstance(d, bytes) else str(d) for d in file["date"][()]]
    if frames.ndim != 4 or frames.shape[1] != 2 or len(frames) != len(dates):
        raise ZooError(
            f"{path} holds data {frames.shape} and {len(dates)} dates; expected (T, 2, H, W) and T"
        )
    return frames, np.array([_slot_time(path, date) for date in dates], "datetime64[s]")


def _slot_time(path: Path, date: str) -> np.datetime64:
    """The time of YYYYMMDDSS, whose slots SS of half an hour count from 01."""
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)", date)
    try:
        if not match or not 1 <= int(match[4]) <= SLOTS:
            raise ValueError
        day = np.datetime64(f"{match[1]}-{match[2]}-{match[3]}T00:00", "s")
    except ValueError:
        raise ZooError(f"{path}: {date!r} is no date YYYYMMDDSS with SS from 01 to 48") from None
    return day + (int(match[4]) - 1) * np.timedelta64(1800, "s")


def _whole_days(times: np.ndarray) -> Sequence[bool]:
    """Which frames are of a day that has all of its 48."""
    days = times.astype("datetime64[D]")
    _, which, counts = np.unique(days, return_inverse=True, return_counts=True)
    whole: Sequence[bool] = counts[which] == SLOTS
    return whole
