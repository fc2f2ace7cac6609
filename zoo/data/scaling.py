"""The range of the values that is scaled to [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.reader import FrameReader
from zoo.data.splits import Run
from zoo.errors import ConfigError, DataError

__all__ = ["find_range"]

CHUNK = 16  # frames


def find_range(
    fields: Mapping[str, Any],
    low: float | None,
    high: float | None,
    reader: FrameReader,
    train: Sequence[Run],
) -> tuple[float, float]:
    """Return the values that become 0 and 1.

    Args:
        fields: Fields of :class:`zoo.config.Data`, with low and high if these are fixed.
        low: The option, which takes precedence.
        high: The option, which takes precedence.
        reader: Reads the frames.
        train: The training part, whose extremes are the default.

    Raises:
        ConfigError: If low is not below high.
        DataError: If the extremes are needed and there are none.
    """
    low = fields.get("low") if low is None else low
    high = fields.get("high") if high is None else high
    if low is None or high is None:
        smallest, largest = _find_extremes(reader, train)
        low, high = smallest if low is None else low, largest if high is None else high
    if not low < high:
        raise ConfigError(
            f"low is {low:g} and high {high:g}; expected low < high: set both, as the training "
            "part may have a single value"
        )
    return float(low), float(high)


def _find_extremes(reader: FrameReader, runs: Sequence[Run]) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for run in runs:
        series = reader.series[run.series]
        for start in range(0, len(run.frames), CHUNK):
            part = run.frames[start : start + CHUNK]
            if series.extremes is None:
                values = reader.read(run.series, part)
            else:
                values = series.extremes[part]
            infinite = np.isinf(values).reshape(len(part), -1).any(1)
            if infinite.any():
                raise DataError(
                    f"{series.label(int(part[np.argmax(infinite)]))} has infinite values, which "
                    "cannot be scaled; replace them with NaN, or remove the frame"
                )
            if not np.isnan(values).all():
                low, high = min(low, np.nanmin(values)), max(high, np.nanmax(values))
    if not np.isfinite(low):
        raise DataError("the training part has no values to find low and high from; set both")
    return float(low), float(high)
