"""RADOLAN binaries of the German weather service, and the archive RYDL.hdf5."""

from __future__ import annotations

import functools
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.composite import RAIN, Composite
from zoo.errors import DataError
from zoo.inputs import check_frames, check_values, decoding, open_bytes
from zoo.stores import open_hdf5, read_hdf5

__all__ = ["open_radolan", "open_rydl", "read_radolan"]

NO_DATA, CLUTTER = 0x2000, 0x8000  # flags; the lower twelve bits are the value
HEADER = 1000  # bytes that contain the header
FIELDS = {**RAIN, "grid_step": 1000.0}


def read_radolan(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Read a RADOLAN composite of two bytes a cell.

    The format is that of "RADOLAN/RADVOR: Hoch aufgelöste Niederschlagsanalyse … Beschreibung
    des Kompositformats" (DWD, version 2.5).

    Returns:
        The header ("product", "time", "precision" in mm, "minutes", "shape"), and rain in mm,
        (H, W), north up, NaN where the file has no data or clutter.

    Raises:
        DataError: If the file is corrupt, or not rain in two bytes a cell.
    """
    with decoding(path), open_bytes(path) as file:
        start = file.read(HEADER)
        header = _parse_header(path, start)
        height, width = header["shape"]
        size = 2 * height * width
        check_values(path, height, width)
        payload = start[start.index(b"\x03") + 1 :]
        payload += file.read(max(0, size + 1 - len(payload)))
        if len(payload) != size:
            found = f"{len(payload):,}" if len(payload) < size else f"over {size:,}"
            raise DataError(
                f"{path} has {found} bytes after the header, expected {size:,} ({height} × "
                f"{width} cells of two bytes); download it again, or use another product"
            )
        values = np.frombuffer(payload, "<u2").reshape(height, width)[::-1]  # south comes first
        rain = (values & 0x0FFF) * np.float32(header["precision"])
        return header, np.where(values & (NO_DATA | CLUTTER), np.float32(np.nan), rain)


def open_radolan(path: Path) -> Composite:
    """Open a RADOLAN composite, gzipped or not, as the mean rain rate of its interval."""
    with decoding(path), open_bytes(path) as file:
        header = _parse_header(path, file.read(HEADER))
    if not header["minutes"]:
        raise DataError(
            f"{path} has no interval (INT), which a rain rate needs; use a product such as RY or YW"
        )

    def read() -> np.ndarray:
        return read_radolan(path)[1] * np.float32(60 / header["minutes"])

    return Composite(header["time"], header["product"], FIELDS, read, str(path))


def open_rydl(path: Path) -> list[Composite]:
    """Open the arrays of an archive such as RYDL.hdf5, named by their times."""
    with open_hdf5(path) as file, decoding(path):
        names = sorted(file)
    check_frames(path, len(names))
    if wrong := [name for name in names if not re.fullmatch(r"\d{12}", name)]:
        raise DataError(
            f"{path} contains {wrong[0]!r}; expected arrays named YYYYMMDDhhmm, as in RYDL"
        )
    composites = []
    for name in names:
        label, read = f"{path}:{name}", functools.partial(_read_rydl, path, name)
        with decoding(label, "expected an array named by its time"):
            time = datetime.strptime(name, "%Y%m%d%H%M")
        composites.append(Composite(time, "RYDL", FIELDS, read, label))
    return composites


def _read_rydl(path: Path, name: str) -> np.ndarray:
    values = read_hdf5(path, _open_cached(path)[name])
    # Integers are hundredths of a millimetre; negative values are missing.
    rain = values * np.float32(0.01) if values.dtype.kind in "iu" else values
    return np.where(values < 0, np.nan, rain * 12).astype(np.float32)  # mm in 5 min to mm/h


@functools.lru_cache(maxsize=4)
def _open_cached(path: Path) -> Any:
    return open_hdf5(path)


def _parse_header(path: Path, content: bytes) -> dict[str, Any]:
    match = re.match(
        r"([A-Z]{2})(\d{6})\d{5}(\d{4})BY.*?PR E([-+]\d\d)\s*"
        r"INT\s*(\d+)(U\d)?\s*GP\s*(\d+)x\s*(\d+)",
        content.partition(b"\x03")[0].decode("ascii", "replace"),
    )
    if not match:
        raise DataError(
            f"{path} is not a RADOLAN composite of rain: its header is {content[:40]!r}; expected "
            "a product such as RY, YW or RW, with PR, INT and GP"
        )
    product, day, month, precision, interval, unit, height, width = match.groups()
    return {
        "product": product,
        "time": datetime.strptime(day[:2] + month + day[2:], "%d%m%y%H%M"),
        "precision": 10.0 ** int(precision),
        "minutes": int(interval) * (1440 if unit == "U1" else 1),
        "shape": (int(height), int(width)),
    }
