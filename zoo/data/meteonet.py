"""The .npz files of Météo-France's MeteoNet, read without executing their pickles."""

from __future__ import annotations

import functools
import io
import pickle
import re
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.data.composite import RAIN, Composite
from zoo.data.npz import LazyArray, open_member, read_header
from zoo.errors import DataError
from zoo.inputs import decoding

__all__ = ["open_meteonet", "read_dates"]

LARGEST = 2**26  # bytes of dates, over a million


def open_meteonet(path: Path) -> list[Composite]:
    """Open the frames of a file, whose product is its region."""
    frames, dates = LazyArray(path, "data"), read_dates(path)
    if dates.shape != frames.shape[:1]:
        raise DataError(
            f"{path} has {frames.shape[0]} frames and dates of shape {dates.shape}; download it "
            "again"
        )
    match = re.match(r"rainfall_([A-Za-z]+)_", path.name)
    region = match[1].upper() if match else "unknown"
    return [
        Composite(
            time,
            region,
            {**RAIN, "time_step": 300.0},
            functools.partial(_read, frames, i),
            f"{path}, frame {i}",
        )
        for i, time in enumerate(dates.tolist())
    ]


def _read(frames: LazyArray, index: int) -> np.ndarray:
    (grid,) = frames.read(index, index + 1)
    # Hundredths of a millimetre in 5 minutes to mm/h.
    return np.where(grid < 0, np.nan, grid * np.float32(0.01 * 12)).astype(np.float32)


def read_dates(path: Path, name: str = "dates") -> np.ndarray:
    """Read an array of datetime objects in an .npz file as datetime64[s].

    Such an array is a pickle, and a pickle can execute any code. This unpickler cannot: it knows
    the names in a pickled array of datetimes and no others, and they refer to functions of this
    module that build nothing else.

    Raises:
        DataError: If the pickle contains anything else, or the file is corrupt.
    """
    with decoding(f"{path}: {name}", "expected an array of datetimes; download it again"):
        with open_member(path, name) as file:
            content = io.BytesIO(file.read(LARGEST))
        shape, dtype, _ = read_header(f"{path}: {name}", content)
        if not dtype.hasobject:
            array = np.frombuffer(content.read(), dtype).reshape(shape)
            return array.astype("datetime64[s]")
        try:
            values = _DatesUnpickler(content).load().values
            if not all(isinstance(value, datetime) for value in values):
                raise pickle.UnpicklingError("it contains something else")
        except pickle.UnpicklingError as error:
            raise DataError(f"{path}: {name} must contain times only ({error})") from None
        times = np.array(values, "datetime64[s]")
    if times.shape != shape or np.isnat(times).any():
        raise DataError(
            f"{path}: {name} has shape {times.shape}, expected {shape} times; download it again"
        )
    return times


class _Array:
    """Replaces numpy's array during unpickling, and keeps only the list of values."""

    values: list[Any]

    def __init__(self, *_: Any) -> None:
        self.values = []

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and isinstance(state[-1], list):
            self.values = state[-1]


def _datetime(*state: Any) -> datetime:
    """Return the datetime of ten packed bytes, which Python 2 wrote as text."""
    packed = state[0].encode("latin-1") if isinstance(state[0], str) else state[0]
    return datetime(packed[0] * 256 + packed[1], *packed[2:7])


def _encode(text: str, *_: Any) -> bytes:
    return text.encode("latin-1")


class _DatesUnpickler(pickle.Unpickler):
    """An unpickler that knows an array of datetimes and nothing else."""

    known: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("datetime", "datetime"): _datetime,
        ("_codecs", "encode"): _encode,
    }

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin-1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return self.known[module, name]
