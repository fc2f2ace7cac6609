"""Recordings: frames one after another, with their times and gaps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config import Data
from zoo.errors import DataError

__all__ = ["Series", "check_sizes", "describe_recordings", "format_size"]

BLOCK = 32  # frames read at once


@dataclass(frozen=True)
class Series:
    """A recording: frames one after another.

    Attributes:
        name: Its name for people: a file, a subject, a product.
        length: Number of frames.
        read: Function of (start, stop) that returns frames (stop − start, C, H, W) in the unit of
            the data, NaN where missing, or pictures as uint8. It may raise DataError.
        times: (length,) of datetime64[s] in UTC, if known.
        labels: (length,) names of the frames for messages, such as their files.
        part: "train", "valid" or "test", if the data set itself assigns one.
        whole: Whether it is best read from start to end, as a video is.
        stride: Frames between the starts of two windows, if it differs between recordings.
        size: (height, width), if known before a frame is read.
        breaks: Frames that follow a gap which the times do not show.
        extremes: (length, 2), the smallest and the largest value of each frame, if the range
            covers more values than `read` returns.
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
        """Return the name of a frame for a message."""
        return self.labels[index] if self.labels else f"{self.name}, frame {index}"

    def runs(self, step: float | None, parts: np.ndarray | None = None) -> list[np.ndarray]:
        """Split the frames at gaps in time, and where `parts` changes.

        Args:
            step: Seconds between frames; more or less than that is a gap.
            parts: (length,) the part of each frame.

        Returns:
            Indices of the frames of each run.
        """
        cuts = np.zeros(max(self.length - 1, 0), bool)
        cuts[[i - 1 for i in self.breaks]] = True
        if self.times is not None and step is not None:
            apart = np.diff(self.times) / np.timedelta64(1, "s")
            cuts |= np.abs(apart - step) > 0.01 * step
        if parts is not None:
            cuts |= parts[1:] != parts[:-1]
        return np.split(np.arange(self.length), np.flatnonzero(cuts) + 1)

    def thinned(self, every: int, step: float | None) -> Series:
        """Return every `every`-th frame of each run as a recording."""
        runs = [run[::every] for run in self.runs(step)]
        chosen = np.concatenate(runs)
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
            breaks=np.cumsum([len(run) for run in runs])[:-1].tolist(),
            extremes=None if self.extremes is None else self.extremes[chosen],
        )

    def check_times(self) -> None:
        """Raise DataError for times that are missing, repeat or go back."""
        if self.times is None or not self.length:
            return
        if np.isnat(self.times).any():
            i = int(np.argmax(np.isnat(self.times)))
            raise DataError(f"{self.label(i)} has no time (NaT); give all frames a time, or none")
        wrong = np.flatnonzero(np.diff(self.times) <= np.timedelta64(0, "s"))
        if len(wrong):
            i = int(wrong[0])
            relation = "equals" if self.times[i] == self.times[i + 1] else "is before"
            raise DataError(
                f"{self.label(i + 1)}: its time, {self.times[i + 1]}, {relation} that of the "
                f"previous frame, {self.label(i)} ({self.times[i]}); expected increasing times: "
                "remove one of them, or sort them"
            )


def check_sizes(series: Sequence[Series], fix: str) -> None:
    """Raise DataError if recordings are known to have frames of different sizes.

    Args:
        series: The recordings.
        fix: How to fix that, for the message.
    """
    known = [(recording.name, recording.size) for recording in series if recording.size is not None]
    for name, size in known[1:]:
        if size != known[0][1]:
            raise DataError(
                f"{name} has frames of {format_size(size)}, {known[0][0]} of "
                f"{format_size(known[0][1])}; expected frames of one size: {fix}"
            )


def describe_recordings(
    series: Sequence[Series], data: Data, shape: Sequence[int]
) -> dict[str, str]:
    """Return facts for people about recordings with frames of `shape` (C, H, W)."""
    low, high = data.limits
    facts = {
        "recordings": f"{len(series):,}",
        "frames": f"{sum(s.length for s in series):,}",
        "frame": f"{' × '.join(map(str, shape))} (C × H × W)",
        "values": f"{data.variable} in {data.unit!r}, {low:g} to {high:g} is 0 to 1",
    }
    if data.grid_step:
        facts["grid step"] = f"{data.grid_step:g} m"
    if data.time_step:
        facts["time step"] = f"{data.time_step:g} s"
    times = [s.times for s in series if s.times is not None and len(s.times)]
    if times:
        facts["times"] = f"{min(t.min() for t in times)} to {max(t.max() for t in times)} UTC"
        facts["gaps in time"] = f"{sum(len(s.runs(data.time_step)) - 1 for s in series):,}"
    return facts


def format_size(shape: Sequence[int]) -> str:
    """Format the height and width of an array (..., H, W)."""
    return "×".join(map(str, shape[-2:]))


def _read_chosen(series: Series, chosen: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Read the frames chosen[start:stop] in blocks that include the frames between them.

    Read one by one, every frame would decompress its chunk of a store again.
    """
    blocks: list[np.ndarray] = []
    while start < stop:
        until = int(np.searchsorted(chosen[:stop], chosen[start] + BLOCK))
        block = series.read(int(chosen[start]), int(chosen[until - 1]) + 1)
        blocks.append(block[chosen[start:until] - chosen[start]])
        if blocks[-1].shape[1:] != blocks[0].shape[1:]:
            raise DataError(
                f"{series.label(int(chosen[start]))}: the frame is {format_size(block.shape)}, "
                f"previous frames are {format_size(blocks[0].shape)}; expected frames of one size"
            )
        start = until
    return np.concatenate(blocks)
