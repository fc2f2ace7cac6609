"""Small clips that come with the zoo, to try a model on without any download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["handwritten_digits"]


def handwritten_digits() -> np.ndarray:
    """Two moving handwritten digits, uint8 (20, 1, 64, 64); its source stands in README.md."""
    with np.load(Path(__file__).parent / "handwritten_digits.npz") as file:
        return file["frames"]
