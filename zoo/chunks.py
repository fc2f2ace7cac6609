"""What the chunks of zarr stores unpack to, found before anything unpacks them."""

from __future__ import annotations

import bz2
import lzma
import zlib
from pathlib import Path

__all__ = ["unpacked_size"]

ZSTD = 0xFD2FB528  # the magic number of a frame (RFC 8878)


def unpacked_size(codec: str, chunk: Path, most: int) -> int | None:
    """Return the size of a chunk when it is unpacked, or a larger number than `most`.

    Args:
        codec: Name of the codec in lower case: "zstd", "blosc", "lz4", "gzip", "zlib", "bz2",
            "lzma".
        chunk: The file.
        most: The size from which on the exact size does not matter.

    Returns:
        The size; None if the codec is unknown or the chunk does not state its size.
    """
    with chunk.open("rb") as file:
        head = file.read(18)
        if codec == "zstd":
            return _zstd_size(head)
        if codec == "blosc":
            return int.from_bytes(head[4:8], "little")
        if codec == "lz4":
            return int.from_bytes(head[:4], "little")
        unpack = {
            "gzip": lambda data: zlib.decompressobj(31).decompress(data, most + 1),
            "zlib": lambda data: zlib.decompressobj().decompress(data, most + 1),
            "bz2": lambda data: bz2.BZ2Decompressor().decompress(data, most + 1),
            "lzma": lambda data: lzma.LZMADecompressor().decompress(data, most + 1),
        }.get(codec)
        return None if unpack is None else len(unpack(head + file.read()))


def _zstd_size(head: bytes) -> int | None:
    """Return the content size in the header of a Zstandard frame; None if it is not stated."""
    if len(head) < 6 or int.from_bytes(head[:4], "little") != ZSTD:
        return None
    descriptor = head[4]
    has_window = not descriptor & 0x20  # not a single segment
    flag, dictionary = descriptor >> 6, (0, 1, 2, 4)[descriptor & 3]
    size = (0 if has_window else 1, 2, 4, 8)[flag]
    if not size:
        return None
    start = 5 + has_window + dictionary
    return int.from_bytes(head[start : start + size], "little") + (256 if size == 2 else 0)
