"""Evaluation: protocols, several models, other scales, processes, reports, the command."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import zoo
from zoo.cli import zoo as command
from zoo.config import Data
from zoo.errors import ZooError
from zoo.evaluate import evaluate

OPTIONS = {"path": "rain.npz", "unit": "mm/h", "quantity": "rain_rate", "time_step": 300.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose arrays/rain.npz holds 30 frames of a shower that moves."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "arrays").mkdir()
    y, x = np.mgrid[:16, :20]
    rain = [20 * np.exp(-((y - 8) ** 2 + (x - t % 20) ** 2) / 12) for t in range(30)]
    frames = np.stack(rain).astype(np.float32)
    frames[5::7, 0, 0] = -1  # missing
    np.savez(folder / "arrays/rain.npz", rain=frames)
    return folder


@pytest.fixture(scope="module")
def models(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    data = {
        "name": "arrays",
        "variable": "rain_rate",
        "unit": "mm/h",
        "high": 20.0,
        "missing": True,
        "time_step": 300.0,
        "input_frames": 3,
        "horizon": 2,
        "options": {**OPTIONS, "negative_is_missing": True, "high": 20.0, "low": 0.0},
    }
    for name in ("one", "two"):
        zoo.save(zoo.create("convlstm", hidden=4, layers=2, data=data), folder / name)
    return folder


def load(folder: Path) -> zoo.Forecaster:
    return zoo.load(f"local-dir:{folder}")


def test_a_report(root: Path, models: Path) -> None:
    report = evaluate(load(models / "one"), root=root, windows=(3,))
    assert {*report} == {
        *("data", "protocol", "forecast", "all-steps", "per_frame", "counts"),
    }
    assert report["data"] == {
        "name": "arrays",
        "split": "test",
        "sequences": 2,  # of the last six frames
        "sha256": None,
        "input_frames": 3,
        "horizon": 2,
    }
    for part in ("forecast", "all-steps", "per_frame", "counts"):
        assert {*report[part]} == {"model", "persistence"}
    figures = report["forecast"]["persistence"]
    assert {"mse", "b_mae", "rmse_unit", "csi@0.5", "hss@5", "fss@2/3"} <= {*figures}
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    by_frame = report["per_frame"]["persistence"]["mse"]
    assert figures["mse"] == pytest.approx(np.mean(by_frame[-2:]))
    a, b, c, _ = np.sum(report["counts"]["persistence"]["2"][-2:], axis=0)
    assert figures["csi@2"] == pytest.approx(a / (a + b + c))
    protocol = report["protocol"]
    assert protocol["unit"] == "mm/h"
    assert "hits" in protocol["metrics"]["csi@2"]


def test_the_protocol_tells_figures_apart(root: Path, models: Path) -> None:
    model = load(models / "one")

    def identity(**options: Any) -> str:
        found: str = evaluate(model, root=root, **options)["protocol"]["id"]
        return found

    usual = identity()
    assert identity(batch_size=1) == usual
    assert identity(baselines=()) == usual
    assert identity(windows=(3,)) == usual  # more metrics change nothing of the others
    others = [
        identity(split="train"),
        identity(thresholds=(1.0,)),
        identity(horizon=1),
        identity(sequences=1),
        identity(options={**OPTIONS, "high": 30.0, "low": 0.0}),
    ]
    assert len({usual, *others}) == 6


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    """The id and the figures of persistence on a folder's frames, by the folder and options."""
    model = zoo.create("convlstm", hidden=4, layers=2)
    found: dict[str, Any] = {}

    def measure(folder: str, root: Path = tmp_path, **options: Any) -> tuple[str, float]:
        report = evaluate(
            model,
            dataset="arrays",
            root=root,
            options={"folder": folder, **options},
            input_frames=3,
            horizon=2,
        )
        return report["protocol"]["id"], report["forecast"]["persistence"]["mse"]

    found["measure"], found["root"] = measure, tmp_path
    return found


def test_the_protocol_tells_data_apart_but_not_places(places: dict[str, Any]) -> None:
    measure, root = places["measure"], places["root"]
    frames = np.random.default_rng(0).random((30, 8, 8)).astype(np.float32)
    for folder, values in (("a", frames), ("b", frames**2), ("elsewhere/a", frames)):
        (root / folder).mkdir(parents=True)
        np.save(root / folder / "f.npy", values)
    limits = {"low": 0.0, "high": 2.0}
    one = measure("a", **limits)
    assert measure("b", **limits)[0] != one[0]
    assert measure("a", root=root / "elsewhere", **limits) == one
    assert measure("elsewhere/a", path="f.npy", **limits) == one
    made = ["data", "prepare", "arrays", str(root / "a"), "-o", str(root / "made")]
    result = CliRunner().invoke(command, made)
    assert result.exit_code == 0, result.output
    assert measure("made", **limits) == one


def test_truth_beyond_the_range_of_the_training_counts_in_full(tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    frames = np.zeros((20, 8, 8), np.float32)
    frames[:16] = np.linspace(0, 10, 16)[:, None, None]
    frames[16:19], frames[19] = 50, 100
    np.save(tmp_path / "arrays/f.npy", frames)
    model = zoo.create("convlstm", hidden=4, layers=2)
    report = evaluate(
        model, dataset="arrays", root=tmp_path, options={"unit": "m"}, input_frames=3, horizon=1
    )
    figures = report["forecast"]
    assert figures["persistence"]["rmse_unit"] == pytest.approx(50)
    assert 90 <= figures["model"]["rmse_unit"] <= 100  # its forecast is within 0 to 10 m
    assert "not the truth" in report["protocol"]["clipped"]


def test_a_frame_without_any_value_is_left_out(tmp_path: Path, models: Path) -> None:
    rain = np.random.default_rng(0).gamma(1, 2, (30, 16, 20)).astype(np.float32)
    gaps = rain.copy()
    gaps[[25, 28]] = -1  # one that is read and one that is forecast
    figures = []
    for name, frames in (("whole", rain), ("gaps", gaps)):
        (tmp_path / name / "arrays").mkdir(parents=True)
        np.savez(tmp_path / name / "arrays/rain.npz", rain=frames)
        report = evaluate(load(models / "one"), root=tmp_path / name, windows=(3,), sequences=1)
        json.dumps(report, allow_nan=False)
        figures.append(report)
    whole, part = (f["per_frame"]["persistence"] for f in figures)
    assert part["mse"][-1] is None
    assert part["ssim"][-1] is None
    assert part["mse"][-2] == pytest.approx(whole["mse"][-2])
    assert figures[1]["forecast"]["persistence"]["mse"] == pytest.approx(whole["mse"][-2])


def test_batches_change_nothing_of_persistence(root: Path, models: Path) -> None:
    model = load(models / "one")
    one, many = (evaluate(model, root=root, split="train", batch_size=n) for n in (1, 7))
    assert one["per_frame"]["persistence"] == many["per_frame"]["persistence"]
    assert one["per_frame"]["model"]["mse"] == pytest.approx(many["per_frame"]["model"]["mse"])


def test_a_model_of_another_scale_of_the_same_unit(root: Path, models: Path) -> None:
    """Its forecast in mm/h is what counts, whatever 0 and 1 are to it."""
    one = load(models / "one")
    torch.manual_seed(0)
    data = one.config.data.model_copy(update={"high": 40.0})
    other = zoo.create("convlstm", hidden=4, layers=2, data=data.model_dump())
    other.load_state_dict(one.state_dict())
    report = evaluate({"one": one, "other": other}, root=root, thresholds=())
    assert report["forecast"]["one"]["mse"] != report["forecast"]["other"]["mse"]
    past = np.load(root / "arrays/rain.npz")["rain"][24:27]
    truth = torch.from_numpy(np.load(root / "arrays/rain.npz")["rain"][27:29])
    forecast = torch.from_numpy(other.predict(np.where(past < 0, np.nan, past), 2)).clamp(0, 20)
    error = ((forecast - truth) ** 2)[truth >= 0]
    got = evaluate(other, root=root, thresholds=(), sequences=1)["forecast"]["model"]
    if (truth >= 0).all():
        assert got["mse_unit"] == pytest.approx(float(error.mean()), rel=1e-4)


def test_other_data_are_refused(root: Path, models: Path) -> None:
    model = load(models / "one")
    for changed, told in (
        ({"unit": "K"}, "the model takes|this model takes rain_rate"),
        ({"time_step": 600.0}, "makes steps of 5 min"),
    ):
        with pytest.raises(ZooError, match=told):
            evaluate(model, root=root, options={**model.config.data.options, **changed})
    coarse = model.config.data.model_copy(update={"grid_step": 5000.0})
    other = zoo.create("convlstm", hidden=4, layers=2, data=coarse.model_dump())
    told = "model does not fit the data: the frames have cells of 1000 m; .* cells of 5000 m"
    with pytest.raises(ZooError, match=told):
        evaluate(other, root=root, options={**coarse.options, "grid_step": 1000.0})
    with pytest.raises(ZooError, match="there is no baseline 'guess'"):
        evaluate(model, root=root, baselines=("guess",))
    with pytest.raises(ZooError, match="outside of what the data can tell"):
        evaluate(model, root=root, thresholds=(21.0,))


def test_optical_flow_follows_a_shower(root: Path, models: Path) -> None:
    pytest.importorskip("pysteps", reason="pip install 'spatiotemporal-zoo[flow]'")
    pytest.importorskip("cv2", reason="pip install 'spatiotemporal-zoo[flow]'")
    from zoo.baselines import optical_flow, persistence

    y, x = np.mgrid[:64, :64]
    moving = [np.exp(-((y - 32) ** 2 + (x - 20 - 3 * t) ** 2) / 60) for t in range(7)]
    frames = torch.from_numpy(np.stack(moving)).float()[None, :, None]
    made = optical_flow(frames[:, :4], 3, Data())
    stayed = persistence(frames[:, :4], 3)
    assert made.shape == stayed.shape
    error = [float((f - frames[:, 1:]).abs()[:, -3:].sum()) for f in (made, stayed)]
    assert error[0] < 0.3 * error[1]


def test_the_command_writes_a_report(root: Path, models: Path, tmp_path: Path) -> None:
    names = [f"local-dir:{models / name}" for name in ("one", "two")]
    output = tmp_path / "report"
    arguments = ["eval", *names, "--data-dir", str(root), "-o", str(output), "--fss", "3"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    for told in ("one, two on 2 test sequences of arrays; protocol", "CSI@2", "persistence"):
        assert told in result.stdout
    assert {p.name for p in output.iterdir()} == {
        *("report.json", "report.csv", "table.md", "curves.png", "cumulated.png", "strip.png"),
    }
    report = json.loads((output / "report.json").read_text())
    assert [*report["forecast"]] == ["one", "two", "persistence"]
    rows = [*csv.DictReader((output / "report.csv").open())]
    found = {(r["frames"], r["lead"], r["forecast_by"], r["metric"]): r["value"] for r in rows}
    assert float(found["forecast", "", "two", "mse"]) == report["forecast"]["two"]["mse"]
    assert float(found["forecast", "2", "two", "mse"]) == report["per_frame"]["two"]["mse"][-1]
    assert {r["protocol"] for r in rows} == {report["protocol"]["id"]}
    assert "| two |" in (output / "table.md").read_text()
    colours = np.asarray(Image.open(output / "strip.png")).reshape(-1, 3)
    assert {(250, 217, 74), (45, 119, 184)} <= {*map(tuple, colours.tolist())}  # of rain


def test_the_command_and_what_a_user_can_mend(root: Path, models: Path) -> None:
    one = f"local-dir:{models / 'one'}"
    for arguments, told in (
        (["eval", one, one], "two of the models are named alike"),
        (["eval", one, f"local-dir:{models / 'two'}", "--save"], "--save is for one model"),
        (["eval", one, "--set", "pol=2"], "no option 'pol'"),
        (["eval", one, "--thresholds", "a,b"], "is no list such as"),
        (["eval", one, "--split", "valid"], "has no window"),
        (["eval", one, "--example", "9", "-o", str(models / "r")], "--example is 9"),
    ):
        result = CliRunner().invoke(command, [*arguments, "--data-dir", str(root)])
        assert result.exit_code == 2, result.output
        assert told in result.output
        assert "Traceback" not in result.output


def test_two_processes_share_the_work(root: Path, models: Path) -> None:
    alone = evaluate(load(models / "one"), root=root, split="train", batch_size=1)
    arguments = ["eval", f"local-dir:{models / 'one'}", "--split", "train", "--batch-size", "1"]
    arguments += ["--data-dir", str(root), "--json"]
    program = f"import sys; sys.argv = ['zoo', *{arguments!r}]; from zoo.cli import main; main()"
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29533",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs[0][1] + outputs[1][1]
    assert not outputs[1][0]  # one speaks
    report = json.loads(outputs[0][0])
    assert report["per_frame"] == alone["per_frame"]
    assert report["protocol"] == json.loads(json.dumps(alone["protocol"]))
