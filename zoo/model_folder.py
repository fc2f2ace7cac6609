"""What a model folder contains: config.json, weights, metrics.json and texts, validated.

Anyone may have made a model folder, so every file is checked before it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from zoo.atomic import atomic_path, write_json
from zoo.config import Config
from zoo.errors import HubError

__all__ = [
    "EVAL_RESULTS",
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
    "write_config",
]

WEIGHTS = "model.safetensors"

#: Scores for leaderboards of the Hub, in a folder with the name that the Hub expects.
EVAL_RESULTS = ".eval_results/*.yaml"

#: The files of a model folder. No others are downloaded or published.
PARTS = ["config.json", "metrics.json", "*.md", "*.toml", "*.png", "*.gif", WEIGHTS, EVAL_RESULTS]

#: The largest text file, in bytes; a config has some hundred, metrics some thousand.
LARGEST = 4 << 20


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


def read_text(path: Path) -> str:
    """Read a text file of a model folder.

    Raises:
        FileNotFoundError: if it is absent.
        HubError: if it is not a regular file of the folder, not readable, not UTF-8 or too large.
    """
    check_parts(path.parent, [path])
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise HubError(f"{path} is not a file of a model: it exceeds {LARGEST:,} bytes")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise HubError(f"{path} cannot be read as text: {error}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file of a model folder.

    Raises:
        HubError: if it is absent or not JSON.
    """
    try:
        return json.loads(read_text(path), parse_constant=_reject_constant)
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
    values = read_json(path)
    if isinstance(values, dict) and values.get("format", 1) != 1:
        raise HubError(
            f"{path} has format {values['format']!r}, this zoo reads format 1; "
            "upgrade it: pip install -U spatiotemporal-zoo"
        )
    return Config.parse(values, source=str(path))


def write_config(folder: Path, config: Config) -> None:
    """Write config.json of a model folder, atomically."""
    with atomic_path(folder / "config.json") as temporary:
        temporary.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


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
    raise ValueError(f"{text} is not a valid JSON number")


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
