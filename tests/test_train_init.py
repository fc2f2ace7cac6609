"""Fine-tuning: runs that start from the weights of a pretrained model."""

from pathlib import Path

import pytest
import torch
from tiny_runs import RECIPE, weights

import zoo
from zoo.errors import ConfigError, ZooError
from zoo.train.engine import train
from zoo.train.recipe import read_recipe

FREE = RECIPE[RECIPE.index("[data]") :]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(5)
    model = zoo.create("ms-predrnn", hidden=4, layers=3, patch=8)
    return f"local-dir:{zoo.save(model, tmp_path_factory.mktemp('pretrained') / 'model')}"


def write(path: Path, init: str, text: str = FREE) -> Path:
    path.write_text(f'init = "{init}"\n{text}')
    return path


def test_fine_tuning_keeps_frozen_weights_and_scales_rates(
    pretrained: str, noise_root: Path, tmp_path: Path
) -> None:
    more = 'freeze = ["layers.*", "embed.bias"]\nlr_parts = { "head.*" = 1e-9 }\n'
    recipe = write(tmp_path / "recipe.toml", pretrained, FREE + more)
    train(recipe, tmp_path / "run", data_root=noise_root)
    before, after = weights(Path(pretrained.removeprefix("local-dir:"))), weights(tmp_path / "run")
    moved = {name: (after[name] - before[name]).abs().max().item() for name in before}
    assert all(moved[n] == 0 for n in moved if n.startswith("layers.") or n == "embed.bias")
    assert moved["embed.weight"] > 1e-4
    assert moved["head.weight"] < 1e-7
    model = zoo.load(f"local-dir:{tmp_path / 'run'}")
    assert (model.config.architecture, model.config.data.name) == ("ms-predrnn", "mmnist")


def test_saved_recipe_contains_the_model_of_init(
    pretrained: str, noise_root: Path, tmp_path: Path
) -> None:
    recipe, run = write(tmp_path / "recipe.toml", pretrained), tmp_path / "run"
    options = {"data_root": noise_root, "resume": True}
    train(recipe, run, max_minutes=0, **options)
    whole = read_recipe(run / "recipe.toml")
    assert (whole.init, whole.model["name"], whole.model["patch"]) == (pretrained, "ms-predrnn", 8)
    assert train(run / "recipe.toml", run, **options).finished


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RECIPE.replace("hidden = 4", "hidden = 6"), r"\[model\]"),
        (RECIPE.replace("ms-predrnn", "ms-convlstm"), r"layers"),
        (FREE + 'freeze = ["layer.*"]\n', r"'layer\.\*'"),
    ],
)
def test_mismatched_weights_of_init_are_refused(
    pretrained: str, noise_root: Path, tmp_path: Path, text: str, message: str
) -> None:
    recipe = write(tmp_path / "recipe.toml", pretrained, text)
    with pytest.raises(ConfigError, match=message):
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run").exists()


def test_unknown_init_suggests_a_name(noise_root: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.toml", "mslstm-mnist")
    with pytest.raises(ZooError, match="mslstm-mmnist"):
        train(recipe, tmp_path / "run", data_root=noise_root)
