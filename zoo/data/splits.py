"""The parts of a data set, and its runs of frames without a gap in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zoo.data.recordings import Series
from zoo.errors import ZooError

__all__ = ["SPLITS", "Run", "Split", "gaps"]

SPLITS = ("train", "valid", "test")


@dataclass
class Run:
    """Frames of a series that follow one another without a gap, all in one split."""

    series: int
    frames: np.ndarray  # indices in the series


@dataclass
class Split:
    """How a data set is split: by time or by series.

    by: several series without times are split one by one in any case, not in the midst of one;
        a lone one, in the midst of it.
    test_from, valid_from: times, such as "2015-01-01", from which on frames are test and
        valid. test_share, valid_share: in place of them, the share of all frames (by time) or of
        all series, taken from the end: the test part last, the valid part before it.

    Raises ZooError for shares that are none.
    """

    by: Literal["time", "series"]
    test_from: str | None = None
    valid_from: str | None = None
    test_share: float = 0.2
    valid_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.test_share + self.valid_share <= 1:
            raise ZooError(
                f"test_share is {self.test_share}, valid_share {self.valid_share}; their sum must "
                "be from 0 to 1"
            )

    def cut(self, series: Sequence[Series], step: float | None) -> dict[str, list[Run]]:
        """The frames of every part in runs without a gap.

        step: seconds from one frame to the next.

        Raises ZooError for times that are none, or that no frame has.
        """
        free = [one for one in series if not one.part]
        timed = self.by == "time" and all(one.times is not None for one in free)
        apart = not timed and len(free) > 1
        if not timed and (self.valid_from or self.test_from):
            raise ZooError(
                "test_from and valid_from need frames with times, and a split by time; this data "
                "set has none here: use test_share and valid_share"
            )
        # Where every frame stands on the scale that is split: times, or numbers.
        positions, first = [], 0
        for number, one in enumerate(series):
            if timed and one.times is not None:
                positions.append(one.times)
            elif apart:
                positions.append(np.full(one.length, number))
            else:
                positions.append(np.arange(first, first + one.length))
            first += one.length
        placed = [p for one, p in zip(series, positions, strict=True) if not one.part]
        scale = np.unique(np.concatenate(placed)) if placed else np.arange(1)
        valid, test = self._starts(scale, apart)

        runs: dict[str, list[Run]] = {split: [] for split in SPLITS}
        for number, (one, position) in enumerate(zip(series, positions, strict=True)):
            if one.part:
                part = np.full(one.length, SPLITS.index(one.part))
            else:
                part = (position >= valid).astype(int) + (position >= test)
            cuts = (part[1:] != part[:-1]) | gaps(one, step)
            for piece in np.split(np.arange(one.length), np.flatnonzero(cuts) + 1):
                if len(piece):
                    runs[SPLITS[part[piece[0]]]].append(Run(number, piece))
        return runs

    def _starts(self, scale: np.ndarray, apart: bool) -> tuple[Any, Any]:
        """Where valid and test begin on a scale of positions, of whole series if `apart`."""
        count = len(scale)
        one = np.timedelta64(1, "s") if scale.dtype.kind == "M" else 1
        after = scale[-1] + (scale[-1] - scale[0]) + one

        def moment(text: str) -> np.datetime64:
            try:
                return np.datetime64(text, "s")
            except ValueError:
                raise ZooError(f"{text!r} is no time; write it as 2015-01-31T12:00") from None

        def place(share: float, end: int = count) -> int:
            begin = end - round(share * count)
            # A test part that is asked for has at least one series.
            return count - 1 if share > 0 and apart and begin == count and count > 1 else begin

        def at(place: int) -> Any:
            return scale[max(0, place)] if place < count else after

        test = moment(self.test_from) if self.test_from else at(place(self.test_share))
        if self.valid_from:
            valid = moment(self.valid_from)
        elif self.valid_share and self.test_from:
            valid = min(at(place(self.valid_share, int(np.searchsorted(scale, test)))), test)
        else:
            valid = at(place(self.test_share + self.valid_share)) if self.valid_share else test
        if valid > test:
            raise ZooError(
                f"valid begins at {valid}, after test at {test}; put valid_from before test_from"
            )
        return valid, test


def gaps(series: Series, step: float | None) -> np.ndarray:
    """Whether more or less than a step of time lies between a frame and the next: (length − 1,)."""
    found = np.zeros(max(series.length - 1, 0), bool)
    found[[i - 1 for i in series.breaks]] = True
    if series.times is not None and step is not None:
        apart = np.diff(series.times) / np.timedelta64(1, "s")
        found |= np.abs(apart - step) > 0.01 * step
    return found
