"""zoo verify: recorded scores, measured again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli

import zoo
import zoo.hub
from zoo.evaluate import evaluate
from zoo.model_folder import read_metrics, update_metrics


@pytest.fixture(scope="module")
def measured(noise_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with the scores of two sequences."""
    torch.manual_seed(0)
    data = {"name": "mmnist", "size": (64, 64), "input_frames": 3, "horizon": 2}
    model = zoo.create("convlstm", hidden=2, layers=2, patch=8, data=data)
    folder = zoo.save(model, tmp_path_factory.mktemp("models") / "tiny")
    report = evaluate(model, root=noise_root, sequences=2, thresholds=(0.5,), windows=(3,))
    update_metrics(folder, **report)
    return folder


@pytest.fixture
def folder(measured: Path, tmp_path: Path) -> Path:
    return shutil.copytree(measured, tmp_path / "tiny")


def run(cli: Cli, root: Path, *arguments: object) -> tuple[int, Any]:
    result = cli("verify", "--data-dir", root, "--json", *arguments)
    return result.exit_code, json.loads(result.stdout) if result.stdout else None


def test_equal_scores_exit_with_0(folder: Path, noise_root: Path, cli: Cli) -> None:
    code, results = run(cli, noise_root, f"local-dir:{folder}", "--batch-size", 1)
    metrics = read_metrics(folder)
    count = sum(len(by) for key in ("forecast", "all-steps") for by in metrics[key].values())
    assert code == 0
    assert results["tiny"]["differs"] is False
    assert results["tiny"]["compared"] == count
    assert results["tiny"]["protocol"] == metrics["protocol"]["id"]
    assert "fss@0.5/3" in metrics["forecast"]["model"]
    line = cli.succeed("verify", f"local-dir:{folder}", "--data-dir", noise_root)
    assert f"all {count} scores agree" in line


def test_different_score_exits_with_1(folder: Path, noise_root: Path, cli: Cli) -> None:
    metrics = read_metrics(folder)
    right = metrics["forecast"]["persistence"]["mse"]
    metrics["forecast"]["persistence"]["mse"] = right * 1.01
    (folder / "metrics.json").write_text(json.dumps(metrics))
    code, results = run(cli, noise_root, f"local-dir:{folder}")
    assert code == 1
    (difference,) = results["tiny"]["scores"]
    assert (difference["frames"], difference["name"]) == ("forecast", "persistence")
    assert (difference["metric"], difference["recorded"]) == ("mse", right * 1.01)
    assert difference["measured"] == pytest.approx(right)
    assert run(cli, noise_root, f"local-dir:{folder}", "--tolerance", 0.1)[0] == 0
    result = cli("verify", f"local-dir:{folder}", "--data-dir", noise_root)
    assert f"{right:.6g}" in result.stdout


def test_other_data_exit_with_1(folder: Path, noise_root: Path, cli: Cli) -> None:
    metrics = read_metrics(folder)
    metrics["protocol"] |= {"id": "0" * 12, "fingerprint": "1" * 12}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    code, results = run(cli, noise_root, f"local-dir:{folder}")
    assert code == 1
    assert {*results["tiny"]["changed"]} == {"id", "fingerprint"}
    assert results["tiny"]["scores"] == []


def test_scores_without_protocol_are_compared(folder: Path, noise_root: Path, cli: Cli) -> None:
    metrics = read_metrics(folder)
    del metrics["protocol"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    code, results = run(cli, noise_root, f"local-dir:{folder}")
    assert (code, results["tiny"]["differs"]) == (0, False)


def test_missing_data_are_an_error_of_one_line(folder: Path, tmp_path: Path, cli: Cli) -> None:
    assert "mnist" in cli.fail("verify", f"local-dir:{folder}", "--data-dir", tmp_path)


def test_model_without_scores_is_an_error(folder: Path, noise_root: Path, cli: Cli) -> None:
    (folder / "metrics.json").unlink()
    message = cli.fail("verify", f"local-dir:{folder}", "--data-dir", noise_root)
    assert "zoo eval --save" in message


def test_all_built_in_models_are_verified_by_default(
    folder: Path, noise_root: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo.hub, "builtin_folder", lambda: folder.parent)
    other = shutil.copytree(folder, folder.parent / "other")
    (other / "metrics.json").unlink()
    result = cli("verify", "--data-dir", noise_root, "--json")
    assert result.exit_code == 2  # one of them cannot be measured
    assert {*json.loads(result.stdout)} == {"tiny"}
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert line.startswith("Error: other: ")
