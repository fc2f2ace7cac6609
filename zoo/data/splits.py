"""Splits: which frames are for training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zoo.data.recordings import Series
from zoo.errors import ConfigError

__all__ = ["SPLITS", "Run", "Split"]

SPLITS = ("train", "valid", "test")


@dataclass
class Run:
    """Consecutive frames of a recording without a gap, all of one part.

    Attributes:
        series: Index of the recording.
        frames: Indices of its frames.
    """

    series: int
    frames: np.ndarray


@dataclass
class Split:
    """How a data set is split, by time or by recording.

    Several recordings without times are assigned to one part each; a single one is cut.

    Attributes:
        by: "time" or "series".
        test_from: Time at which the test part starts, such as "2015-01-01".
        valid_from: Time at which the validation part starts.
        test_share: Share of all frames (by time) or recordings, at the end, used without
            `test_from`.
        valid_share: Share before the test part, used without `valid_from`.

    Raises:
        ConfigError: If the shares do not add up.
    """

    by: Literal["time", "series"]
    test_from: str | None = None
    valid_from: str | None = None
    test_share: float = 0.2
    valid_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.test_share + self.valid_share <= 1:
            raise ConfigError(
                f"test_share is {self.test_share} and valid_share {self.valid_share}; their sum "
                "must be between 0 and 1"
            )

    def cut(self, series: Sequence[Series], step: float | None) -> dict[str, list[Run]]:
        """Return the runs of every part.

        Args:
            series: All recordings. Those with a part of their own keep it.
            step: Seconds between frames.

        Raises:
            ConfigError: For invalid times, and for times if the frames have none.
        """
        free = [recording for recording in series if not recording.part]
        timed = self.by == "time" and all(recording.times is not None for recording in free)
        whole = not timed and len(free) > 1  # recordings are not cut
        if not timed and (self.valid_from or self.test_from):
            raise ConfigError(
                "test_from and valid_from need a data set with times that is split by time; use "
                "test_share and valid_share"
            )
        positions = _positions(series, timed, whole)
        placed = [p for s, p in zip(series, positions, strict=True) if not s.part]
        scale = np.unique(np.concatenate(placed)) if placed else np.arange(1)
        valid, test = self._starts(scale, whole)

        runs: dict[str, list[Run]] = {split: [] for split in SPLITS}
        for number, (recording, position) in enumerate(zip(series, positions, strict=True)):
            if recording.part:
                parts = np.full(recording.length, SPLITS.index(recording.part))
            else:
                parts = (position >= valid).astype(int) + (position >= test)
            for run in recording.runs(step, parts):
                if len(run):
                    runs[SPLITS[parts[run[0]]]].append(Run(number, run))
        return runs

    def _starts(self, scale: np.ndarray, whole: bool) -> tuple[Any, Any]:
        """Return the positions at which the valid and the test part start.

        Args:
            scale: All positions, increasing.
            whole: Whether a position is a whole recording.
        """
        count = len(scale)
        smallest = np.timedelta64(1, "s") if scale.dtype.kind == "M" else 1
        end = scale[-1] + (scale[-1] - scale[0]) + smallest

        def index(share: float, stop: int = count) -> int:
            start = stop - round(share * count)
            # A test part with a share has at least one recording.
            return count - 1 if share > 0 and whole and start == count and count > 1 else start

        def position(index: int) -> Any:
            return scale[max(0, index)] if index < count else end

        test = _parse_time(self.test_from) if self.test_from else position(index(self.test_share))
        if self.valid_from:
            valid = _parse_time(self.valid_from)
        elif self.valid_share and self.test_from:
            before_test = int(np.searchsorted(scale, test))
            valid = min(position(index(self.valid_share, before_test)), test)
        elif self.valid_share:
            valid = position(index(self.test_share + self.valid_share))
        else:
            valid = test
        if valid > test:
            raise ConfigError(
                f"the validation part starts at {valid}, after the test part, {test}; valid_from "
                "must be before test_from"
            )
        return valid, test


def _positions(series: Sequence[Series], timed: bool, whole: bool) -> list[np.ndarray]:
    """Return the position of every frame on the scale that is split: times or numbers."""
    positions, first = [], 0
    for number, recording in enumerate(series):
        if timed and recording.times is not None:
            positions.append(recording.times)
        elif whole:
            positions.append(np.full(recording.length, number))
        else:
            positions.append(np.arange(first, first + recording.length))
        first += recording.length
    return positions


def _parse_time(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "s")
    except ValueError:
        raise ConfigError(f"{text!r} is not a valid time; write it as 2015-01-31T12:00") from None
