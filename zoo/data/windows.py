"""Windows: sequences of consecutive frames, and the time step between these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.data.recordings import Series
from zoo.data.splits import Run
from zoo.errors import NoWindowError

__all__ = ["Window", "cut_windows", "find_step", "newest_window", "slide"]

#: The index of a recording and the indices of its frames.
Window = tuple[int, np.ndarray]


def slide(run: np.ndarray, frames: int, stride: int) -> list[np.ndarray]:
    """Return the windows of `frames` frames of a run, `stride` apart."""
    return [run[i : i + frames] for i in range(0, len(run) - frames + 1, stride)]


def cut_windows(
    runs: Sequence[Run], series: Sequence[Series], frames: int, stride: int | None
) -> list[Window]:
    """Return the windows of all runs.

    Args:
        runs: Frames without a gap.
        series: The recordings that the runs index.
        frames: Length of a window.
        stride: Frames between the starts of two windows; by default that of each recording, or 1.
    """
    return [
        (run.series, window)
        for run in runs
        for window in slide(run.frames, frames, stride or series[run.series].stride or 1)
    ]


def newest_window(
    series: Sequence[Series], frames: int, every: int, step: float | None, source: str
) -> Window:
    """Return the newest frames of all recordings, `every` apart counted back from the last.

    Args:
        series: The recordings; without times, the last one is the newest.
        frames: Length of the window.
        every: Distance of its frames.
        step: Seconds between frames; more or less than that is a gap.
        source: Name of the data for messages.

    Raises:
        NoWindowError: If there are too few frames after the last gap.
    """
    filled = [(number, s) for number, s in enumerate(series) if s.length]
    timed = [(s.times[-1], number) for number, s in filled if s.times is not None]
    number = max(timed)[1] if timed else filled[-1][0]
    newest = series[number]
    run = newest.runs(step)[-1]
    needed = (frames - 1) * every + 1
    if len(run) < needed:
        first = int(run[0])
        span = f"{newest.label(first)} to {newest.label(int(run[-1]))}"
        if newest.times is not None:
            span += f" ({newest.times[first]} to {newest.times[-1]})"
            span += f", after a gap since {newest.times[first - 1]}" if first else ""
        spaced = f" ({frames}, {every} apart)" if every > 1 else ""
        raise NoWindowError(
            f"only the newest {len(run)} frames of {source} are without a gap: {span}; expected "
            f"{needed}{spaced}: add the missing frames or use fewer input frames"
        )
    return number, run[-needed::every]


def find_step(series: Sequence[Series]) -> float | None:
    """Return the most frequent time between frames in seconds, or None without times."""
    steps = [np.diff(s.times) for s in series if s.times is not None and s.length > 1]
    if not steps:
        return None
    values, counts = np.unique(np.concatenate(steps), return_counts=True)
    return float(values[np.argmax(counts)] / np.timedelta64(1, "s"))
