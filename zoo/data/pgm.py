"""PGM composites of the Finnish weather service (FMI)."""

from __future__ import annotations

import functools
import re
from datetime import datetime
from pathlib import Path

import numpy as np

from zoo.data.composite import ECHO, Composite
from zoo.errors import DataError
from zoo.inputs import check_values, decoding, open_bytes

__all__ = ["open_pgm"]

HEADER = re.compile(rb"P5\s((?:#[^\n]*\n)*)\s*(\d+)\s+(\d+)\s+255\s")
HEADER_BYTES = 2**16  # bytes that contain the header
MISSING = 255


def open_pgm(path: Path) -> Composite:
    """Open a composite of reflectivity, gzipped or not."""
    with decoding(path), open_bytes(path) as file:
        header = _match_header(path, file.read(HEADER_BYTES))[1]
    time = re.search(rb"#\s*obstime\s+(\d{12})", header)
    if time is None:
        raise DataError(f"{path} has no obstime; expected a composite of FMI's open data")
    param = re.search(rb"#\s*param\s+(\S+)", header)
    product = param[1].decode("ascii", "replace") if param else "reflectivity"
    step = re.search(rb"#\s*metersperpixel_x\s+([\d.]+)", header)
    with decoding(path):
        fields = {**ECHO, "grid_step": float(step[1])} if step else dict(ECHO)
        end = datetime.strptime(time[1].decode(), "%Y%m%d%H%M")
    return Composite(end, product, fields, functools.partial(_read, path), str(path))


def _read(path: Path) -> np.ndarray:
    with decoding(path), open_bytes(path) as file:
        start = file.read(HEADER_BYTES)
        header = _match_header(path, start)
        width, height = int(header[2]), int(header[3])
        check_values(path, height, width)
        rest = file.read(max(0, header.end() + width * height + 1 - len(start)))
        pixels = np.frombuffer((start + rest)[header.end() :], np.uint8)
    if pixels.size != width * height:
        size = f"{pixels.size:,}" if pixels.size < width * height else f"over {width * height:,}"
        raise DataError(
            f"{path} has {size} pixels, expected {width * height:,} from its header; "
            "download it again"
        )
    values = pixels.reshape(height, width)
    return np.where(values == MISSING, np.nan, (values.astype(np.float32) - 64) / 2)


def _match_header(path: Path, content: bytes) -> re.Match[bytes]:
    """Match the comments, the width and the height."""
    match = HEADER.match(content)
    if not match:
        raise DataError(
            f"{path} is not a PGM file of one byte a pixel (P5, 255); download it again"
        )
    return match
