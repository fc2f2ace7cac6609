"""Augmentation: what each change does, and that it depends only on seed, step and row."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import RECIPE, assert_same
from torch import Tensor

from zoo.config import Data
from zoo.errors import ConfigError
from zoo.train import engine
from zoo.train.augment import augment
from zoo.train.recipe import Recipe

ROWS = 64


def recipe(seed: int = 0, **changes: Any) -> Recipe:
    train = {"steps": 1, "batch_size": ROWS, "seed": seed}
    model, data = {"name": "mslstm"}, {"name": "mmnist"}
    return Recipe.parse(
        {"model": model, "data": data, "train": train, "augment": changes}, source="test"
    )


def augment_all(sequences: Tensor, recipe: Recipe, step: int = 0) -> Tensor:
    return augment(sequences, recipe, step, [*range(len(sequences))])


@pytest.fixture
def sequence() -> Tensor:
    """A sequence (T, C, H, W) whose pixels all differ, from 0.4 to 0.6."""
    return torch.linspace(0.4, 0.6, 2 * 3 * 4 * 4).view(2, 3, 4, 4)


@pytest.fixture
def batch(sequence: Tensor) -> Tensor:
    """The same sequence in every row."""
    return sequence.repeat(ROWS, 1, 1, 1, 1)


def count(batch: Tensor, sequence: Tensor) -> int:
    """Number of rows that are equal to a sequence."""
    return sum(torch.equal(row, sequence) for row in batch)


@pytest.mark.parametrize(("name", "axis"), [("mirror", -1), ("flip", -2)])
def test_mirror_and_flip_reverse_an_axis_of_half_of_the_sequences(
    batch: Tensor, sequence: Tensor, name: str, axis: int
) -> None:
    result = augment_all(batch, recipe(**{name: True}))
    unchanged, reversed_ = count(result, sequence), count(result, sequence.flip(axis))
    assert unchanged + reversed_ == ROWS
    assert ROWS // 4 < reversed_ < 3 * ROWS // 4


def test_crop_enlarges_a_part_of_the_frames() -> None:
    columns = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)  # (T, C, H, W), brighter to the right
    result = augment_all(columns.repeat(ROWS, 1, 1, 1, 1), recipe(crop=0.5))
    assert result.shape == (ROWS, 1, 1, 32, 32)
    slopes = result[..., 20] - result[..., 10]  # of the inner columns, smaller in enlarged parts
    assert (slopes <= slopes.new_tensor(10 / 31) + 1e-5).all()
    assert (slopes >= slopes.new_tensor(5 / 31) - 1e-5).all()
    assert result[..., 0].min() == 0  # parts are everywhere, from the left …
    assert result[..., 0].max() > 0.3  # … to the right
    assert slopes.flatten().unique().numel() > 8


def test_crop_leaves_the_other_draws_as_they_are(batch: Tensor) -> None:
    mirrored = augment_all(batch, recipe(mirror=True))
    both = augment_all(batch, recipe(mirror=True, crop=1e-6))  # too little to cut off a pixel
    torch.testing.assert_close(both, mirrored)


def test_rotate_turns_by_each_multiple_of_90_degrees(batch: Tensor, sequence: Tensor) -> None:
    result = augment_all(batch, recipe(rotate=True))
    turns = [count(result, sequence.rot90(number, (-2, -1))) for number in range(4)]
    assert sum(turns) == ROWS
    assert min(turns) > ROWS // 16


def test_brightness_shifts_all_pixels_of_a_sequence(batch: Tensor) -> None:
    shifts = (augment_all(batch, recipe(brightness=0.25)) - batch).flatten(1)
    torch.testing.assert_close(shifts, shifts[:, :1].expand_as(shifts))
    assert 0.15 < shifts.max() < 0.25
    assert -0.25 < shifts.min() < -0.15


def test_contrast_scales_the_distance_from_the_mean(batch: Tensor) -> None:
    result = augment_all(batch, recipe(contrast=0.5))
    factors = ((result - 0.5) / (batch - 0.5)).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), atol=1e-3, rtol=0)
    assert 1.3 < factors.max() < 1.5
    assert 0.5 < factors.min() < 0.7
    means = result.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(means, torch.full_like(means, 0.5))


def test_results_are_clipped_to_the_scaled_range() -> None:
    result = augment_all(torch.rand(ROWS, 2, 1, 4, 4), recipe(brightness=1.0, contrast=1.0))
    assert result.min() == 0
    assert result.max() == 1


def test_no_augmentation_returns_the_same_tensor(batch: Tensor) -> None:
    assert augment_all(batch, recipe()) is batch


ALL = {"mirror": True, "flip": True, "rotate": True, "brightness": 0.2, "contrast": 0.2}


def test_augmentation_depends_on_seed_and_step_only(batch: Tensor) -> None:
    torch.manual_seed(0)
    result = augment_all(batch, recipe(**ALL), step=3)
    torch.manual_seed(1)
    assert torch.equal(augment_all(batch, recipe(**ALL), step=3), result)
    assert not torch.equal(augment_all(batch, recipe(**ALL), step=4), result)
    assert not torch.equal(augment_all(batch, recipe(seed=1, **ALL), step=3), result)


def test_rows_of_two_processes_equal_those_of_one(batch: Tensor) -> None:
    settings = recipe(**ALL)
    halves = [augment(batch[rows], settings, 3, rows) for rows in ([*range(32)], [*range(32, 64)])]
    assert torch.equal(torch.cat(halves), augment_all(batch, settings, step=3))


@pytest.mark.parametrize("name", ["mirror", "flip", "rotate", "brightness", "contrast"])
def test_missing_pixels_stay_missing(batch: Tensor, name: str) -> None:
    missing = torch.zeros(4, 4, dtype=torch.bool)
    missing[1, 2] = True
    result = augment_all(batch.masked_fill(missing, torch.nan), recipe(**{name: ALL[name]}))
    expected = augment_all(batch, recipe(**{name: ALL[name]}))
    assert (result.isnan().sum(dim=(-2, -1)) == 1).all()
    if name in ("brightness", "contrast"):
        assert torch.equal(result.isnan(), missing.expand_as(result))
    else:
        assert torch.equal(result.where(~result.isnan(), expected), expected)


def test_rotate_refuses_frames_that_are_not_square(
    noise_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tmp_path / "recipe.toml", Data(name="mmnist", size=(64, 48))
    path.write_text(RECIPE + "[augment]\nrotate = true\n")
    monkeypatch.setattr(engine, "describe", lambda *_: data)
    with pytest.raises(ConfigError, match=r"augment\.rotate.*64×48"):
        engine.train(path, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_resumed_run_with_augmentation_gives_identical_weights(
    noise_root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        RECIPE + "[augment]\nmirror = true\nrotate = true\nbrightness = 0.1\ncontrast = 0.1\n"
    )
    engine.train(path, tmp_path / "whole", data_root=noise_root)
    for _ in range(2):
        engine.train(path, tmp_path / "run", data_root=noise_root, resume=True, max_minutes=0)
    assert engine.train(path, tmp_path / "run", data_root=noise_root, resume=True).finished
    assert_same(tmp_path / "run", tmp_path / "whole")
