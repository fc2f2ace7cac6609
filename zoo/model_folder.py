"""What a model folder contains: config.json, weights, metrics.json and texts, validated.

Anyone may have made a model folder, so every file is checked before it is used.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from zoo.atomic import atomic_path, write_json
from zoo.config import Config
from zoo.errors import HubError, abbreviate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from safetensors import safe_open

__all__ = [
    "PARTS",
    "REQUIRED",
    "WEIGHTS",
    "check_parts",
    "count_weights",
    "missing_files",
    "open_weights",
    "parse_json",
    "parse_toml",
    "parts_of",
    "read_config",
    "read_json",
    "read_limited",
    "read_metrics",
    "read_text",
    "update_metrics",
    "writable_part",
    "write_config",
]

WEIGHTS = "model.safetensors"

#: The files of a model folder. No others are downloaded or published.
PARTS = ["config.json", "metrics.json", "*.md", "*.toml", "*.png", "*.gif", WEIGHTS]

#: The files that every model has.
REQUIRED = ["config.json", WEIGHTS]

#: The largest text file, in bytes; metrics have some thousand.
LARGEST = 4 << 20

#: The largest config, in bytes; they have some hundred.
LARGEST_CONFIG = 256 << 10

#: How many lists and tables may be within each other in a JSON file; metrics have six.
DEEPEST = 32

#: The largest recipe, in bytes; those of the zoo have some hundred. The time to parse TOML may grow
#: with the square of its size.
LARGEST_RECIPE = 16 << 10


def parts_of(folder: Path) -> list[Path]:
    """Return the model's files in a folder, hidden files excluded."""
    found = {path for part in PARTS for path in folder.glob(part)}
    return sorted(path for path in found if not path.name.startswith("."))


def missing_files(folder: Path) -> list[str]:
    """Return the required files that a folder does not contain."""
    # Unlike Path.exists, os.path.exists never raises, whatever the name and the permissions.
    return [part for part in REQUIRED if not os.path.exists(folder / part)]


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


def read_limited(path: Path, largest: int) -> bytes:
    """Read a regular file of at most `largest` bytes, without waiting for the writer of a pipe.

    Raises:
        OSError: if it is absent or not readable.
        ValueError: if it is too large, or not a regular file.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        content: bytes = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it exceeds {largest:,} bytes")
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no such flag


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Read a text file of a model folder, of at most `largest` bytes.

    Raises:
        FileNotFoundError: if it is absent.
        HubError: if it is not a regular file of the folder, not readable, not UTF-8 or too large.
    """
    check_parts(path.parent, [path])
    try:
        return read_limited(path, largest).decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise HubError(f"{path} cannot be read as text: {error}") from None


def parse_json(text: str) -> Any:
    """Parse JSON without NaN and infinity, which JSON does not have.

    Raises:
        ValueError: if it is not JSON, has a key twice, halves of characters, or more than 32 lists
            and tables within each other.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_reject_constant,
            parse_float=_parse_finite,
            object_pairs_hook=_unique,
        )
        _check_depth(value)
        if "\\u" in text:  # an escape may be half of a character, which cannot be written again
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except RecursionError:
        raise ValueError("it is too deeply nested") from None


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse a recipe.

    Raises:
        ValueError: if it is not TOML, too large or too deeply nested.
    """
    if len(content) > LARGEST_RECIPE:
        raise ValueError(f"it exceeds {LARGEST_RECIPE:,} bytes")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is too deeply nested") from None


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Read a JSON file of a model folder, of at most `largest` bytes.

    Raises:
        HubError: if it is absent or not JSON, or has a key twice, an infinite number or more than
            32 lists and tables within each other.
    """
    try:
        return parse_json(read_text(path, largest))
    except FileNotFoundError:
        raise HubError(f"{path.parent} is not a model folder: it has no {path.name}") from None
    except ValueError as error:
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


@contextmanager
def open_weights(path: Path, framework: str) -> Iterator[safe_open]:
    """Open a safetensors file for tensors of a framework, "pt" or "numpy".

    Raises:
        HubError: if it is missing, or corrupt, also where its values are read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise HubError(f"there are no weights at {path}") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise HubError(
            f"{path} is not a valid safetensors file ({reason}); pull or copy it again"
        ) from None


def count_weights(folder: Path) -> int:
    """Return the number of weights of a model folder; only their shapes are read.

    Raises:
        HubError: if they are missing or corrupt.
    """
    path = folder / WEIGHTS
    check_parts(folder, [path])
    with open_weights(path, "numpy") as file:
        names = file.keys()
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


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
        key = repr(".".join(map(str, first["loc"]))[:80]) if first["loc"] else "its root"
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

Natural = Annotated[int, Field(ge=0, le=2**63)]
Positive = Annotated[int, Field(ge=1, le=2**63)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Training(_Record):
    steps: Natural
    sequences: Natural
    minutes: float
    device: str
    torch: str
    threads: Natural = 1


class _Data(_Record):
    name: str
    split: str
    sequences: Natural
    input_frames: Positive
    horizon: Positive


class _Protocol(_Record):
    id: str


class _Cost(_Record):
    macs: Natural
    parameters: Natural
    size: Annotated[list[Natural], Field(min_length=2, max_length=2)]
    input_frames: Positive
    horizon: Positive


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
    per_frame: dict[str, dict[str, list[float | None]]] | None = None
    demo: _Demo | None = None
    cost: _Cost | None = None

    @model_validator(mode="after")
    def _check_frames(self) -> _Metrics:
        """Check that the scores are those of the frames, and of the same forecasts."""
        if self.data is None:
            return self
        frames = self.data.input_frames + self.data.horizon - 1
        curves = (self.per_frame or {}).values()
        if any(len(curve) != frames for by_metric in curves for curve in by_metric.values()):
            raise ValueError(f"per_frame needs {frames} values of each metric")
        if self.forecast and self.all_steps and self.forecast.keys() != self.all_steps.keys():
            raise ValueError("forecast and all-steps have scores of different forecasts")
        return self
