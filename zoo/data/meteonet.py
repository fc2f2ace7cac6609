"""What an .npz of MeteoNet holds, read without running anything in it."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.errors import ZooError

__all__ = ["FrameFile", "read_dates"]


class FrameFile:
    """An array (T, …) of an .npz, read a few frames at a time, in bounded memory.

    Going forward is quick; going back unpacks the file from its beginning again.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: Any = None
        with self._opened() as file:
            self.shape, self._dtype = _header(path, name, file)
            self._first = file.tell()
        if len(self.shape) < 2 or self._dtype.hasobject:
            raise ZooError(f"{path}: {name} is {self.shape} of {self._dtype}; expected frames")
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file, which no other process can use."""
        return {**self.__dict__, "_file": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start … stop − 1; ZooError where the file is broken."""
        size = int(np.prod(self.shape[1:])) * self._dtype.itemsize
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.seek(self._first + start * size)
            content = self._file.read((stop - start) * size)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ZooError(f"{self.path} cannot be read ({error}): fetch it again") from error
        if len(content) != (stop - start) * size:
            raise ZooError(f"{self.path}: {self.name} is cut off at frame {start}; fetch it again")
        return np.frombuffer(content, self._dtype).reshape(-1, *self.shape[1:])

    def _opened(self) -> Any:
        try:
            return zipfile.ZipFile(self.path).open(f"{self.name}.npy")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ZooError(
                f"{self.path} cannot be read ({error}): is it an .npz with {self.name!r}? Fetch it "
                "again"
            ) from error


def read_dates(path: Path, name: str = "dates") -> np.ndarray:
    """The times of an .npz, an array of datetime objects, as datetime64[s].

    Such an array is a pickle, and a pickle can run any code. Here it cannot: of all the names
    that it may call for, only those of an array of datetimes are known, and they stand for
    functions of this module that build nothing else. Raises ZooError for any other.
    """
    try:
        with zipfile.ZipFile(path).open(f"{name}.npy") as file:
            content = io.BytesIO(file.read())
        shape, dtype = _header(path, name, content)
        if not dtype.hasobject:
            array = np.frombuffer(content.read(), dtype).reshape(shape)
            return array.astype("datetime64[s]")
        values = _Dates(content).load().values
        times = np.array(values, "datetime64[s]")
    except pickle.UnpicklingError as error:
        raise ZooError(f"{path}: {name} holds more than times ({error}); it is not read") from None
    except Exception as error:  # whatever a broken pickle makes of itself
        raise ZooError(
            f"{path}: {name} cannot be read ({type(error).__name__}: {error}); expected an array "
            "of datetimes: fetch it again"
        ) from error
    if times.shape != shape or np.isnat(times).any():
        raise ZooError(f"{path}: {name} is {times.shape}, expected {shape} times; fetch it again")
    return times


def _header(path: Path, name: str, file: Any) -> tuple[tuple[int, ...], np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    except (ValueError, OSError, zlib.error, EOFError) as error:
        raise ZooError(f"{path}: {name} is no array ({error}); fetch it again") from error
    if fortran and len(shape) > 1:
        raise ZooError(f"{path}: {name} is stored column by column; save it again in C order")
    return shape, dtype


class _Array:
    """Stands for numpy's array while it is unpickled: it keeps the list of values alone."""

    values: list[Any]

    def __init__(self, *_: Any) -> None:
        self.values = []

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and isinstance(state[-1], list):
            self.values = state[-1]


def _datetime(*state: Any) -> datetime:
    """A datetime of its ten packed bytes; Python 2 wrote them as text."""
    packed = state[0].encode("latin-1") if isinstance(state[0], str) else state[0]
    return datetime(packed[0] * 256 + packed[1], *packed[2:7])


def _encode(text: str, *_: Any) -> bytes:
    return text.encode("latin-1")


class _Dates(pickle.Unpickler):
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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.known[module, name]
