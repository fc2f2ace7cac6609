"""RADOLAN binaries of the German weather service, and the archive RYDL.hdf5."""

from __future__ import annotations

import functools
import gzip
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.composite import RAIN, Composite
from zoo.data.decoding import decoding
from zoo.errors import DataError

__all__ = ["open_radolan", "open_rydl", "read_radolan"]

NO_DATA, CLUTTER = 0x2000, 0x8000  # flags; the lower twelve bits are the value
HEADER = 1000  # bytes that contain the header
FIELDS = {**RAIN, "grid_step": 1000.0}
NOT_HDF5 = "is it complete, and HDF5?"


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
    with decoding(path):
        content = gzip.decompress(path.read_bytes()) if _is_packed(path) else path.read_bytes()
        header = _parse_header(path, content[:HEADER])
        payload = content[content.index(b"\x03") + 1 :]
        height, width = header["shape"]
        if len(payload) != 2 * height * width:
            raise DataError(
                f"{path} has {len(payload):,} bytes after the header, expected "
                f"{2 * height * width:,} ({height} × {width} cells of two bytes); download it "
                "again, or use another product"
            )
        values = np.frombuffer(payload, "<u2").reshape(height, width)[::-1]  # south comes first
        rain = (values & 0x0FFF) * np.float32(header["precision"])
        return header, np.where(values & (NO_DATA | CLUTTER), np.float32(np.nan), rain)


def open_radolan(path: Path) -> Composite:
    """Open a RADOLAN composite, gzipped or not, as the mean rain rate of its interval."""
    with decoding(path), gzip.open(path) if _is_packed(path) else path.open("rb") as file:
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
    import h5py

    with decoding(path, NOT_HDF5), h5py.File(path) as file:
        names = sorted(file)
    if wrong := [name for name in names if not re.fullmatch(r"\d{12}", name)]:
        raise DataError(
            f"{path} contains {wrong[0]!r}; expected arrays named YYYYMMDDhhmm, as in RYDL"
        )
    return [
        Composite(
            datetime.strptime(name, "%Y%m%d%H%M"),
            "RYDL",
            FIELDS,
            functools.partial(_read_rydl, path, name),
            f"{path}:{name}",
        )
        for name in names
    ]


def _read_rydl(path: Path, name: str) -> np.ndarray:
    with decoding(path, NOT_HDF5):
        values = np.asarray(_open_cached(path)[name])
    # Integers are hundredths of a millimetre; negative values are missing.
    rain = values * np.float32(0.01) if values.dtype.kind in "iu" else values
    return np.where(values < 0, np.nan, rain * 12).astype(np.float32)  # mm in 5 min to mm/h


@functools.lru_cache(maxsize=4)
def _open_cached(path: Path) -> Any:
    import h5py

    return h5py.File(path)


def _is_packed(path: Path) -> bool:
    return path.suffix == ".gz"


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
