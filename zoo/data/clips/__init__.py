"""Small clips included in the package, to try a model without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["handwritten_digits"]


def handwritten_digits() -> np.ndarray:
    """Return two moving digits, uint8 (20, 1, 64, 64); README.md names their source."""
    with np.load(Path(__file__).parent / "handwritten_digits.npz") as file:
        return file["frames"]
