"""Views into networks: what layers, gates and gradients show."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
import zoo.inspect
from zoo.data.clips import handwritten_digits
from zoo.errors import ConfigError
from zoo.registry import architectures

PAST = handwritten_digits()[:4]


def tiny(name="ms-convlstm", **options):
    return zoo.create(name, **{"hidden": 4, "layers": 3, **options}).eval()


def past(channels=1, size=16):
    frames = torch.rand(1, 3, channels, size, size, generator=torch.Generator().manual_seed(0))
    return frames


def test_features_are_what_layers_put_out():
    model = tiny()
    frames = past()
    outputs = zoo.inspect.features(model, frames, horizon=2)
    assert list(outputs) == ["layer0", "layer1", "layer2"]
    assert outputs["layer1"].dims == ("sample", "time", "channel", "y1", "x1")
    assert outputs["layer1"].shape == (1, 4, 4, 8, 8)
    assert outputs["time"].values.tolist() == [-2, -1, 0, 1]
    # The head is a 1×1 convolution of the top layer's output.
    top = torch.as_tensor(outputs["layer2"].values[0])
    with torch.no_grad():
        predictions = model.network.head(top, None)
        torch.testing.assert_close(predictions, model(frames, 2)[0])


@pytest.mark.parametrize("name", [name for name in architectures() if name.startswith("ms-")])
def test_every_cell_has_features_and_gates(name):
    model = tiny(name, size=(16, 16)) if "openstl" in name else tiny(name)
    assert zoo.inspect.features(model, past(), 1).sizes["time"] == 3
    recorded = zoo.inspect.gates(model, past(), 1)
    assert recorded["mean"].shape == (3, 3)
    assert np.isfinite(recorded["mean"]).all()
    assert ((recorded["mean"] >= 0) & (recorded["mean"] <= 1)).all()
    np.testing.assert_allclose(recorded["histogram"].sum("value"), 1)


def test_gates_are_those_of_the_layer():
    model = tiny("convlstm")
    with torch.no_grad():
        for cell, bias in zip(model.network.cells, (30.0, 0.0, -30.0), strict=True):
            cell.gates.weight.zero_()
            cell.gates.bias.fill_(bias)
    recorded = zoo.inspect.gates(model, past(), 1)
    assert recorded["open"].values[:, 0].tolist() == [1, 0, 0]
    assert recorded["closed"].values[:, 0].tolist() == [0, 0, 1]
    np.testing.assert_allclose(recorded["mean"].values[1], 0.5)
    # c grows by σ(30) · tanh(30) = 1 in every step of the first layer.
    np.testing.assert_allclose(recorded["state"].values[0, :, 1], [1, 2, 3], rtol=1e-5)


def test_model_is_left_as_it_was():
    model = tiny().train()
    hooks = [len(cell._forward_hooks) for cell in model.network.cells]
    zoo.inspect.features(model, past(), 1)
    zoo.inspect.fields(model, past())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [len(cell._forward_hooks) for cell in model.network.cells] == hooks


def test_theoretical_field_of_three_stacked_layers_is_7_by_7():
    boxes = [field.theoretical for field in zoo.inspect.fields(tiny("convlstm"), past())]
    assert boxes == [(3, 3), (5, 5), (7, 7), (7, 7)]


def test_pyramid_sees_more_than_its_stack():
    stack, pyramid = (
        zoo.inspect.fields(tiny(name), past(size=32)) for name in ("convlstm", "ms-convlstm")
    )
    assert pyramid[-1].theoretical > stack[-1].theoretical
    assert pyramid[1].radius > stack[1].radius  # after the first halving


def test_effective_field_is_within_the_theoretical_one():
    for field in zoo.inspect.fields(tiny(), past(size=32)):
        inside = field.heat > 0
        height, width = (np.ptp(np.flatnonzero(inside.any(axis))) + 1 for axis in (1, 0))
        assert height <= field.theoretical[0]
        assert width <= field.theoretical[1]
        np.testing.assert_allclose(field.heat.sum(), 1, rtol=1e-5)


def test_field_of_a_layer_that_ignores_its_input_has_no_radius():
    model = tiny("convlstm")
    nn.init.zeros_(model.network.cells[0].gates.weight)
    assert np.isnan(zoo.inspect.fields(model, past())[0].radius)


def test_influence_of_past_frames_adds_up_to_one():
    influence = zoo.inspect.lag_influence(tiny(), past(), horizon=2)
    assert influence.shape == (2, 3)
    np.testing.assert_allclose(influence.sum(axis=1), 1, rtol=1e-5)


def test_only_the_last_frame_matters_to_a_network_without_memory():
    model = tiny("convlstm", forget_bias=-100.0)
    with torch.no_grad():
        for cell in model.network.cells:
            cell.gates.weight[:, -cell.channels :] = 0  # of h
    np.testing.assert_allclose(zoo.inspect.lag_influence(model, past(), 1), [[0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("baseline", ["black", "mean"])
def test_attributions_add_up_to_the_difference_of_the_forecasts(baseline):
    model, frames = tiny(), past()
    attributed, gap = zoo.inspect.attribution(
        model, frames, (8, 7, 2), baseline=baseline, steps=200
    )
    assert attributed.shape == (3, 1, 16, 16)
    start = torch.zeros_like(frames) if baseline == "black" else frames.mean(1, keepdim=True)
    with torch.no_grad():
        first, last = (
            float(model(x, 2)[0, -1, 0, 8, 7]) for x in (start.expand_as(frames), frames)
        )
    assert attributed.sum() == pytest.approx(last - first, abs=1e-5)
    assert abs(gap) < 1e-5


@pytest.mark.parametrize("at", [(16, 0, 1), (0, 16, 1), (0, 0, 0)])
def test_pixel_outside_the_forecast_is_rejected(at):
    with pytest.raises(ConfigError, match="16"):
        zoo.inspect.attribution(tiny(), past(), at)


@pytest.fixture
def clip(tmp_path):
    np.save(tmp_path / "clip.npy", PAST)
    return tmp_path / "clip.npy"


@pytest.fixture
def model_folder(tmp_path):
    zoo.save(tiny(), tmp_path / "model")
    return f"local-dir:{tmp_path / 'model'}"


@pytest.mark.parametrize("arguments", [("layers",), ("field",), ("gates",)])
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figures_are_written_in_every_format(cli, model_folder, clip, tmp_path, arguments, suffix):
    output = tmp_path / f"figure{suffix}"
    cli.succeed("inspect", *arguments, model_folder, clip, "-o", output)
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert output.read_bytes().startswith(start)


def test_layers_move_in_an_animation(cli, model_folder, clip, tmp_path):
    output = tmp_path / "layers.gif"
    cli.succeed("inspect", "layers", model_folder, clip, "--horizon", 3, "-o", output)
    with Image.open(output) as animation:
        assert animation.n_frames == 6


def test_attribution_reports_its_sum(cli, model_folder, clip, tmp_path):
    report = json.loads(
        cli.succeed(
            *("inspect", "attribution", model_folder, clip, "--at", "20,30,2", "--json"),
            *("-o", tmp_path / "figure.png"),
        )
    )
    assert len(report["by_frame"]) == 4
    assert sum(report["by_frame"]) == pytest.approx(report["sum"])


def test_field_reports_radii(cli, model_folder, tmp_path):
    report = json.loads(
        cli.succeed("inspect", "field", model_folder, "--json", "-o", tmp_path / "field.png")
    )
    assert report["layer 0"]["theoretical"] == [3, 3]
    assert report["forecast"]["radius"] > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("layers", "-o", "x.jpg"), "jpg"),
        (("layers", "-o", "missing/x.png"), "missing"),
        (("layers", "missing.npy", "-o", "x.png"), "missing.npy"),
        (("layers", "--channel", "4", "-o", "x.png"), "channel 4"),
        (("attribution", "--at", "99,0,1", "-o", "x.png"), "99"),
    ],
)
def test_bad_input_is_one_line(cli, model_folder, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert named in cli.fail("inspect", arguments[0], model_folder, *arguments[1:])
    assert not (tmp_path / "x.png").exists()
