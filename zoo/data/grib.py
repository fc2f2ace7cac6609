"""Grids in GRIB files, one message a time and quantity."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from zoo.data.composite import Composite, describe_values
from zoo.errors import DataError
from zoo.extras import suggest_extra
from zoo.inputs import check_file, check_frames

__all__ = ["GRIB", "open_grib"]

#: Suffixes of GRIB files.
GRIB = (".grib2", ".grb2", ".grib", ".grb")

DECODER = """
import sys
sys.path[:] = {path!r}
from zoo.data.grib_decoder import main
main(*sys.argv[1:])
"""


class _Message(BaseModel):
    """A description of a message, as the decoder writes it."""

    name: str
    unit: str
    time: datetime
    interval: Annotated[float, Field(ge=0)]
    grid_step: Annotated[float, Field(ge=0)]
    place: tuple[str, str]
    size: tuple[int, int]


def open_grib(path: Path, variable: str | None = None) -> list[Composite]:
    """Open the grids of a GRIB file, edition 1 or 2, gzipped or not.

    Args:
        path: The file.
        variable: The ecCodes short name of the quantity; by default all.

    Raises:
        ConfigError: If ecCodes is not installed.
        DataError: If the file is corrupt, or a grid is not rectangular or exceeds the limit.
    """
    try:
        messages = TypeAdapter(list[_Message]).validate_json(_decode(path, "list"))
    except ValidationError as error:
        raise DataError(f"{path}: {error.errors()[0]['msg']}; download it again") from None
    check_frames(path, len(messages))
    composites = []
    for number, message in enumerate(messages):
        if variable not in (None, message.name):
            continue
        interval = timedelta(seconds=message.interval)
        fields, factor = describe_values(message.name, message.unit, interval)
        if message.grid_step:
            fields["grid_step"] = message.grid_step
        read = functools.partial(_read, path, number, message.size, factor)
        label = f"{path}, message {number}" if len(messages) > 1 else str(path)
        composites.append(Composite(message.time, message.name, fields, read, label, message.place))
    return composites


def _read(path: Path, number: int, size: tuple[int, int], factor: float) -> np.ndarray:
    """Read a grid (H, W), north up, as float32."""
    values = np.frombuffer(_decode(path, "read", str(number)), np.float32)
    if values.size != size[0] * size[1]:
        raise DataError(f"{path} has {values.size:,} values, expected {size[0]} × {size[1]}")
    return np.asarray(values.reshape(size) * np.float32(factor))


def _decode(path: Path, *arguments: str) -> bytes:
    """Return what the decoder writes about a file, from a process of its own."""
    if find_spec("eccodes") is None:
        with suggest_extra():
            raise ModuleNotFoundError("No module named 'eccodes'", name="eccodes")
    check_file(path)
    command, *numbers = arguments
    program = DECODER.format(path=sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", program, command, str(path.absolute()), *numbers],
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    if ran.returncode == 0:
        return ran.stdout
    try:
        problem = json.loads(ran.stdout)
    except ValueError:
        problem = {"error": f"the decoder ended with status {ran.returncode}"}
    if "refused" in problem:
        raise DataError(problem["refused"])
    raise DataError(f"{path}: could not be read ({problem['error'][:200]}); download it again")
