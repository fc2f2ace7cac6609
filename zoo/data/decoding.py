"""Errors of files that cannot be read or written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import DataError, ZooError

__all__ = ["decoding"]


@contextmanager
def decoding(
    path: str | Path, hint: str = "download it again", verb: str = "read"
) -> Iterator[None]:
    """Raise whatever a library raises about a file as a DataError of one line.

    Libraries raise exceptions of many classes for bytes that they do not expect.

    Args:
        path: The file.
        hint: What to check, or how to fix it.
        verb: "read" or "written".
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        reason = str(getattr(error, "strerror", None) or error)
        if "pickle" in reason:  # NumPy suggests an unsafe way to load it
            reason = "it contains Python objects or is not a NumPy file"
        first_line = (reason or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: could not be {verb} ({first_line}); {hint}") from error
