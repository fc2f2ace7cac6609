"""Files and folders that appear whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

__all__ = ["atomic_folder", "atomic_path", "make_folder", "write_json"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and make it `path` when the block succeeds.

    The temporary path has the suffix of `path` and does not exist yet. When the block
    raises, it is removed and an existing `path` stays as it was. A symbolic link is followed.
    The block should only write: an OSError in it is told as a ZooError about `path`.
    """
    target, temporary = _beside(path)
    try:
        with _writing(path):
            yield temporary
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, and make it `path` when the block succeeds.

    It replaces an existing folder with all that is in it; when the block raises, that
    folder stays as it was. A symbolic link is followed. The block should only write: an
    OSError in it is told as a ZooError about `path`.
    """
    target, temporary = _beside(path)
    aside = temporary.with_name(f"{temporary.name}-old")
    if os.path.isfile(target):
        raise ZooError(f"{path}: is a file, expected a folder or a new name; choose another name")
    try:
        with _writing(path):
            temporary.mkdir()
            yield temporary
            # Two renames: no system replaces a full folder in one.
            if target.exists():
                target.rename(aside)
            try:
                temporary.rename(target)
            except BaseException:
                if aside.exists():
                    aside.rename(target)
                raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: str | Path) -> Path:
    """Make a folder with its parents, if it is not there; ZooError where it cannot be."""
    with _writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def _beside(path: str | Path) -> tuple[Path, Path]:
    """Return the true target and a new hidden name in its folder, which must exist."""
    target = Path(os.path.realpath(path))
    if not os.path.isdir(target.parent):
        raise ZooError(f"{path}: {Path(path).parent} is not a folder; mkdir -p {Path(path).parent}")
    # Not from tempfile: its files are readable by their owner alone, and would stay so.
    return target, target.with_name(f".{uuid.uuid4().hex[:12]}{target.suffix}")


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ZooError(
            f"{path}: could not be written ({reason}); choose a place that is writable"
        ) from error


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as an indented JSON file, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
