"""Traffic on a grid: TaxiBJ. Other grids are read by :class:`zoo.data.arrays.Arrays`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import Data
from zoo.data.recordings import Series
from zoo.data.series import SequenceDataset
from zoo.data.windows import Window, slide
from zoo.errors import ConfigError, DataError
from zoo.inputs import decoding
from zoo.stores import open_hdf5, read_hdf5

__all__ = ["TaxiBJ"]

SLOTS = 48  # half hours of a day
TEST = 28 * 86_400  # seconds: four weeks


class TaxiBJ(SequenceDataset):
    """TaxiBJ (Zhang et al. 2017): taxis that enter and leave 32 × 32 cells of Beijing.

    As in the papers: days without all of their 48 half hours are dropped, negative counts are 0,
    and 0 to 1 are the smallest and the largest value of both flows in the training part. The
    sequences that end in the last four weeks are the test part, unless test_from or test_share is
    set: 1,344 of them, if no day is dropped. (So the first frames of its first sequences are the
    last ones of the part before, as in the papers.)

    flow: "in" (the default, as in the papers), "out" or "both".
    """

    title = "TaxiBJ, Beijing"
    folder = "taxibj"
    license = "for research"
    source = "github.com/TolicWang/DeepST, data/TaxiBJ"
    layout = "BJ13_M32x32_T30_InOut.h5, BJ14_…, BJ15_…, BJ16_…"
    counts = (
        "4,888, 4,780, 5,596 and 7,220 frames; the papers have 19,560 sequences of 8 to train and "
        "1,344 to test; no checksums are published"
    )
    data = Data(variable="taxi_flow", unit="1/30min", time_step=1800.0)

    def read_series(self, flow: str = "in") -> tuple[list[Series], dict[str, Any]]:
        """Return the four files, a recording each, without incomplete days."""
        if flow not in ("in", "out", "both"):
            raise ConfigError(f"flow is {flow!r}; expected 'in', 'out' or 'both'")
        files = sorted(self.root.glob("BJ*.h5"))
        if not files:
            raise DataError(f"{self.root} contains no BJ*.h5: {self._where_to_get}")
        series = []
        for path in files:
            frames, times = _read_file(path)
            complete = _in_complete_day(times)
            frames, times = np.maximum(frames[complete], 0), times[complete]
            chosen = {"in": frames[:, :1], "out": frames[:, 1:], "both": frames}[flow]

            def read(start: int, stop: int, frames: np.ndarray = chosen) -> np.ndarray:
                return frames[start:stop]

            labels = [f"{path}, {time}" for time in times]
            # Of both flows, (T, C, H, W) to (T, 2).
            extremes = np.stack([frames.min((1, 2, 3)), frames.max((1, 2, 3))], axis=1)
            series.append(Series(path.name, len(times), read, times, labels, extremes=extremes))
        return series, {}

    def default_test_from(self) -> str:
        """Return the first time of the last four weeks of frames."""
        assert self.time_step is not None  # it is fixed
        times = np.sort(np.concatenate([s.times for s in self.series if s.times is not None]))
        return str(times[-int(TEST / self.time_step) :][0])

    def cut_windows(self, split: str) -> list[Window]:
        """Return the windows of a part; by default a test window is one that ends in it."""
        if split != "test" or {"test_from", "test_share"} & {*self.options}:
            return super().cut_windows(split)
        first = np.datetime64(self.default_test_from())
        stride: int = self.options.get("stride", 1)
        windows = []
        for number, series in enumerate(self.series):
            assert series.times is not None
            for run in series.runs(self.time_step):
                for window in slide(run, self.frames, stride):
                    if series.times[window[-1]] >= first:
                        windows.append((number, window))
        return windows


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (T, 2, H, W) and their times."""
    with open_hdf5(path) as file, decoding(path, "is it complete, and a file of TaxiBJ?"):
        if missing := {"data", "date"} - {*file}:
            raise DataError(f"{path} contains no {missing.pop()!r}; expected a file of TaxiBJ")
        frames = np.asarray(read_hdf5(path, file["data"]), np.float32)
        dates = read_hdf5(path, file["date"])
        dates = [d.decode() if isinstance(d, bytes) else str(d) for d in dates]
    if frames.ndim != 4 or frames.shape[1] != 2 or len(frames) != len(dates):
        raise DataError(
            f"{path} contains data {frames.shape} and {len(dates)} dates; expected (T, 2, H, W) "
            "and T dates"
        )
    return frames, np.array([_parse_slot(path, date) for date in dates], "datetime64[s]")


def _parse_slot(path: Path, date: str) -> np.datetime64:
    """Return the time of YYYYMMDDSS, whose slots SS of half an hour start at 01."""
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)", date)
    try:
        if not match or not 1 <= int(match[4]) <= SLOTS:
            raise ValueError
        day = np.datetime64(f"{match[1]}-{match[2]}-{match[3]}T00:00", "s")
    except ValueError:
        raise DataError(
            f"{path}: {date!r} is not a valid date; expected YYYYMMDDSS with SS from 01 to 48"
        ) from None
    return day + (int(match[4]) - 1) * np.timedelta64(1800, "s")


def _in_complete_day(times: np.ndarray) -> Sequence[bool]:
    """Return which frames are of a day with all of its 48 slots."""
    days = times.astype("datetime64[D]")
    _, which, counts = np.unique(days, return_inverse=True, return_counts=True)
    complete: Sequence[bool] = counts[which] == SLOTS
    return complete
