"""The files of a model's folder: anybody may have made it, so they are checked when touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

__all__ = [
    "PARTS",
    "WEIGHTS",
    "check_parts",
    "lacking",
    "parts_of",
    "read_json",
    "read_text",
    "writable_part",
]

WEIGHTS = "model.safetensors"

#: The parts of a model's folder. Nothing else is brought from a hub or put there.
PARTS = ["config.json", "metrics.json", "*.md", "*.toml", "*.png", "*.gif", WEIGHTS]

#: Bytes of a text in a model's folder; a config has some hundred, metrics some thousand.
LARGEST = 4 << 20


def parts_of(folder: Path) -> list[Path]:
    """The parts of a model that are in a folder; hidden files are none."""
    found = {path for part in PARTS for path in folder.glob(part)}
    return sorted(path for path in found if not path.name.startswith("."))


def lacking(folder: Path) -> list[str]:
    """What a folder has not and no model can be without."""
    # Unlike Path.exists, os.path raises nothing, whatever the name and the rights.
    return [part for part in ("config.json", WEIGHTS) if not os.path.exists(folder / part)]


def check_parts(folder: Path, files: Iterable[Path]) -> None:
    """Refuse files of a model's folder that lead out of it, or are none.

    A symbolic link could make another file of this machine part of the model, a device or a
    pipe could be read for ever. Those of the Hugging Face cache, to its own blobs, are allowed.
    """
    # Unlike Path.resolve, realpath raises nothing where links lead in circles.
    real = Path(os.path.realpath(folder))
    blobs = real.parents[1] / "blobs" if len(real.parents) > 1 else real
    for file in files:
        target = Path(os.path.realpath(file))
        if file.is_symlink() and real not in target.parents and target.parent != blobs:
            raise ZooError(f"{file} is a link to {target}, outside its folder; put the file there")
        if os.path.exists(target) and not os.path.isfile(target):
            raise ZooError(f"{file} is no regular file; put the model's file there")


def read_text(path: Path) -> str:
    """Read a text of a model's folder.

    Raises FileNotFoundError where it is absent, and ZooError where it cannot be read, is too
    large to be one, is no UTF-8, or no file of the folder.
    """
    check_parts(path.parent, [path])
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ZooError(f"{path} has more than {LARGEST:,} bytes; it is no file of a model")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read as text: {error}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file of a model's folder; ZooError where it is absent or not JSON."""
    try:
        return json.loads(read_text(path), parse_constant=_no_number)
    except FileNotFoundError:
        raise ZooError(f"{path.parent} is not a model folder: it has no {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{path} cannot be read as JSON: {error}") from None


def writable_part(folder: Path, name: str) -> Path:
    """The path of a part to be written; ZooError where it is a link.

    Through a link another file would change: that of the Hub's cache, which is to stay as it
    was pulled, or any that somebody's folder leads to.
    """
    path = folder / name
    if path.is_symlink():
        raise ZooError(f"{path} is a link; copy the model and write there: cp -rL {folder} mine")
    return path


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")
