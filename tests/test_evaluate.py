"""Evaluation: protocol ids, other scales, processes, reports, and zoo eval."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.baselines import forecast_baseline
from zoo.config import Data, Reflectivity
from zoo.errors import ConfigError, DataError, ZooError
from zoo.evaluate import PRECISIONS, evaluate
from zoo.protocol import EvalData, protocol

OPTIONS = {"path": "rain.npz", "unit": "mm/h", "quantity": "rain_rate", "time_step": 300.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which arrays/rain.npz has 30 frames of a moving shower."""
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


def test_report_has_scores_counts_and_protocol(root: Path, models: Path) -> None:
    report = evaluate(load(models / "one"), root=root, windows=(3,))
    keys = {"data", "protocol", "precision", "forecast", "all-steps", "per_frame", "counts"}
    assert {*report} == keys
    assert report["data"] == {
        "name": "arrays",
        "split": "test",
        "sequences": 2,  # in the last six frames
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


def test_protocol_id_depends_on_data_and_settings(root: Path, models: Path) -> None:
    model = load(models / "one")

    def identity(**options: Any) -> str:
        report = evaluate(model, root=root, **options)
        return str(report["protocol"]["id"])

    usual = identity()
    assert identity(batch_size=1) == usual
    assert identity(baselines=()) == usual
    assert identity(windows=(3,)) == usual  # other scores are unchanged
    others = [
        identity(split="train"),
        identity(thresholds=(1.0,)),
        identity(horizon=1),
        identity(sequences=1),
        identity(options={**OPTIONS, "high": 30.0, "low": 0.0}),
    ]
    assert len({usual, *others}) == 6


def test_bf16_gives_nearly_the_same_scores(root: Path, models: Path) -> None:
    model = load(models / "one")
    full, half = (evaluate(model, root=root, precision=name) for name in ("fp32", "bf16"))
    assert (full["precision"], half["precision"]) == ("fp32", "bf16")
    assert full["protocol"] == half["protocol"]
    assert full["forecast"]["persistence"] == half["forecast"]["persistence"]
    mse = full["forecast"]["model"]["mse"]
    assert half["forecast"]["model"]["mse"] != mse
    assert half["forecast"]["model"]["mse"] == pytest.approx(mse, rel=0.02)


def test_precision_is_an_option_of_the_command(root: Path, models: Path, cli: Any) -> None:
    arguments = ("--data-dir", root, "--sequences", 1, "--json")
    for precision in PRECISIONS:
        said = cli.succeed(
            "eval", f"local-dir:{models / 'one'}", *arguments, "--precision", precision
        )
        assert json.loads(said)["precision"] == precision


def test_unknown_precision_is_an_error(root: Path, models: Path) -> None:
    with pytest.raises(ConfigError, match=r"'fp16'.*bf16"):
        evaluate(load(models / "one"), root=root, precision="fp16")


def test_protocol_id_is_stable() -> None:
    """Published scores carry the id: if this fails, earlier scores cannot be compared."""
    data = Data(
        name="rain",
        variable="rain_rate",
        unit="mm/h",
        reflectivity=Reflectivity(),
        time_step=300.0,
        options={"folder": "a", "pool": 2},
    )
    frames = [torch.zeros(5, 1, 8, 8)] * 3
    evaluated = EvalData("rain", "test", frames, data, sequences=3, input_frames=3, horizon=2)
    assert protocol(evaluated, {"mse", "b_mse", "csi@2", "fss@2/3"})["id"] == "d45ecd12d069"


def test_protocol_id_depends_on_the_data_but_not_on_their_folder(tmp_path: Path, cli: Any) -> None:
    model = zoo.create("convlstm", hidden=4, layers=2)

    def measure(folder: str, root: Path = tmp_path, **options: Any) -> tuple[str, float]:
        report = evaluate(
            model,
            dataset="arrays",
            root=root,
            options={"folder": folder, "low": 0.0, "high": 2.0, **options},
            input_frames=3,
            horizon=2,
        )
        return report["protocol"]["id"], report["forecast"]["persistence"]["mse"]

    frames = np.random.default_rng(0).random((30, 8, 8)).astype(np.float32)
    for folder, values in (("a", frames), ("b", frames**2), ("elsewhere/a", frames)):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "f.npy", values)
    expected = measure("a")
    assert measure("b")[0] != expected[0]
    assert measure("a", root=tmp_path / "elsewhere") == expected
    assert measure("elsewhere/a", path="f.npy") == expected
    cli.succeed("data", "prepare", "arrays", tmp_path / "a", "-o", tmp_path / "prepared")
    assert measure("prepared") == expected


def test_truth_beyond_the_training_range_is_not_clipped(tmp_path: Path) -> None:
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


def test_frame_without_any_value_is_left_out(tmp_path: Path, models: Path) -> None:
    rain = np.random.default_rng(0).gamma(1, 2, (30, 16, 20)).astype(np.float32)
    gaps = rain.copy()
    gaps[[25, 28]] = -1  # an input frame and a forecast frame
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


def test_batch_size_does_not_change_the_scores(root: Path, models: Path) -> None:
    model = load(models / "one")
    one, many = (evaluate(model, root=root, split="train", batch_size=n) for n in (1, 7))
    assert one["per_frame"]["persistence"] == many["per_frame"]["persistence"]
    assert one["per_frame"]["model"]["mse"] == pytest.approx(many["per_frame"]["model"]["mse"])


def test_model_trained_on_another_scale_is_converted(root: Path, models: Path) -> None:
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


def test_standardized_model_reads_standardized_frames(root: Path, models: Path) -> None:
    torch.manual_seed(0)
    scale = {"high": 1.0, "standardization": {"mean": (5.0,), "std": (2.0,)}}
    data = Data.parse({**load(models / "one").config.data.model_dump(), **scale}, source="")
    model = zoo.create("convlstm", hidden=4, layers=2, data=data)
    got = evaluate(model, root=root, thresholds=(), sequences=1)["forecast"]["model"]
    frames = np.load(root / "arrays/rain.npz")["rain"]
    past, truth = frames[24:27], torch.from_numpy(frames[27:29])
    forecast = torch.from_numpy(model.predict(np.where(past < 0, np.nan, past), 2))
    error = ((forecast - truth) ** 2)[truth >= 0]
    assert got["mse_unit"] == pytest.approx(float(error.mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"), [({"unit": "K"}, "'K'"), ({"time_step": 600.0}, "10 min.* 5 min")]
)
def test_data_of_another_unit_or_time_step_are_refused(
    root: Path, models: Path, changed: dict[str, Any], message: str
) -> None:
    model = load(models / "one")
    with pytest.raises(ZooError, match=message):
        evaluate(model, root=root, options={**model.config.data.options, **changed})


def test_data_of_another_grid_are_refused(root: Path, models: Path) -> None:
    coarse = load(models / "one").config.data.model_copy(update={"grid_step": 5000.0})
    model = zoo.create("convlstm", hidden=4, layers=2, data=coarse.model_dump())
    with pytest.raises(DataError, match=r"model does not fit the data: .*1000 m.* 5000 m"):
        evaluate(model, root=root, options={**coarse.options, "grid_step": 1000.0})


def test_unknown_baseline_is_refused(root: Path, models: Path) -> None:
    with pytest.raises(ConfigError, match="'guess'"):
        evaluate(load(models / "one"), root=root, baselines=("guess",))


def test_seasonal_baseline_repeats_the_frames_of_a_period_before(root: Path, models: Path) -> None:
    model = load(models / "one")
    clock = {**model.config.data.options, "start": "2020-01-01"}
    report = evaluate(model, root=root, options=clock, baselines=("persistence", "seasonal 100min"))
    # The shower returns after 20 frames of 5 minutes.
    assert report["forecast"]["seasonal 100min"]["mse"] == pytest.approx(0, abs=1e-10)
    assert report["forecast"]["persistence"]["mse"] > 0.1


@pytest.mark.parametrize(
    ("start", "period", "error", "message"),
    [
        ("2020-01-01", "1d", DataError, "no frame at 2019-12-31T02:"),
        ("2020-01-01", "12min", DataError, "no frame at"),
        ("2020-01-01", "5min", ConfigError, "10 min"),  # the last frame is not known by then
        ("2020-01-01", "often", ConfigError, "'often'"),
        (None, "20min", DataError, "times"),
    ],
)
def test_seasonal_baseline_needs_a_known_history(
    root: Path, models: Path, start: str | None, period: str, error: type, message: str
) -> None:
    model = load(models / "one")
    options = model.config.data.options | ({"start": start} if start else {})
    with pytest.raises(error, match=message):
        evaluate(model, root=root, options=options, baselines=(f"seasonal {period}",))


def test_threshold_outside_the_range_is_refused(root: Path, models: Path) -> None:
    with pytest.raises(ConfigError, match="21 mm/h"):
        evaluate(load(models / "one"), root=root, thresholds=(21.0,))


@pytest.mark.slow
def test_command_writes_tables_and_pictures(
    root: Path, models: Path, tmp_path: Path, cli: Any
) -> None:
    names = [f"local-dir:{models / name}" for name in ("one", "two")]
    output = tmp_path / "report"
    printed = cli.succeed("eval", *names, "--data-dir", root, "-o", output, "--fss", 3)
    report = json.loads((output / "report.json").read_text())
    for text in ("one, two", "2 test", "arrays", report["protocol"]["id"], "CSI@2", "persistence"):
        assert text in printed
    pictures = {"curves.png", "cumulated.png", "strip.png", "strip.gif"}
    assert {p.name for p in output.iterdir()} == {
        "report.json",
        "report.csv",
        "table.md",
        *pictures,
    }
    assert [*report["forecast"]] == ["one", "two", "persistence"]
    rows = [*csv.DictReader((output / "report.csv").open())]
    values = {(r["frames"], r["lead"], r["forecast_by"], r["metric"]): r["value"] for r in rows}
    assert float(values["forecast", "", "two", "mse"]) == report["forecast"]["two"]["mse"]
    assert float(values["forecast", "2", "two", "mse"]) == report["per_frame"]["two"]["mse"][-1]
    assert {r["protocol"] for r in rows} == {report["protocol"]["id"]}
    assert "| two |" in (output / "table.md").read_text()
    colors = np.asarray(Image.open(output / "strip.png")).reshape(-1, 3)
    assert {(250, 217, 74), (45, 119, 184)} <= {*map(tuple, colors.tolist())}  # of rain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one"], "one, one"),
        (["two", "--save"], "--save"),
        (["--set", "pol=2"], "'pol'"),
        (["--thresholds", "a,b"], "--thresholds"),
        (["--split", "valid"], "valid"),
        (["--seasonal", "often"], "'often'"),
        (["--seasonal", "20min"], "times"),
        (["--example", "9", "-o", "report"], "--example is 9"),
    ],
    ids=[
        "same-name",
        "save-two",
        "option",
        "thresholds",
        "no-window",
        "period",
        "no-times",
        "example",
    ],
)
def test_command_refuses_invalid_arguments(
    root: Path, models: Path, cli: Any, arguments: list[str], message: str
) -> None:
    places = {name: f"local-dir:{models / name}" for name in ("one", "two")}
    given = [places.get(argument, argument) for argument in arguments]
    result = cli("eval", places["one"], *given, "--data-dir", root)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_two_processes_give_the_report_of_one(root: Path, models: Path) -> None:
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
    assert not outputs[1][0]  # only the first process prints
    report = json.loads(outputs[0][0])
    assert report["per_frame"] == alone["per_frame"]
    assert report["protocol"] == json.loads(json.dumps(alone["protocol"]))


def with_options(models: Path, copy: Path, **options: Any) -> Path:
    """A copy of a model, whose config has other options of the data set."""
    config = json.loads((models / "one" / "config.json").read_text())
    config["data"]["options"] |= options
    shutil.copytree(models / "one", copy)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("folder", "/"),
        ("folder", ".."),
        ("folder", "arrays/../../other"),
        ("folder", "~"),
        ("folder", "C:\\data"),
        ("folder", "arrays\0"),
        ("folder", 0),
        ("folder", 1.5),
        ("folder", ["arrays"]),
        ("path", "/etc/passwd"),
        ("path", "../rain.npz"),
        ("dims", ["/etc"]),
        ("stride", 1.5),
        ("stride", "many"),
        ("crop", "all"),
        ("novelty", 1),
    ],
)
def test_model_cannot_choose_which_files_are_read(
    root: Path, models: Path, tmp_path: Path, cli: Any, option: str, value: object
) -> None:
    """Options of a config are checked, and places are for the user to say."""
    folder = with_options(models, tmp_path / "model", **{option: value})
    with pytest.raises(ConfigError, match=option):
        evaluate(load(folder), root=root)
    eval_ = ("eval", f"local-dir:{folder}", "--data-dir", root)
    assert option in cli.fail(*eval_)
    if option in ("folder", "path"):  # a setting of another option changes nothing
        assert option in cli.fail(*eval_, "--set", "stride=2")


def test_user_can_choose_which_files_are_read(
    root: Path, models: Path, tmp_path: Path, cli: Any
) -> None:
    folder = with_options(models, tmp_path / "model", folder="/nowhere")
    place = json.dumps(str(root / "arrays"))
    report = json.loads(
        cli.succeed("eval", f"local-dir:{folder}", "--set", f"folder={place}", "--json")
    )
    usual = evaluate(load(models / "one"), root=root)
    assert report["protocol"]["id"] == usual["protocol"]["id"]


@pytest.mark.parametrize(
    "option", [{"digits": 10**7}, {"digits": 1e7}, {"size": 10**6}, {"digits": 0}, {"size": "64"}]
)
def test_options_of_moving_mnist_are_bounded(noise_root: Path, option: dict[str, Any]) -> None:
    data = {"name": "mmnist", "input_frames": 2, "horizon": 2, "options": option}
    model = zoo.create("convlstm", hidden=2, layers=2, data=data)
    with pytest.raises(ConfigError, match=next(iter(option))):
        evaluate(model, root=noise_root)
    long = data | {"options": {"size": 1024}, "horizon": 4096}
    with pytest.raises(ConfigError, match="1024"):
        evaluate(zoo.create("convlstm", hidden=2, layers=2, data=long), root=noise_root)


@pytest.fixture
def kept(root: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Evaluate with a new cache of baselines, on data whose checksum is "1"."""
    from zoo.data import FrameDataset

    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(FrameDataset, "verify", lambda self, count: "1")

    def run(**options: Any) -> dict[str, Any]:
        return evaluate(load(models / "one"), root=root, cache=True, **options)

    return run


def count_persistence(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that becomes longer with every batch that persistence forecasts."""
    calls: list[None] = []

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(None)
        return forecast_baseline(*arguments)

    monkeypatch.setattr("zoo.evaluate.forecast_baseline", counted)
    return calls


def test_baselines_are_measured_once(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_persistence(monkeypatch)
    first = kept()
    assert len(calls) == 1
    assert kept(optimize="auto") == first
    assert len(calls) == 1
    assert [*first["forecast"]] == ["model", "persistence"]


@pytest.mark.parametrize(
    "options",
    [
        {"thresholds": (1.0,)},
        {"windows": (3,)},
        {"horizon": 1},
        {"sequences": 1},
        {"split": "train"},
        {"further_metrics": ("sharpness",)},
    ],
    ids=str,
)
def test_other_settings_measure_baselines_again(
    kept: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    kept()
    calls = count_persistence(monkeypatch)
    assert {*kept(**options)["forecast"]} == {"model", "persistence"}
    assert calls


@pytest.mark.parametrize("changed", ["code", "version", "checksum", "no checksum", "damage"])
def test_changes_measure_baselines_again(
    kept: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str
) -> None:
    from zoo.data import FrameDataset

    report = kept()
    calls = count_persistence(monkeypatch)
    if changed == "damage":
        for path in tmp_path.rglob("persistence.json"):
            path.write_text("{")
    elif "checksum" in changed:
        checksum = None if changed == "no checksum" else "2"
        monkeypatch.setattr(FrameDataset, "verify", lambda self, count: checksum)
    else:
        monkeypatch.setattr(f"zoo.baseline_cache._{changed}", lambda *_: "another")
    assert kept()["forecast"] == report["forecast"]
    assert len(calls) == 1
    kept()
    assert len(calls) == (2 if changed == "no checksum" else 1)


def test_without_a_writable_cache_baselines_are_measured(
    kept: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept()
    for path in tmp_path.rglob("persistence.json"):
        path.unlink()
        path.mkdir()
    calls = count_persistence(monkeypatch)
    assert "persistence" in kept()["forecast"]
    assert len(calls) == 1


@pytest.mark.slow
def test_models_compile_only_for_whole_batches(
    root: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[None] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(None)
        return graph.forward

    monkeypatch.setattr("zoo.optimize.LONG", {"cpu": 0.0})
    monkeypatch.setattr("zoo.optimize.FEW", 1)
    monkeypatch.setattr("zoo.optimize.COMPILE", {"backend": backend, "dynamic": False})
    model, options = load(models / "one"), {"root": root, "split": "train", "batch_size": 3}
    plain = evaluate(model, **options)
    report = evaluate(model, **options, optimize="auto")
    assert plain["data"]["sequences"] % 3
    assert model.optimized == ("compile",)
    assert graphs
    assert report["forecast"]["model"]["mse"] == pytest.approx(plain["forecast"]["model"]["mse"])
    before = len(graphs)
    evaluate(model, **options)
    assert len(graphs) == before
    torch.compiler.reset()
