"""The clips that come with the zoo."""

import numpy as np
import pytest

from zoo.data.clips import handwritten_digits, walking_person
from zoo.data.clips.drawing import draw_clip


@pytest.mark.parametrize("clip", [handwritten_digits, walking_person])
def test_clips_are_uint8_frames(clip):
    frames = clip()
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (1, 64, 64)
    assert len(frames) == 20


def test_the_person_walks_to_the_right():
    frames = draw_clip(frames=30).astype(float)[:, 0]  # (T, H, W)
    background = np.median(frames, axis=0)
    hidden = np.abs(frames - background).sum(axis=1)  # (T, W): where the person is
    centers = (hidden * np.arange(64)).sum(axis=1) / hidden.sum(axis=1)
    assert centers[-1] - centers[0] > 20
    assert (np.diff(centers) > 0).mean() > 0.9


def test_the_camera_is_fixed():
    frames = draw_clip()
    assert (frames[:, :, :16] == frames[0, :, :16]).all()  # above the person's head


def test_the_person_is_drawn_at_any_size():
    assert draw_clip(frames=3, size=128).shape == (3, 1, 128, 128)
