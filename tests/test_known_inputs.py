"""Inputs besides the frames: channels, times, lead time, static maps, and a known future."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from conftest import Cli
from tiny_runs import log
from torch import Tensor

import zoo
from zoo.errors import ConfigError, DataError
from zoo.evaluate import evaluate
from zoo.hub.card_text import more_arguments
from zoo.known_inputs import known_inputs, predicted_times
from zoo.losses import create_loss
from zoo.train.engine import train
from zoo.train.objective import Objective
from zoo.train.recipe import LossRecipe

HALF_HOUR = {"time_step": 1800.0, "horizon": 2, "input_frames": 3}


def create(**options: Any) -> zoo.Forecaster:
    torch.manual_seed(0)
    data = {**HALF_HOUR, **options.pop("data", {})}
    arguments = {"hidden": 4, "layers": 3, "head": "change", "data": data, **options}
    return zoo.create("ms-convlstm", **arguments).eval()


def frames(time: int = 3, channels: int = 1, batch: int = 2) -> Tensor:
    shape = (batch, time, channels, 8, 12)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def labeled(values: Tensor, start: str = "2015-01-31T22:30") -> xarray.DataArray:
    times = np.datetime64(start, "ns") + np.arange(values.shape[0]) * np.timedelta64(30, "m")
    return xarray.DataArray(values[:, 0].numpy(), {"time": times}, ("time", "y", "x"))


def test_times_become_sine_and_cosine() -> None:
    config = create(inputs=["hour_of_day", "day_of_week", "day_of_year"]).config
    # Monday, 5 January 2015, 06:00, and Thursday, 8 January, 18:00.
    times = np.array([["2015-01-05T06:00", "2015-01-08T18:00"]], "datetime64[s]")
    known = known_inputs(config, 2, 1, times=times)
    assert known is not None
    assert known.shape == (1, 2, 6, 1, 1)
    first, second = known[0, :, :, 0, 0]
    quarter = 2 * np.pi / 28  # six hours of a week
    torch.testing.assert_close(first[:2], torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(second[:2], torch.tensor([-1.0, 0.0]), atol=1e-6, rtol=0)
    for values, quarters in ((first, 1), (second, 15)):
        week = torch.tensor([np.sin(quarter * quarters), np.cos(quarter * quarters)]).float()
        torch.testing.assert_close(values[2:4], week)
    assert 0 < first[4] < second[4] < 0.15  # early in the year


def test_lead_time_is_that_of_the_next_frame_in_horizons() -> None:
    known = known_inputs(create(inputs=["lead_time"]).config, 5, 3)
    assert known is not None
    assert known.flatten().tolist() == [0.5, 0.5, 0.5, 1.0, 1.5]


def test_times_of_predicted_frames_follow_the_first() -> None:
    expected = ["2015-01-31T23:30", "2015-02-01T00:00", "2015-02-01T00:30"]
    for given in (
        "2015-01-31T23:00",
        ["2015-01-31T23:00", "2015-01-31T23:30"],
        np.array(["2015-01-31T23:00", "2015-01-31T23:30"], "datetime64[ns]"),
    ):
        times = predicted_times(given, 1800.0, 2, 2)
        assert times.shape == (1, 3)
        assert (times[0] == np.array(expected, "datetime64[ms]")).all()
    two = predicted_times([["2015-01-31", "2015-02-01"], ["2016-01-31", "2016-02-01"]], None, 2, 1)
    expected_days = [["2015-02-01", "2015-02-02"], ["2016-02-01", "2016-02-02"]]
    assert (two == np.array(expected_days, "datetime64[D]")).all()


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ("yesterday", 60.0),
        (["2015-01-31", "2015-02-01", "2015-02-02"], 86400.0),  # three times, two frames
        (["2015-01-31", "2015-02-02"], 86400.0),
        (["2015-01-31", "NaT"], 86400.0),
        ("2015-01-31", None),
    ],
)
def test_invalid_times_are_refused(times: Any, step: float | None) -> None:
    with pytest.raises(DataError):
        predicted_times(times, step, 2, 1)


def test_predict_reads_the_times_of_a_data_array() -> None:
    model = create(inputs=["hour_of_day", "day_of_week"])
    values = frames(batch=1)[0]
    evening = model.predict(labeled(values), horizon=2)
    assert evening.dims == ("time", "y", "x")
    assert str(evening["time"].values[0])[:16] == "2015-02-01T00:00"
    morning = model.predict(labeled(values, "2015-01-31T07:30"), horizon=2)
    assert not np.array_equal(evening.values, morning.values)
    given = model.predict(values, horizon=2, times="2015-01-31T22:30")
    np.testing.assert_array_equal(given[:, 0].numpy(), evening.values)
    week_later = model.predict(labeled(values, "2015-02-07T22:30"), horizon=2)
    np.testing.assert_allclose(week_later.values, evening.values, atol=1e-6)


def test_predict_does_not_guess_a_time() -> None:
    model = create(inputs=["hour_of_day"])
    with pytest.raises(DataError, match="hour of day"):
        model.predict(frames(), horizon=2)
    with pytest.raises(DataError, match="hour of day"):
        model.predict(labeled(frames()[0]).drop_vars("time"), horizon=2)
    with pytest.raises(DataError, match="known"):
        model(frames(), 2)
    with pytest.raises(DataError, match="hour of day"):
        list(model.stream(frames().unbind(1)))
    without_step = create(inputs=["hour_of_day"], data={"time_step": None})
    with pytest.raises(DataError, match="time_step"):
        without_step.predict(frames(), horizon=2, times="2015-01-31")
    assert without_step.predict(frames(), horizon=2, times="2015-01-31", time_step=60) is not None


def test_times_are_ignored_by_models_that_do_not_read_them() -> None:
    model = create()
    assert torch.equal(model.predict(frames(), 2, times="2015-01-31"), model.predict(frames(), 2))


def test_channels_that_are_only_inputs_keep_their_last_value() -> None:
    model = create(in_channels=3, out_channels=1)
    past = frames(channels=3)
    forecast = model.predict(past, horizon=3)
    assert forecast.shape == (2, 3, 1, 8, 12)
    state, prediction = None, torch.empty(0)
    for t in range(5):
        frame = past[:, t] if t < 3 else torch.cat([prediction, past[:, 2, 1:]], dim=1)
        with torch.no_grad():
            prediction, state = model.step(frame, state)
    torch.testing.assert_close(prediction.clamp(0, 1), forecast[:, 2])
    other = past.clone()
    other[:, 2, 2] = 0
    assert not torch.equal(model.predict(other, horizon=1), model.predict(past, horizon=1))


def test_known_future_is_read_for_the_frame_to_be_predicted() -> None:
    model = create(in_channels=2, out_channels=1, future_channels=1)
    past, future = frames(channels=2), frames(2, batch=2).flip(0)
    forecast = model.predict(past, horizon=2, future=future)
    assert forecast.shape == (2, 2, 1, 8, 12)
    for step in range(2):
        changed = future.clone()
        changed[:, step] = 0
        other = model.predict(past, horizon=2, future=changed)
        differs = [not torch.equal(a, b) for a, b in zip(forecast[0], other[0], strict=True)]
        assert differs == [step == 0, True]
    one = model.predict(past[0], horizon=2, future=future[0].numpy())
    torch.testing.assert_close(one, forecast[0])
    with pytest.raises(DataError, match="future"):
        model.predict(past, horizon=2)
    with pytest.raises(DataError, match="future"):
        model.predict(past, horizon=2, future=future[:, :1])
    with pytest.raises(DataError, match="future"):
        create().predict(frames(), horizon=2, future=future)


def test_stream_equals_predict_of_the_next_frame() -> None:
    model = create(
        in_channels=2, out_channels=1, future_channels=1, inputs=["hour_of_day", "lead_time"]
    )
    past = frames(4, channels=2)
    times = np.datetime64("2015-01-31T22:30") + np.arange(4) * np.timedelta64(30, "m")
    ahead = [past[:, t + 1, 1:] if t < 3 else torch.ones(2, 1, 8, 12) for t in range(4)]
    streamed = list(model.stream(past.unbind(1), times=times, future=ahead))
    assert len(streamed) == 4
    for length in (1, 4):
        expected = model.predict(
            past[:, :length], 1, times=times[:length], future=ahead[length - 1][:, None]
        )
        torch.testing.assert_close(streamed[length - 1], expected[:, 0])
    with pytest.raises(DataError, match="1 h"):
        list(model.stream(past.unbind(1), times=times[[0, 2, 3]], future=ahead))


def test_static_maps_are_saved_with_the_model(tmp_path: Path) -> None:
    model = create(static=2, size=[8, 12])
    plain = model.predict(frames(), horizon=2)
    maps = torch.rand(2, 8, 12, generator=torch.Generator().manual_seed(2))
    model.network.get_buffer("static").copy_(maps)
    forecast = model.predict(frames(), horizon=2)
    assert not torch.equal(plain, forecast)
    loaded = zoo.load(f"local-dir:{zoo.save(model, tmp_path / 'model')}")
    assert torch.equal(loaded.predict(frames(), horizon=2), forecast)
    with pytest.raises(DataError, match="8×12"):
        loaded.predict(torch.rand(1, 3, 1, 16, 12), horizon=2)


def test_padded_frames_and_patches_read_all_inputs() -> None:
    options = {"in_channels": 2, "out_channels": 1, "inputs": ["day_of_year"], "static": 1}
    model = create(size=[8, 12], patch=3, **options)
    forecast = model.predict(frames(channels=2), horizon=2, times="2015-01-31")
    assert forecast.shape == (2, 2, 1, 8, 12)


@pytest.mark.parametrize(
    "options",
    [
        {"out_channels": 2},
        {"in_channels": 2, "out_channels": 1, "future_channels": 2},
        {"inputs": ["hour"]},
        {"inputs": ["hour_of_day", "hour_of_day"]},
        {"static": 1},
    ],
)
def test_inputs_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        create(**options)


RECIPE = """
[model]
name = "ms-convlstm"
hidden = 4
layers = 3
in_channels = 2
out_channels = 1
future_channels = 1
inputs = ["hour_of_day", "day_of_week", "lead_time"]
static = 1
size = [8, 12]

[data]
name = "arrays"
input_frames = 3
horizon = 2
static = "height.npy"
options = { folder = "arrays", path = "demand.npz", start = "2015-01-05", time_step = "30min" }

[train]
steps = 4
batch_size = 4
lr = 1e-2
checkpoint_every = 2

[evaluation]
every = 2
sequences = 5
batch_size = 4
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Data whose first channel follows the hour of day, the second one a known series."""
    root = tmp_path / "data"
    (root / "arrays").mkdir(parents=True)
    random = np.random.default_rng(0)
    hours = np.arange(240)[:, None, None] / 2
    series = random.random((240, 1, 1)) + np.zeros((240, 8, 12))
    demand = 5 + 4 * np.sin(2 * np.pi * hours / 24) + series
    values = np.stack([demand, series], axis=1).astype(np.float32)
    np.savez(root / "arrays" / "demand.npz", demand=values)
    np.save(root / "height.npy", 1000 * random.random((8, 12)))
    return root


def test_training_reads_all_inputs_and_resumes_bit_for_bit(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(recipe, whole, data_root=root).finished
    train(recipe, parts, data_root=root, max_minutes=0)
    assert train(recipe, parts, data_root=root, resume=True).finished
    model, again = (zoo.load(f"local-dir:{run}") for run in (whole, parts))
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    maps = model.network.get_buffer("static")
    torch.testing.assert_close(float(maps.mean()), 0.0, atol=1e-5, rtol=0)
    torch.testing.assert_close(float(maps.std(correction=0)), 1.0)
    report = evaluate(model, root=root, sequences=3)
    assert report["forecast"]["model"]["mse"] is not None
    assert report["forecast"]["persistence"]["mse"] is not None


def test_evaluation_equals_predict(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    train(recipe, tmp_path / "run", data_root=root, settings=[("train.steps", 1)])
    model = zoo.load(f"local-dir:{tmp_path / 'run'}")
    report = evaluate(model, root=root, sequences=1)
    dataset = zoo.data.open_dataset(
        "arrays", "test", root=root, frames=5, **model.config.data.options
    )
    truth = dataset.labeled(0).transpose("time", "channel", "y", "x")
    forecast = model.predict(truth[:3], horizon=2, future=truth.values[3:, 1:])
    error = (forecast.values[:, 0] - truth.values[3:, 0]) / (
        model.config.data.high - model.config.data.low
    )
    measured = report["forecast"]["model"]["mse"]
    np.testing.assert_allclose((error**2).sum(axis=(1, 2)).mean(), measured, rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        (("data.options.start", None), DataError),
        (("data.static", None), ConfigError),
        (("data.static", "other.npy"), DataError),
        (("data.static", "arrays"), DataError),
        (("model.static", 2), ConfigError),
        (("model.size", [8, 8]), ConfigError),
        (("model.in_channels", 3), ConfigError),
        (("augment.mirror", True), ConfigError),
    ],
    ids=str,
)
def test_recipe_whose_inputs_do_not_fit_is_refused(
    root: Path, tmp_path: Path, setting: tuple[str, Any], error: type[Exception]
) -> None:
    recipe, (key, value) = tmp_path / "recipe.toml", setting
    text = RECIPE
    if value is None:  # TOML has no null: remove the key
        text = text.replace(' start = "2015-01-05",', "").replace(', time_step = "30min"', "")
        if key == "data.static":
            text = RECIPE.replace('static = "height.npy"\n', "")
    recipe.write_text(text)
    settings = [] if value is None else [(key, value)]
    with pytest.raises(error):
        train(recipe, tmp_path / "run", data_root=root, settings=settings)


def ensemble_model(**options: Any) -> zoo.Forecaster:
    return create(noise=2, **options)


def test_members_differ_and_depend_on_seed_and_number_only() -> None:
    model = ensemble_model()
    forecast = model.predict(frames(), horizon=2, members=3)
    assert forecast.shape == (3, 2, 2, 1, 8, 12)
    assert not torch.equal(forecast[0], forecast[1])
    torch.testing.assert_close(model.predict(frames(), 2, members=5)[:3], forecast)
    torch.testing.assert_close(model.predict(frames(), 3, members=3)[:, :, :2], forecast)
    torch.testing.assert_close(model.predict(frames(), 2), forecast[0])
    torch.testing.assert_close(model.predict(frames()[:1], 2, members=3), forecast[:, :1])
    assert not torch.equal(model.predict(frames(), 2, members=3, seed=1), forecast)
    one = model.predict(frames()[0, :, 0].numpy(), horizon=2, members=3)
    np.testing.assert_allclose(one, forecast[:, 0, :, 0].numpy(), atol=1e-6)


def test_members_are_a_dimension_of_a_data_array() -> None:
    forecast = ensemble_model().predict(labeled(frames()[0]), horizon=2, members=3)
    assert forecast.dims == ("member", "time", "y", "x")
    assert forecast.sizes["member"] == 3
    several = labeled(frames()[0]).expand_dims("member")
    with pytest.raises(DataError, match="member"):
        ensemble_model().predict(several, horizon=2, members=3)


def test_members_need_a_model_that_reads_noise() -> None:
    with pytest.raises(ConfigError, match=r"model\.noise"):
        create().predict(frames(), horizon=2, members=3)
    with pytest.raises(ConfigError, match="members"):
        ensemble_model().predict(frames(), horizon=2, members=0)
    with pytest.raises(ConfigError, match="seed"):
        ensemble_model().predict(frames(), horizon=2, members=1, seed=-1)


def test_stream_reads_the_noise_of_the_first_member() -> None:
    model = ensemble_model()
    streamed = list(model.stream(frames(4).unbind(1), seed=7))
    torch.testing.assert_close(
        streamed[-1], model.predict(frames(4), 1, members=1, seed=7)[0, :, 0]
    )


def test_ensemble_is_trained_with_the_crps() -> None:
    model = ensemble_model()
    sequences, fed = frames(4), torch.ones(2, 3, dtype=torch.bool)
    noise = torch.randn(2, 2, 3, 2, 8, 12, generator=torch.Generator().manual_seed(0))
    objective = Objective(model, LossRecipe(terms={"crps": {"members": 2}}))
    with torch.no_grad():
        loss = objective(sequences, fed, noise=noise)
        members = [model(sequences[:, :-1], 1, noise[:, m]) for m in range(2)]
        truth = sequences[:, 1:]
        known = torch.ones_like(truth, dtype=torch.bool)
        crps = create_loss("crps")
        expected = crps(torch.stack(members), truth, known, data=model.config.data, progress=0.0)
    torch.testing.assert_close(loss, expected)
    with_squared = Objective(model, LossRecipe(l2=1, terms={"crps": {"members": 2}}))
    squared = sum((m - truth).square().sum(dim=(2, 3, 4)).mean(dim=1) for m in members) / 2
    torch.testing.assert_close(with_squared(sequences, fed, noise=noise), expected + squared)
    with pytest.raises(ConfigError, match="crps"):
        Objective(model)


def test_ensemble_resumes_bit_for_bit_in_any_number_of_parts(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    text = RECIPE.replace("static = 1", "static = 1\nnoise = 1")
    text = text.replace("[evaluation]", '[evaluation]\nmetric = "crps"\nselect = "best"')
    recipe.write_text(text + "\n[loss.terms.crps]\nmembers = 3\n")
    whole, stopped, split = (tmp_path / name for name in ("whole", "stopped", "split"))
    assert train(recipe, whole, data_root=root).finished
    train(recipe, stopped, data_root=root, max_minutes=0)
    assert train(recipe, stopped, data_root=root, resume=True).finished
    train(recipe, split, data_root=root, settings=[("memory.accumulate", 2)])
    model, again, parts = (zoo.load(f"local-dir:{run}") for run in (whole, stopped, split))
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
        torch.testing.assert_close(tensor, parts.network.state_dict()[name], atol=1e-5, rtol=1e-3)
    scores = {line["step"]: line["crps"] for line in log(whole) if "crps" in line}
    facts = json.loads((whole / "metrics.json").read_text())["training"]["validation"]
    best = min(scores, key=scores.__getitem__)
    assert facts == {"metric": "crps", "best": scores[best], "step": best}
    without = [("evaluation.metric", "crps"), ("model.noise", 0), ("loss.terms", {})]
    with pytest.raises(ConfigError, match=r"model\.noise"):
        train(recipe, tmp_path / "other", data_root=root, settings=without)


def test_card_shows_the_arguments_that_inputs_need() -> None:
    config = create(in_channels=2, out_channels=1, future_channels=1, inputs=["hour_of_day"]).config
    assert more_arguments(config) == ', times="2015-01-31T12:00", future=known'
    assert more_arguments(ensemble_model().config) == ", members=20"
    assert more_arguments(create(inputs=["lead_time"]).config) == ""


def test_times_of_drawn_sequences_are_those_of_their_frames(root: Path) -> None:
    options = {"path": "demand.npz", "start": "2015-01-05", "time_step": "30min"}
    whole = zoo.data.open_dataset("arrays", "train", root=root, frames=5, **options)
    drawn = zoo.data.open_dataset(
        "arrays", "train", root=root, frames=5, sequences=7, seed=1, **options
    )
    places = {str(whole.when(index)[0]): index for index in range(len(whole))}
    chosen = [places[str(drawn.when(index)[0])] for index in range(7)]
    assert chosen != list(range(7))
    for index, place in enumerate(chosen):
        assert torch.equal(drawn[index], whole[place])


def test_command_reads_times_and_the_known_future(tmp_path: Path, cli: Cli) -> None:
    model = create(in_channels=2, out_channels=1, future_channels=1, inputs=["hour_of_day"])
    folder = zoo.save(model, tmp_path / "model")
    past, future = frames(channels=2)[0].numpy(), frames(2)[0].numpy()
    np.save(tmp_path / "past.npy", past)
    np.savez(tmp_path / "future.npz", holidays=future)
    arguments = [
        "predict",
        f"local-dir:{folder}",
        tmp_path / "past.npy",
        "-o",
        tmp_path / "out.npy",
    ]
    arguments += ["--horizon", "2", "--future", tmp_path / "future.npz"]
    assert "hour of day" in cli.fail(*arguments)
    cli.succeed(*arguments, "--times", "2015-01-31T22:30")
    expected = model.predict(past, 2, times="2015-01-31T22:30", future=future)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    (tmp_path / "future.npz").write_text("not an array")
    assert "future.npz" in cli.fail(*arguments, "--times", "2015-01-31T22:30")
