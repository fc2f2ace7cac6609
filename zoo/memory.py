"""Memory that is free, given back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

__all__ = ["trim"]


def trim() -> None:
    """Give freed memory back to the system, where its C library can (glibc).

    Large arrays that come and go between small ones that stay leave holes, which glibc keeps: a
    long evaluation of large frames would grow to many times of what it uses.
    """
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    try:
        function: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda _: None
    return function
