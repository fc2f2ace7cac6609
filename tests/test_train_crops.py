"""Training aids: crops drawn by importance, a growing horizon, and Muon."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import RECIPE, assert_same, log, train_together
from torch import Tensor

import zoo
from zoo.errors import ConfigError
from zoo.train.crops import Crops
from zoo.train.engine import train
from zoo.train.objective import Objective
from zoo.train.recipe import CropRecipe, HorizonCurve
from zoo.train.sampling import Order, ShareSampler


class Corner:
    """Sequences of 64 × 64 that are wet in one corner, and move in the opposite one."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        frames = torch.zeros(4, 1, 64, 64)
        frames[:, :, :16, :16] = 0.9
        frames[::2, :, 48:, 48:] = 0.5
        frames[0, 0, 0, 0] = torch.nan
        return frames + 1e-6 * index


def shares(prefer: str, candidates: int) -> tuple[float, float]:
    """The shares of crops that are mostly wet, and that mostly move."""
    recipe = CropRecipe(size=(16, 16), candidates=candidates, prefer=prefer)
    crops = Crops(Corner(), recipe, seed=0)
    drawn = torch.stack([crops[0, draw].nan_to_num() for draw in range(200)])
    assert drawn.shape == (200, 4, 1, 16, 16)
    wet = drawn.mean(dim=(1, 2, 3, 4)) > 0.2
    moving = drawn.diff(dim=1).abs().mean(dim=(1, 2, 3, 4)) > 0.1
    return float(wet.float().mean()), float(moving.float().mean())


def test_preferred_crops_are_drawn_more_often() -> None:
    any_wet, any_moving = shares("any", 1)
    assert any_wet < 0.2
    assert shares("wet", 16)[0] > max(0.4, 3 * any_wet)
    assert shares("moving", 16)[1] > max(0.4, 3 * any_moving)


def test_draws_depend_on_seed_and_number_only() -> None:
    recipe = CropRecipe(size=(16, 24), candidates=4, prefer="wet")
    one, again, other = (Crops(Corner(), recipe, seed) for seed in (0, 0, 1))
    assert len(one) == 3
    for draw in (0, 7):
        assert torch.equal(one[1, draw].nan_to_num(), again[1, draw].nan_to_num())
    assert any(not torch.equal(one[1, n].nan_to_num(), other[1, n].nan_to_num()) for n in range(9))
    whole = Crops(Corner(), CropRecipe(size=(64, 64)), 0)
    assert torch.equal(whole[0, 5].nan_to_num(), Corner()[0].nan_to_num())


def test_every_row_of_every_step_has_its_own_draw() -> None:
    order = Order(5, 2, seed=0)
    draws = [
        number
        for process in range(2)
        for batch in ShareSampler(order, 0, 4, process, 2, drawn=True)
        for _, number in batch
    ]
    assert sorted(draws) == [0, 1, 2, 3, 4, 4, 6, 7]  # the last batch has one row, padded


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 4, "prefer": "wet"},
        {"size": (16, 16), "candidates": 4},
        {"size": (16, 16), "prefer": "wet"},
        {"size": (16, 16), "prefer": "rain", "candidates": 4},
    ],
)
def test_invalid_crops_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CropRecipe.parse(options, source="crop")


def test_crops_that_are_too_large_are_refused() -> None:
    with pytest.raises(ConfigError, match="64×64"):
        Crops(Corner(), CropRecipe(size=(16, 65)), 0)


CROPS = [("crop", {"size": [32, 16], "candidates": 3, "prefer": "moving"}), ("train.steps", 6)]


def test_training_on_crops_resumes_bit_for_bit(tmp_path: Path, noise_root: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, whole, data_root=noise_root, settings=CROPS)
    train(recipe, parts, data_root=noise_root, settings=CROPS, max_minutes=0)
    train(recipe, parts, data_root=noise_root, settings=CROPS, resume=True)
    one, two = (zoo.load(f"local-dir:{run}").network.state_dict() for run in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert zoo.load(f"local-dir:{whole}").config.data.size == (64, 64)  # of whole frames
    workers = tmp_path / "workers"
    train(recipe, workers, data_root=noise_root, settings=[*CROPS, ("data.workers", 1)])
    three = zoo.load(f"local-dir:{workers}").network.state_dict()
    assert all(torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (HorizonCurve(start=2), [2, 2, 4, 5, 8, 10]),
        (HorizonCurve(start=1, begin=20, until=60), [1, 1, 2, 7, 10, 10]),
        (HorizonCurve(start=2, begin=50, until=50), [2, 2, 2, 2, 10, 10]),
        (HorizonCurve(start=12), [10] * 6),
        (HorizonCurve(start=3, until=0), [10] * 6),
    ],
)
def test_horizon_grows(curve: HorizonCurve, expected: list[int]) -> None:
    assert [curve.at(step, 101, 10) for step in (0, 12, 25, 48, 75, 100)] == expected


def test_growing_horizon_uses_the_first_frames_alone(tmp_path: Path, noise_root: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    frames: list[int] = []

    class Counting(Objective):
        def forward(self, sequences: Tensor, *more: Any, **options: Any) -> Tensor:
            frames.append(sequences.shape[1])
            return super().forward(sequences, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.train.engine.Objective", Counting)
        settings = [("sampling.horizon", {"start": 1, "begin": 4, "until": 8})]
        train(recipe, tmp_path / "run", data_root=noise_root, settings=settings)
    assert frames == [3] * 8 + [4] * 4  # two input frames, and one or two to forecast


def test_muon_trains_and_resumes_bit_for_bit(tmp_path: Path, noise_root: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    settings = [("train.optimizer", "muon"), ("train.lr", 1e-3)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, whole, data_root=noise_root, settings=settings)
    train(recipe, parts, data_root=noise_root, settings=settings, max_minutes=0)
    train(recipe, parts, data_root=noise_root, settings=settings, resume=True)
    assert_same(whole, parts)
    losses = [line["loss"] for line in log(whole) if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_crops_and_ensembles_are_shared_by_processes(tmp_path: Path, noise_root: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    settings = [*CROPS, ("model.noise", 1), ("loss.terms.crps", {"members": 2})]
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(recipe, alone, data_root=noise_root, settings=settings)
    codes = train_together(2, recipe, together, data_root=noise_root, settings=settings)
    assert codes == [0, 0]
    one, two = (zoo.load(f"local-dir:{run}").network.state_dict() for run in (alone, together))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-3)
