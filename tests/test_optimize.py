"""Fast settings: chosen by rules, checked against the plain model, and never saved."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli

import zoo
from zoo import optimize as settings
from zoo.errors import ConfigError
from zoo.optimize import optimize


@pytest.fixture
def model() -> zoo.Forecaster:
    torch.manual_seed(0)
    return zoo.create("predrnn", hidden=4, layers=2).eval()


@pytest.fixture
def long_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile for any work, with a backend that needs no compiler."""
    monkeypatch.setattr(settings, "LONG", {"cpu": 0.0})
    monkeypatch.setattr(settings, "COMPILE", {"backend": "eager", "dynamic": False})
    yield
    torch.compiler.reset()


def is_channels_last(model: zoo.Forecaster) -> bool:
    weights = [p for p in model.parameters() if p.ndim == 4 and min(p.shape) > 1]
    return all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def is_compiled(model: zoo.Forecaster) -> bool:
    return model.network._compiled_call_impl is not None


def test_small_grids_are_channels_last(model: zoo.Forecaster) -> None:
    frames = torch.rand(1, 3, 1, 16, 16)
    plain = model(frames, 3)
    assert optimize(model, (16, 16)) == model.optimized == ("channels_last",)
    assert is_channels_last(model)
    torch.testing.assert_close(model(frames, 3), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "work"),
    [
        ("predrnn", (16, 17), {}),
        ("predrnn", (16, 16), {"batch": 2}),
        ("predrnn", (16, 16), {"steps": 19}),
        ("trajgru", (16, 16), {}),
    ],
    ids=["grid", "batch", "steps", "cell"],
)
def test_nothing_is_chosen_where_it_is_not_faster(name, size, work) -> None:
    model = zoo.create(name, hidden=4, layers=2)
    assert optimize(model, size, **work) == model.optimized == ()
    assert not is_channels_last(model)


def test_settings_can_be_chosen_again(model: zoo.Forecaster) -> None:
    optimize(model, (16, 16))
    assert optimize(model, (16, 17)) == model.optimized == ()
    assert not is_channels_last(model)


def test_patches_make_the_grid_small() -> None:
    model = zoo.create("predrnn", hidden=4, layers=2, patch=4)
    assert optimize(model, (64, 64)) == ("channels_last",)


def test_models_with_known_inputs_of_one_size_are_checked(model: zoo.Forecaster) -> None:
    data = {"size": (8, 8), "time_step": 3600, "input_frames": 2, "horizon": 2}
    known = zoo.create("predrnn", hidden=4, layers=2, inputs=["lead_time"], noise=1, data=data)
    assert known.config.known_channels > 0
    assert optimize(known) == ("channels_last",)


def test_short_work_is_not_compiled(model: zoo.Forecaster) -> None:
    assert optimize(model, (32, 32), steps=settings.FEW) == ()
    assert not is_compiled(model)


@pytest.mark.slow
def test_long_work_is_compiled(model: zoo.Forecaster, long_work: None) -> None:
    frames = torch.rand(2, 2, 1, 20, 20)
    plain = model(frames, 2)
    assert optimize(model, (20, 20), batch=2, steps=settings.FEW) == ("compile",)
    assert is_compiled(model)
    assert not is_compiled(copy.deepcopy(model))
    torch.testing.assert_close(model.predict(frames, 2), plain[:, -2:].clamp(0, 1))


def test_settings_that_change_the_forecast_are_left_out(
    model: zoo.Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, forward = model(torch.ones(1, 2, 1, 8, 8), 1), type(model.network).forward

    def broken(network, frame, state):
        prediction, *rest = forward(network, frame, state)
        return (prediction + 1e-3 * is_channels_last(model), *rest)

    monkeypatch.setattr(type(model.network), "forward", broken)
    with pytest.warns(UserWarning, match=r"channels_last.*0\.00"):
        assert optimize(model, (8, 8)) == model.optimized == ()
    assert not is_channels_last(model)
    assert torch.equal(model(torch.ones(1, 2, 1, 8, 8), 1), plain)


def test_settings_that_fail_are_left_out(
    model: zoo.Forecaster, long_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "COMPILE", {"backend": fails})
    with pytest.warns(UserWarning, match=r"compile.*no compiler here"):
        assert optimize(model, (8, 8), steps=settings.FEW) == ()
    assert not is_compiled(model)
    assert not is_channels_last(model)
    assert model.predict(torch.rand(2, 8, 8), 1).shape == (1, 8, 8)


def fails(graph: object, inputs: object) -> None:
    raise OSError("no compiler here")


def test_optimizing_draws_no_random_numbers_and_keeps_the_mode(model: zoo.Forecaster) -> None:
    before = torch.get_rng_state()
    optimize(model.train(), (8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_an_optimized_model_is_saved_as_before(model: zoo.Forecaster, tmp_path: Path) -> None:
    plain = zoo.save(model, tmp_path / "plain")
    loaded = zoo.load(f"local-dir:{plain}", optimize="auto")
    assert loaded.optimized == ()  # frames of 64×64 by default
    assert optimize(loaded, (8, 8)) == ("channels_last",)
    again = zoo.save(loaded, tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (plain / name).read_bytes()


def test_load_optimizes_on_request(tmp_path: Path) -> None:
    ref = f"local-dir:{zoo.save(zoo.create('predrnn', hidden=2, patch=4), tmp_path / 'model')}"
    assert zoo.load(ref).optimized == zoo.load(ref, optimize="off").optimized == ()
    assert zoo.load(ref, optimize="auto").optimized == ("channels_last",)
    with pytest.raises(ConfigError, match="'fast'"):
        zoo.load(ref, optimize="fast")


def test_forecasts_may_enter_computations_with_gradients(model: zoo.Forecaster) -> None:
    frames = torch.rand(1, 3, 1, 8, 8)
    for frame in (model.predict(frames, 1)[:, 0], *model.stream(frames.unbind(1))):
        weight = torch.ones(1, requires_grad=True)
        (frame * weight).sum().backward()
        assert weight.grad is not None
        frame.add_(1)


def test_predict_says_what_it_chose(cli: Cli, tmp_path: Path, model: zoo.Forecaster) -> None:
    ref = f"local-dir:{zoo.save(model, tmp_path / 'model')}"
    np.save(tmp_path / "clip.npy", np.zeros((2, 8, 8), "float32"))
    few = ("predict", ref, tmp_path / "clip.npy", "-o", tmp_path / "future.npy")
    for options, shown in (
        (("--horizon", settings.FEW), True),
        (("--horizon", settings.FEW, "--optimize", "off"), False),
        (("--horizon", 2), False),
    ):
        result = cli(*few, *options)
        assert result.exit_code == 0, result.output
        assert ("channels_last" in result.stderr) == shown
