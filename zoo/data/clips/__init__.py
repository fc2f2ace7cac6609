"""Short clips that come with the zoo, to try a model without a download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["demo_clip", "handwritten_digits", "walking_person"]


def handwritten_digits() -> np.ndarray:
    """Return two moving handwritten digits, uint8 (20, 1, 64, 64); README.md names the source."""
    with np.load(Path(__file__).parent / "handwritten_digits.npz") as file:
        return file["frames"]


def walking_person() -> np.ndarray:
    """Return a drawn person who walks past a fixed camera, uint8 (20, 1, 64, 64)."""
    from zoo.data.clips.drawing import draw_clip

    return draw_clip(frames=20)


#: Clips by the data set that they resemble.
CLIPS: dict[str, Callable[[], np.ndarray]] = {"kth": walking_person, "mmnist": handwritten_digits}


def demo_clip(dataset: str | None) -> np.ndarray:
    """Return a clip for models trained on `dataset`, uint8 (T, C, H, W); by default digits."""
    return CLIPS.get(dataset or "", handwritten_digits)()
