"""zoo demo: the clip fits the model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.baselines import persistence
from zoo.data import clips


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model trained on "ball" with 3 input frames, and a clip of a ball."""
    frames = np.zeros((5, 1, 16, 16), np.uint8)
    for t in range(5):
        frames[t, 0, 4:8, t : t + 4] = 255
    monkeypatch.setitem(clips.CLIPS, "ball", lambda: frames)
    data = {"name": "ball", "input_frames": 3}
    folder = zoo.save(zoo.create("convlstm", hidden=2, layers=2, data=data), tmp_path / "ball")
    return f"local-dir:{folder}"


def test_clip_is_chosen_by_data_set(model: str) -> None:
    assert clips.demo_clip("ball").shape == (5, 1, 16, 16)
    for name in ("mmnist", "kth-of-my-own", None):
        np.testing.assert_array_equal(clips.demo_clip(name), clips.handwritten_digits())


def test_demo_reads_the_input_frames_of_the_model(model: str, tmp_path: Path, cli: Any) -> None:
    report = json.loads(cli.succeed("demo", model, "-o", tmp_path / "out", "--json"))
    clip = torch.as_tensor(clips.demo_clip("ball"))[None] / 255  # (1, T, C, H, W)
    error = (persistence(clip[:, :3], 2)[:, -2:] - clip[:, 3:]) ** 2
    expected = float(error.sum(dim=(2, 3, 4)).mean())  # (1, T, C, H, W) to (1, T)
    assert report["forecast"]["persistence"]["mse"] == pytest.approx(expected)
    assert "t+1 … t+2" in cli.succeed("demo", model, "-o", tmp_path / "out")
