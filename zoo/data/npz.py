"""Arrays in .npz files, read a few frames at a time."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from zoo.errors import DataError
from zoo.inputs import check_bytes, check_file, check_frames, check_values, decoding

__all__ = ["LazyArray", "open_member", "read_header"]


class LazyArray:
    """An array (T, …) in an .npz file, read a few frames at a time in bounded memory.

    Reading forward is fast; reading backward decompresses the file from its start again.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: Any = None
        with open_member(path, name) as file:
            self.shape, self.dtype, fortran = read_header(f"{path}: {name}", file)
            self._first = file.tell()
        if fortran and len(self.shape) > 1:
            raise DataError(f"{path}: {name} is in Fortran order; save it again in C order")
        if len(self.shape) < 2 or self.dtype.kind not in "biuf":
            raise DataError(
                f"{path}: {name} has shape {self.shape} and dtype {self.dtype}; expected frames"
            )
        check_frames(f"{path}: {name}", self.shape[0])
        check_values(f"{path}: {name}", *self.shape[1:])

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open file, which another process cannot use."""
        return {**self.__dict__, "_file": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the frames from start to stop − 1; raise DataError if the file is corrupt."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        check_bytes(self.path, (stop - start) * size)
        with decoding(self.path):
            if self._file is None:
                self._file = open_member(self.path, self.name)
            self._file.seek(self._first + start * size)
            content = self._file.read((stop - start) * size)
        if len(content) != (stop - start) * size:
            raise DataError(
                f"{self.path}: {self.name} is truncated at frame {start}; download it again"
            )
        return np.frombuffer(content, self.dtype).reshape(stop - start, *self.shape[1:])


def open_member(path: Path, name: str) -> IO[bytes]:
    """Open an array of an .npz file."""
    check_file(path)
    with decoding(path, f"is it an .npz file with {name!r}?"):
        return zipfile.ZipFile(path).open(f"{name}.npy")


def read_header(source: str | Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Read the header of an .npy file, which leaves the file at the first value.

    Args:
        source: Its name for messages.
        file: The file, open at its start.

    Returns:
        The shape, the dtype, and whether the values are in Fortran order.
    """
    with decoding(source):
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if any(n < 0 for n in shape):
        raise DataError(f"{source}: has an array of shape {shape}; expected positive numbers")
    return shape, dtype, fortran
