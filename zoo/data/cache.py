"""A cache of arrays that is bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

__all__ = ["ArrayCache"]


class ArrayCache:
    """The most recently used arrays, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self.arrays

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return an array, made if it is not in the cache."""
        if key in self.arrays:
            self.arrays.move_to_end(key)
            return self.arrays[key]
        array = make()
        self.put(key, array)
        return array

    def put(self, key: Hashable, array: np.ndarray) -> None:
        """Add an array, and drop those used least recently."""
        if key not in self.arrays:
            self.arrays[key] = array
            self.bytes += array.nbytes
        while self.bytes > self.limit:
            _, oldest = self.arrays.popitem(last=False)
            self.bytes -= oldest.nbytes
