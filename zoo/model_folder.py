"""What a model folder contains: config.json, weights, metrics.json and texts, validated.

Anyone may have made a model folder, so every file is checked before it is used.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from zoo.atomic import write_json
from zoo.config import Config
from zoo.errors import HubError, abbreviate

__all__ = [
    "PARTS",
    "WEIGHTS",
    "check_parts",
    "missing_files",
    "parts_of",
    "read_config",
    "read_json",
    "read_metrics",
    "read_text",
    "update_metrics",
    "writable_part",
]

WEIGHTS = "model.safetensors"

#: The files of a model folder. No others are downloaded or published.
PARTS = ["config.json", "metrics.json", "*.md", "*.toml", "*.png", "*.gif", WEIGHTS]

#: The largest text file, in bytes; metrics have some thousand.
LARGEST = 4 << 20

#: The largest config, in bytes; they have some hundred.
LARGEST_CONFIG = 256 << 10

#: How many lists and tables may be within each other in a JSON file; metrics have six.
DEEPEST = 32


def parts_of(folder: Path) -> list[Path]:
    """Return the model's files in a folder, hidden files excluded."""
    found = {path for part in PARTS for path in folder.glob(part)}
    return sorted(path for path in found if not path.name.startswith("."))


def missing_files(folder: Path) -> list[str]:
    """Return the required files that a folder does not contain."""
    # Unlike Path.exists, os.path.exists never raises, whatever the name and the permissions.
    return [part for part in ("config.json", WEIGHTS) if not os.path.exists(folder / part)]


def check_parts(folder: Path, files: Iterable[Path]) -> None:
    """Reject symbolic links that leave the model folder, and anything but regular files.

    A link could make any file of this machine part of the model; a device or a pipe could be
    read forever. Links of the Hugging Face cache to its own blobs are allowed.
    """
    # Unlike Path.resolve, realpath does not raise on circular links.
    real = Path(os.path.realpath(folder))
    blobs = real.parents[1] / "blobs" if len(real.parents) > 1 else real
    for file in files:
        target = Path(os.path.realpath(file))
        if file.is_symlink() and real not in target.parents and target.parent != blobs:
            raise HubError(f"{file} links to {target}, outside its folder; copy the file there")
        if os.path.exists(target) and not os.path.isfile(target):
            raise HubError(f"{file} is not a regular file; replace it with the model's file")


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Read a text file of a model folder, of at most `largest` bytes.

    Raises:
        FileNotFoundError: if it is absent.
        HubError: if it is not a regular file of the folder, not readable, not UTF-8 or too large.
    """
    check_parts(path.parent, [path])
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise HubError(f"{path} is not a file of a model: it exceeds {largest:,} bytes")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise HubError(f"{path} cannot be read as text: {error}") from None


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Read a JSON file of a model folder, of at most `largest` bytes.

    Raises:
        HubError: if it is absent or not JSON, or has a key twice, an infinite number or more than
            32 lists and tables within each other.
    """
    try:
        text = read_text(path, largest)
        value = json.loads(
            text,
            parse_constant=_reject_constant,
            parse_float=_parse_finite,
            object_pairs_hook=_unique,
        )
        _check_depth(value)
        return value
    except FileNotFoundError:
        raise HubError(f"{path.parent} is not a model folder: it has no {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise HubError(f"{path} cannot be read as JSON: {error}") from None


def read_config(folder: Path) -> Config:
    """Read config.json of a model folder.

    Raises:
        HubError: if it is absent, not JSON, or of another version.
        ConfigError: if it is not a valid config.
    """
    path = folder / "config.json"
    values = read_json(path, LARGEST_CONFIG)
    if isinstance(values, dict) and values.get("format", 1) != 1:
        raise HubError(
            f"{path} has format {abbreviate(values['format'])}, this zoo reads format 1; "
            "upgrade it: pip install -U spatiotemporal-zoo"
        )
    return Config.parse(values, source=str(path))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read metrics.json of a model folder; {} if there is none.

    Raises:
        HubError: if it is not what ``zoo train`` and ``zoo eval`` write.
    """
    path = folder / "metrics.json"
    if not os.path.lexists(path):
        return {}
    metrics: dict[str, Any] = read_json(path)
    try:
        _Metrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "its root"
        raise HubError(
            f"{path} is not what zoo train and zoo eval write ({key}: {first['msg']}); "
            "delete it and evaluate the model again: zoo eval --save"
        ) from None
    return metrics


def update_metrics(folder: Path, **values: Any) -> None:
    """Write values to metrics.json of a model folder; its other values stay."""
    path, metrics = writable_part(folder, "metrics.json"), read_metrics(folder)
    write_json(path, metrics | values)


def writable_part(folder: Path, name: str) -> Path:
    """Return the path of a file to be written.

    Writing through a link would change another file: one of the Hub's cache, which must stay as
    downloaded, or whichever file the link leads to.

    Raises:
        HubError: if the file is a symbolic link.
    """
    path = folder / name
    if path.is_symlink():
        raise HubError(f"{path} is a link; copy the model and write there: cp -rL {folder} mine")
    return path


def _reject_constant(text: str) -> Any:
    raise ValueError(f"{text[:80]} is not a valid JSON number")


def _parse_finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _reject_constant(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of JSON. Each key must occur once: readers differ in which of several counts."""
    table = dict(pairs)
    if len(table) < len(pairs):
        [(repeated, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {repeated[:80]!r} occurs more than once")
    return table


def _check_depth(value: Any) -> None:
    """Reject what code that follows the structure could not follow to its end."""
    level = [value]
    for _ in range(DEEPEST):
        tables = [item for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        level = [item for table in tables for item in table.values()]
        level += [item for items in lists for item in items]
        if not level:
            return
    raise ValueError(f"more than {DEEPEST} lists and tables within each other")


# The values of metrics.json that the zoo relies on. There may be more.


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Training(_Record):
    steps: int
    sequences: int
    minutes: float
    device: str
    torch: str
    threads: int = 1


class _Data(_Record):
    name: str
    split: str
    sequences: int
    input_frames: int
    horizon: int


class _Protocol(_Record):
    id: str


class _Cost(_Record):
    macs: int
    parameters: int
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    input_frames: int
    horizon: int


class _Errors(_Record):
    mse: float


class _Demo(_Record):
    model: _Errors
    persistence: _Errors


def _require_persistence(scores: dict[str, Any]) -> dict[str, Any]:
    if missing := {"model", "persistence"} - scores.keys():
        raise ValueError(f"{' and '.join(sorted(missing))} missing")
    return scores


_Scores = Annotated[dict[str, dict[str, float | None]], AfterValidator(_require_persistence)]


class _Metrics(_Record):
    training: _Training | None = None
    data: _Data | None = None
    protocol: _Protocol | None = None
    forecast: _Scores | None = None
    all_steps: Annotated[_Scores | None, Field(alias="all-steps")] = None
    demo: _Demo | None = None
    cost: _Cost | None = None
