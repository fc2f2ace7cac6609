"""Short clips that come with the zoo, to try a model without a download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["demo_clip", "handwritten_digits"]


def handwritten_digits() -> np.ndarray:
    """Return two moving handwritten digits, uint8 (20, 1, 64, 64); README.md names the source."""
    with np.load(Path(__file__).parent / "handwritten_digits.npz") as file:
        return file["frames"]


#: Clips by the data set that they resemble.
CLIPS: dict[str, Callable[[], np.ndarray]] = {"mmnist": handwritten_digits}


def demo_clip(dataset: str | None) -> np.ndarray:
    """Return a clip for models trained on `dataset`, uint8 (T, C, H, W); by default digits."""
    return CLIPS.get(dataset or "", handwritten_digits)()
