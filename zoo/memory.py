"""Return freed memory to the operating system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

__all__ = ["trim"]


def trim() -> None:
    """Return freed memory to the operating system, if the C library is glibc.

    glibc keeps the holes that short-lived large arrays leave between long-lived small ones.
    Without this, the process would grow to many times its live memory in a long evaluation.
    """
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    try:
        function: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda _: None
    return function
