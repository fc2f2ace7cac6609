"""Grids in GRIB files, one message a time and quantity."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter

from zoo.data.composite import Composite, describe_values
from zoo.errors import DataError
from zoo.extras import suggest_extra
from zoo.inputs import check_file, check_values, decoding

__all__ = ["GRIB", "GribGrid", "open_grib", "read_grids"]

#: Suffixes of GRIB files.
GRIB = (".grib2", ".grb2", ".grib", ".grb")

DECODER = """
import sys
sys.path[:] = {path!r}
from zoo.data.grib_decoder import main
main()
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


@dataclass(frozen=True)
class GribGrid:
    """A grid in a GRIB file, read when called.

    Attributes:
        path: The file.
        number: Number of the message.
        size: Height and width.
        factor: Factor of the values.
    """

    path: Path
    number: int
    size: tuple[int, int]
    factor: float

    def __call__(self) -> np.ndarray:
        """Return the grid (H, W), north up, as float32."""
        return read_grids([self])[0]


def open_grib(paths: Sequence[Path], variable: str | None = None) -> list[Composite]:
    """Open the grids of GRIB files, edition 1 or 2, gzipped or not.

    Args:
        paths: The files.
        variable: The ecCodes short name of the quantity; by default all.

    Raises:
        ConfigError: If ecCodes is not installed.
        DataError: If a file is corrupt, or a grid is not rectangular or exceeds the limit.
    """
    for path in paths:
        check_file(path)
    content = _decode(paths, [str(path.absolute()) for path in paths])
    with decoding(paths[0].parent):
        described = TypeAdapter(list[list[_Message]]).validate_json(content)
    composites = []
    for path, messages in zip(paths, described, strict=True):
        for number, message in enumerate(messages):
            if variable not in (None, message.name):
                continue
            interval = timedelta(seconds=message.interval)
            fields, factor = describe_values(message.name, message.unit, interval)
            fields |= {"grid_step": message.grid_step} if message.grid_step else {}
            read = GribGrid(path, number, message.size, factor)
            label = f"{path}, message {number}" if len(messages) > 1 else str(path)
            composites.append(
                Composite(message.time, message.name, fields, read, label, message.place)
            )
    return composites


def read_grids(grids: Sequence[GribGrid]) -> list[np.ndarray]:
    """Read grids (H, W), north up, as float32. All at once take one process."""
    sizes = [math.prod(grid.size) for grid in grids]
    check_values(grids[0].path, sum(sizes))
    requests = [[str(grid.path.absolute()), grid.number] for grid in grids]
    content = _decode([grid.path for grid in grids], requests)
    with decoding(grids[0].path, "was it changed?"):
        values = np.frombuffer(content, np.float32, sum(sizes))
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return [
        part.reshape(grid.size) * np.float32(grid.factor)
        for part, grid in zip(parts, grids, strict=True)
    ]


def _decode(paths: Sequence[Path], requests: Sequence[Any]) -> bytes:
    """Return what the decoder answers to requests about files, in a process of its own."""
    if find_spec("eccodes") is None:
        with suggest_extra():
            raise ModuleNotFoundError("No module named 'eccodes'", name="eccodes")
    program = [sys.executable, "-c", DECODER.format(path=sys.path)]
    ran = subprocess.run(program, input=json.dumps(requests).encode(), capture_output=True)
    if ran.returncode == 0:
        return ran.stdout
    if len(requests) > 1:  # find out which one fails
        for path, request in zip(paths, requests, strict=True):
            _decode([path], [request])
    try:
        problem = json.loads(ran.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        problem = {"error": f"its decoder ended with status {ran.returncode}"}
    if "refused" in problem:
        raise DataError(problem["refused"])
    raise DataError(f"{paths[0]}: could not be read ({problem['error'][:200]}); download it again")
