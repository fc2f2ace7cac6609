"""Arrays in .npz files, read a few frames at a time."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from zoo.data.decoding import decoding
from zoo.errors import DataError

__all__ = ["LazyArray", "open_member", "read_header"]


class LazyArray:
    """An array (T, …) in an .npz file, read a few frames at a time in bounded memory.

    Reading forward is fast; reading backward decompresses the file from its start again.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: Any = None
        with open_member(path, name) as file:
            self.shape, self.dtype = read_header(path, name, file)
            self._first = file.tell()
        if len(self.shape) < 2 or self.dtype.hasobject:
            raise DataError(
                f"{path}: {name} has shape {self.shape} and dtype {self.dtype}; expected frames"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open file, which another process cannot use."""
        return {**self.__dict__, "_file": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the frames from start to stop − 1; raise DataError if the file is corrupt."""
        size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        with decoding(self.path):
            if self._file is None:
                self._file = open_member(self.path, self.name)
            self._file.seek(self._first + start * size)
            content = self._file.read((stop - start) * size)
        if len(content) != (stop - start) * size:
            raise DataError(
                f"{self.path}: {self.name} is truncated at frame {start}; download it again"
            )
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])


def open_member(path: Path, name: str) -> IO[bytes]:
    """Open an array of an .npz file."""
    with decoding(path, f"is it an .npz file with {name!r}?"):
        return zipfile.ZipFile(path).open(f"{name}.npy")


def read_header(path: Path, name: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Read the shape and the dtype, which leaves the file at the first value."""
    with decoding(f"{path}: {name}"):
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if fortran and len(shape) > 1:
        raise DataError(f"{path}: {name} is in Fortran order; save it again in C order")
    return shape, dtype
