"""Atomic writes: a file or folder appears complete or not at all, even after a power cut."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, ZooError

__all__ = ["atomic_folder", "atomic_path", "make_folder", "remove_leftovers", "write_json"]

#: Seconds after which a temporary file or folder is certainly left over from a killed process.
STALE = 24 * 60 * 60


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` and rename it to `path` if the block succeeds.

    The temporary path has the suffix of `path` and does not exist yet. If the block raises, the
    temporary file is removed and an existing `path` is unchanged. Symbolic links are followed.

    Args:
        path: The file to write.

    Raises:
        ZooError: If `path` cannot be written. An OSError raised by the block counts as that, so
            the block should only write.
    """
    target, temporary = _temporary_for(path)
    try:
        with _writing(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
    remove_leftovers(target)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder next to `path` and rename it if the block succeeds.

    An existing folder at `path` is replaced with all its contents; if the block raises, it is
    unchanged. Symbolic links are followed.

    Args:
        path: The folder to write.

    Raises:
        ZooError: If `path` is not a folder or cannot be written. An OSError raised by the block
            counts as that, so the block should only write.
    """
    target, temporary = _temporary_for(path)
    replaced = temporary.with_name(f"{temporary.name}-old")
    if os.path.exists(target) and not os.path.isdir(target):
        raise ConfigError(f"{path} is a file; expected a folder or a new name")
    try:
        with _writing(path):
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            # Two renames, because a folder that is not empty cannot be replaced in one.
            if target.exists():
                os.replace(target, replaced)
            try:
                os.replace(temporary, target)
            except BaseException:
                if replaced.exists():
                    os.replace(replaced, target)
                raise
            _sync(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    remove_leftovers(target)


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents, if they do not exist yet.

    Raises:
        ZooError: If the folder cannot be created.
    """
    with _writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def remove_leftovers(target: Path, age: float = STALE) -> None:
    """Remove what killed processes left behind when they wrote the same target.

    Args:
        target: The file or folder that they wrote, without links in its path.
        age: Seconds since their last write; 0 if no other process can be writing.
    """
    for path in target.parent.glob(f".{_prefix(target)}*"):
        try:
            if time.time() - path.lstat().st_mtime < age:
                continue  # another process may be writing it
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError:  # it is gone, or not ours
            continue


def _temporary_for(path: str | Path) -> tuple[Path, Path]:
    """Return the target with links resolved, and a new hidden name in its existing folder."""
    target = Path(os.path.realpath(path))
    if not os.path.isdir(target.parent):
        parent = Path(path).parent
        raise ConfigError(f"{path}: {parent} is not a folder; create it: mkdir -p {parent}")
    # Not the tempfile module: its files stay readable by their owner only.
    return target, target.with_name(f".{_prefix(target)}{uuid.uuid4().hex[:6]}{target.suffix}")


def _prefix(target: Path) -> str:
    """Return what the names of all temporary paths of a target begin with, after the dot."""
    return sha256(os.fsencode(target.name)).hexdigest()[:6]


def _sync(path: Path) -> None:
    """Force a file's contents, or a folder's list of entries, to the disk."""
    if os.name == "nt":  # where folders and read-only files cannot be synced
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Force a folder with all its files and subfolders to the disk."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in [*files, *folders]:
            path = Path(parent, name)
            if not path.is_symlink():
                _sync(path)
    _sync(folder)


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ZooError(
            f"{path}: could not be written ({reason}); choose a writable place"
        ) from error


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as an indented JSON file, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
