"""GRIB messages, decoded by ecCodes in a process of its own.

ecCodes aborts the process, or crashes, on some damaged messages. :mod:`zoo.data.grib` runs
:func:`main` in a child process, whose memory and processor time are limited.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError
from zoo.inputs import check_bytes, check_frames, check_values, input_limit, open_bytes

#: Processor seconds for a request; decoding 25 million values takes one.
SECONDS = 60

#: Copies of the values that decoding makes, and bytes of the interpreter and the libraries.
COPIES, OVERHEAD = 4, 2**30

#: Values that the zoo reads although ecCodes does not know them, by discipline, category and
#: number: name and unit. Below 0 they are missing. These are of the US radar composites (MRMS).
LOCAL = {(209, 6, 1): ("PrecipRate", "mm/h")}

#: Seconds of the units of time (code table 4.4).
UNITS = {0: 60, 1: 3600, 2: 86400, 13: 1}

#: Value of missing cells while decoding.
MISSING = 9.999e20


def main() -> None:
    """Answer the requests on standard input, a JSON list of paths or of [path, number of message].

    Writes to standard output, for paths, a JSON list with a list of descriptions for each; for
    messages, their values as float32, one after another. Otherwise the status is 1 and the last
    line is {"error": …}, or {"refused": …} with a message for the user.
    """
    _limit(memory=True)
    output = sys.stdout.buffer
    requests = json.loads(sys.stdin.read())
    try:
        if isinstance(requests[0], str):
            output.write(json.dumps([_describe_all(Path(path)) for path in requests]).encode())
        else:
            for path, number in requests:
                output.write(_read(Path(path), number).tobytes())
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        kind = "refused" if isinstance(error, DataError) else "error"
        output.write(f"\n{json.dumps({kind: reason})}".encode())
        raise SystemExit(1) from None


def _limit(*, memory: bool = False) -> None:
    """Limit the processor time of the next request, and the memory of the process."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limits = {resource.RLIMIT_CPU: int(time.process_time()) + SECONDS}
    if memory:
        limits[resource.RLIMIT_AS] = OVERHEAD + COPIES * input_limit()
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError, OSError):  # macOS does not limit memory
            resource.setrlimit(which, (most, hard))


def _messages(path: Path) -> Iterator[bytes]:
    """Yield the messages of a file."""
    _limit()
    with open_bytes(path) as file:
        content = file.read(input_limit() + 1)
    check_bytes(path, len(content))
    start = content.find(b"GRIB")
    while start >= 0:
        head = content[start : start + 16]
        length = int.from_bytes(head[8:16] if head[7:8] == b"\2" else head[4:7], "big")
        message = content[start : start + length]
        if len(message) < max(length, 16):
            raise DataError(
                f"{path} has {len(content) - start:,} bytes from message at {start:,} on, expected "
                f"{length:,}; download it again"
            )
        yield message
        start = content.find(b"GRIB", start + length)


def _describe_all(path: Path) -> list[dict[str, Any]]:
    """Describe all messages of a file."""
    described = []
    for number, message in enumerate(_messages(path)):
        check_frames(path, number + 1)
        described.append(_with_message(message, lambda get: _describe(path, get)))
    return described


def _with_message(message: bytes, use: Callable[[Callable[..., Any]], Any]) -> Any:
    """Call `use` with a function that returns the value of a key, or a default."""
    import eccodes

    handle = eccodes.codes_new_from_message(message)
    try:

        def get(key: str, default: Any = 0) -> Any:
            if key == "values":
                eccodes.codes_set(handle, "missingValue", MISSING)
                return eccodes.codes_get_values(handle)
            try:
                return eccodes.codes_get(handle, key, type(default))
            except eccodes.KeyValueNotFoundError:
                return default

        return use(get)
    finally:
        eccodes.codes_release(handle)


def _describe(path: Path, get: Callable[..., Any]) -> dict[str, Any]:
    """Describe a message, with the size of its grid checked."""
    height, width = _shape(path, get)
    name, unit, _ = _quantity(get)
    date, clock = get("validityDate", 0), get("validityTime", 0)
    end = datetime.strptime(f"{date:08}{clock:04}", "%Y%m%d%H%M")
    length = get("endStep", 0) - get("startStep", 0)
    if not length:  # the time of validity has minutes
        end += timedelta(seconds=get("second", 0))
    corners = [
        get(f"{axis}Of{which}GridPointInDegrees", 0.0)
        for which in ("First", "Last")
        for axis in ("latitude", "longitude")
    ]
    return {
        "name": name,
        "unit": unit,
        "time": end.isoformat(),
        "interval": max(0, length) * UNITS.get(get("stepUnits", 0), 0),
        "grid_step": get("DxInMetres", 0.0),
        "size": (height, width),
        "place": [
            f"{height}×{width} cells",
            f"{get('gridType', '')} from {corners[0]:g}, {corners[1]:g} to {corners[2]:g}, "
            f"{corners[3]:g} ({get('md5GridSection', '')})",
        ],
    }


def _quantity(get: Callable[..., Any]) -> tuple[str, str, bool]:
    """Return name and unit of the values, and whether negative ones are missing."""
    code = (get("discipline", -1), get("parameterCategory", -1), get("parameterNumber", -1))
    if code in LOCAL:
        return *LOCAL[code], True
    name = get("shortName", "unknown")
    return ("-".join(map(str, code)) if name == "unknown" else name), get("units", "1"), False


def _shape(path: Path, get: Callable[..., Any]) -> tuple[int, int]:
    """Return height and width of a grid whose values are in rows."""
    height, width, count = get("Nj", 0), get("Ni", 0), get("numberOfDataPoints", 0)
    odd = get("jPointsAreConsecutive", 0) or get("alternativeRowScanning", 0)
    if height < 1 or width < 1 or height * width != count or odd:
        raise DataError(
            f"{path} has {count} values on a grid {get('gridType', '')} of {height} × {width}; "
            "expected a rectangular grid, row by row"
        )
    check_values(path, height, width)
    return height, width


def _read(path: Path, number: int) -> np.ndarray:
    """Read the values of a message, (H, W), north up, NaN where missing."""
    for index, message in enumerate(_messages(path)):
        if index == number:
            return np.ascontiguousarray(_with_message(message, lambda get: _values(path, get)))
    raise DataError(f"{path} has no message {number}; was it changed?")


def _values(path: Path, get: Callable[..., Any]) -> np.ndarray:
    shape, negative_is_missing = _shape(path, get), _quantity(get)[2]
    values = get("values")
    if values.size != shape[0] * shape[1]:
        raise DataError(f"{path} has {values.size:,} values on {shape[0]} × {shape[1]} cells")
    values = values.astype(np.float32).reshape(shape)
    values[values >= np.float32(MISSING)] = np.nan
    if negative_is_missing:
        values[values < 0] = np.nan
    values = values[::-1] if get("jScansPositively", 0) else values
    return values[:, ::-1] if get("iScansNegatively", 0) else values
