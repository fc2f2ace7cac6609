"""The records that a run keeps in its folder, validated when they are read.

Anyone may have made the folder, and a power cut may have damaged it. This module does not import
torch, so that runs are listed quickly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import ZooError
from zoo.model_folder import read_limited
from zoo.train.recipe import Natural, Positive

__all__ = ["is_number", "log_lines", "read_progress", "read_starts"]

#: The largest log, in bytes; a line has some hundred.
LARGEST_LOG = 64 << 20

#: The largest progress.json and run.json, in bytes.
LARGEST = 4 << 20


def log_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Read log.jsonl: each line as text, and its values if it is a line that ``zoo train`` writes.

    Raises:
        ZooError: if the file is too large or not readable; an absent one has no lines.
    """
    try:
        content = read_limited(path, LARGEST_LOG)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read: {error}; move it away") from None
    # After a power cut the file may end in arbitrary bytes.
    for line in content.decode("utf-8", errors="replace").splitlines(keepends=True):
        yield line, _parse_line(line)


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """Read progress.json of a checkpoint.

    Raises:
        ZooError: if it is absent or not what ``zoo train`` writes.
    """
    path = checkpoint / "progress.json"
    try:
        progress: dict[str, Any] = json.loads(read_limited(path, LARGEST))
        _Progress.model_validate(progress)
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"{path} is not what zoo train writes ({_reason(error)})") from None
    return progress


def read_starts(path: Path) -> list[dict[str, Any]]:
    """Read the starts of a run from run.json; [] if it is absent or damaged."""
    try:
        starts: list[dict[str, Any]] = json.loads(read_limited(path, LARGEST))["starts"]
        _Starts.model_validate({"starts": starts})
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return starts


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return values if isinstance(step, int) and is_number(step) and step >= 0 else None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())


class _Progress(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    step: Natural
    steps: Positive
    seconds: Annotated[float, Field(ge=0, le=1e12)]
    loss: float
    skipped: Natural
    best: Annotated[float, Field(allow_inf_nan=False)] | None
    best_step: Natural | None
    unlogged: Annotated[list[float], Field(min_length=2, max_length=2)]
    recipe: dict[str, Any] = {}


def _check_name(name: str) -> str:
    if not name.isprintable():
        raise ValueError("not a key of a recipe")
    return name


class _Start(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    step: Natural
    changed: dict[
        Annotated[str, AfterValidator(_check_name)],
        Annotated[list[Any], Field(min_length=2, max_length=2)],
    ] = {}


class _Starts(BaseModel):
    starts: list[_Start]
