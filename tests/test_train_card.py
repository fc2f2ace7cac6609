"""zoo train --card: a trained model is evaluated, and gets a card."""

import json
from pathlib import Path

import pytest
from conftest import Cli
from tiny_runs import RECIPE


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace("steps = 12", "steps = 2"))
    return path


@pytest.mark.slow
def test_card_sequences_limits_the_evaluation(
    recipe: Path, noise_root: Path, tmp_path: Path, cli: Cli
) -> None:
    run, options = tmp_path / "run", ["--card", "--card-sequences", 3]
    cli.succeed("train", recipe, "-o", run, "--data-dir", noise_root, *options)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["protocol"]["sequences"] == 3
    assert metrics["cost"]["parameters"] > 0
    assert "mse" in metrics["forecast"]["model"]
    assert (run / "README.md").is_file()


def test_card_sequences_needs_card(recipe: Path, cli: Cli) -> None:
    result = cli("train", recipe, "--card-sequences", 3)
    assert result.exit_code == 2
    assert "--card-sequences" in result.stderr


def test_card_sequences_must_be_positive(recipe: Path, cli: Cli) -> None:
    result = cli("train", recipe, "--card", "--card-sequences", 0)
    assert result.exit_code == 2
    assert "--card-sequences" in result.stderr
