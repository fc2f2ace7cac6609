"""Files that others wrote: only regular files are read, and only as far as memory allows.

A small file may announce, or unpack to, any number of bytes. Every reader therefore checks the
size of what it is about to read with :func:`check_bytes`, before it allocates anything.
"""

from __future__ import annotations

import gzip
import math
import mmap
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from zoo.errors import ConfigError, DataError, ZooError

__all__ = [
    "check_bytes",
    "check_checkpoint",
    "check_file",
    "check_frames",
    "check_store",
    "check_values",
    "decoding",
    "input_limit",
    "max_pixels",
    "open_bytes",
    "read_text",
]

#: Bytes that may be read at once, unless the environment variable ZOO_INPUT_LIMIT says otherwise.
LIMIT = 2**30

#: Bytes of bookkeeping for each frame of a recording: its time, its name, its windows.
FRAME_BYTES = 256

#: Bytes of a number that is read, with the copies that are made of it as it is converted.
VALUE_BYTES = 8

#: Bytes that decoding of pictures and videos takes for each pixel: colors, in several copies.
PIXEL_BYTES = 32

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def input_limit() -> int:
    """Return the number of bytes that may be read at once: ZOO_INPUT_LIMIT, or 1 GiB.

    Raises:
        ConfigError: If ZOO_INPUT_LIMIT is not a size.
    """
    text = os.environ.get("ZOO_INPUT_LIMIT")
    if not text:
        return LIMIT
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise ConfigError(f"ZOO_INPUT_LIMIT is {text!r}; expected a size such as 4GiB")
    return int(match[1]) * UNITS[match[2].upper()]


def max_pixels() -> int:
    """Return the number of pixels that a frame of a video or a picture may have."""
    return input_limit() // PIXEL_BYTES


def check_bytes(source: str | Path, size: int) -> None:
    """Raise DataError if reading takes more memory than the limit.

    Args:
        source: What is read, for the message.
        size: Bytes in memory, after decompression and decoding.
    """
    if size > (limit := input_limit()):
        raise DataError(
            f"{source}: takes {_format(size)} of memory, more than the limit of {_format(limit)}; "
            "read fewer or smaller frames, or raise the limit with the environment variable "
            "ZOO_INPUT_LIMIT, such as 4GiB"
        )


def check_values(source: str | Path, *shape: int) -> None:
    """Raise DataError if reading so large an array takes more memory than the limit."""
    check_bytes(source, math.prod(shape) * VALUE_BYTES)


def check_frames(source: str | Path, count: int) -> None:
    """Raise DataError for a number of frames whose bookkeeping exceeds the limit."""
    if count * FRAME_BYTES > input_limit():
        raise DataError(
            f"{source}: announces {count:,} frames, more than the limit of "
            f"{input_limit() // FRAME_BYTES:,}; raise the limit with the environment variable "
            "ZOO_INPUT_LIMIT, such as 4GiB"
        )


def check_file(path: str | Path) -> None:
    """Raise DataError unless a path is a regular file, or a link to one.

    Pipes, sockets and devices could be read forever.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = "a broken link" if os.path.islink(path) else "no such file"
        raise DataError(f"{path}: {reason}; check the path") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise DataError(f"{path}: is {kind}; expected a regular file")


def check_checkpoint(path: Path) -> None:
    """Check that a PyTorch checkpoint cannot unpack to more bytes than the file has.

    Raises:
        DataError: if it is a damaged or compressed zip archive, which PyTorch never writes, or if
            its pickle makes a bytearray. PyTorch allows that name when it loads tensors only.
    """
    if zipfile.is_zipfile(path):
        with decoding(path, "copy it again"), zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise DataError(f"{path} is compressed, which a checkpoint never is; copy it again")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"\nbytearray\n") >= 0:
                raise DataError(
                    f"{path} contains a bytearray, which checkpoints do not need; save only the "
                    "tensors: torch.save(model.state_dict(), FILE)"
                )


def check_store(folder: Path) -> None:
    """Raise DataError unless a folder, such as a zarr store, contains only files and folders."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected a zarr store")
    folders = [str(folder)]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif not entry.is_file():
                check_file(entry.path)


def open_bytes(path: Path) -> IO[bytes]:
    """Open a regular file, decompressed if its suffix is .gz; read it in bounded parts."""
    check_file(path)
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a regular file; raise DataError if it exceeds the limit."""
    check_file(path)
    with decoding(path):
        check_bytes(path, path.stat().st_size)
        return path.read_text(encoding)


@contextmanager
def decoding(
    path: str | Path, hint: str = "download it again", verb: str = "read"
) -> Iterator[None]:
    """Raise whatever a library raises about a file as a DataError of one line.

    Libraries raise exceptions of many classes for bytes that they do not expect. A missing
    library and a wrong name in a plugin are not errors of the file, and stay what they are.

    Args:
        path: The file.
        hint: What to check, or how to fix it.
        verb: "read" or "written".
    """
    try:
        yield
    except (ZooError, ImportError, NameError):
        raise
    except Exception as error:
        reason = str(getattr(error, "strerror", None) or error)
        if "pickle" in reason:  # NumPy suggests an unsafe way to load it
            reason = "it contains Python objects or is not a NumPy file"
        lines = reason.strip().splitlines() or [type(error).__name__]
        raise DataError(f"{path}: could not be {verb} ({lines[0][:200]}); {hint}") from error


def _format(size: int) -> str:
    """Format bytes: "3.2 GiB"."""
    for unit in ("KiB", "MiB", "GiB"):
        size_in_unit = size / {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
        if size_in_unit < 1000:
            break
    return f"{size_in_unit:,.3g} {unit}"
