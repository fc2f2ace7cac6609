"""Forecasts of frames in every form, streaming, and errors about frames that do not fit."""

import re

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import ConfigError, DataError, ZooError


def make(**options):
    torch.manual_seed(0)
    model = zoo.create("convlstm", **{"hidden": 4, "layers": 2} | options)
    torch.nn.init.constant_(model.network.head.bias, 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return make()


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def raises(expected, error=ZooError):
    """An error whose message is one line with these names or numbers."""
    return pytest.raises(error, match=r"\A[^\n]*" + re.escape(expected) + r"[^\n]*\Z")


# Forms


@pytest.mark.parametrize("form", [torch.asarray, np.asarray], ids=["torch", "numpy"])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 8, 6), (2, 8, 6)),
        ((3, 1, 8, 6), (2, 1, 8, 6)),
        ((1, 1, 8, 6), (2, 1, 8, 6)),
        ((2, 3, 1, 8, 6), (2, 2, 1, 8, 6)),
        ((1, 3, 1, 8, 6), (1, 2, 1, 8, 6)),
    ],
)
def test_forecast_has_the_form_of_the_frames(model, form, shape, expected):
    frames = noise(*shape)
    forecast = model.predict(form(frames), 2)
    assert type(forecast) is type(form(frames))
    assert forecast.shape == expected
    whole = frames if frames.ndim == 5 else frames.reshape(1, shape[0], 1, 8, 6)
    with torch.no_grad():
        same = model(whole, 2)[:, -2:].clamp(0, 1)
    np.testing.assert_array_equal(np.asarray(forecast), same.reshape(expected).numpy())


def test_stream_has_the_form_of_its_frames(model):
    frames = noise(2, 3, 1, 8, 6)
    with torch.no_grad():
        expected = model(frames, 1).clamp(0, 1)
    assert torch.equal(torch.stack(list(model.stream(frames.unbind(1))), 1), expected)
    for sequence in (frames[0], frames[0].numpy(), frames[0, :, 0], frames[0, :, 0].numpy()):
        streamed = list(model.stream(sequence))
        assert type(streamed[0]) is type(sequence)
        assert streamed[0].shape == sequence[0].shape
        np.testing.assert_allclose(
            np.stack(streamed).reshape(3, 1, 8, 6), expected[0].numpy(), atol=1e-6
        )


def test_stream_predicts_each_frame_as_it_arrives(model):
    taken = []

    def live():
        for frame in noise(3, 8, 6):
            taken.append(frame)
            yield frame

    for count, _ in enumerate(model.stream(live()), start=1):
        assert len(taken) == count
    assert len(taken) == 3


def test_stream_rejects_frames_of_different_sizes(model):
    stream = model.stream([noise(8, 6), noise(8, 8)])
    next(stream)
    with raises("(8, 8)", DataError):
        next(stream)


@pytest.mark.parametrize("form", [torch.asarray, np.asarray], ids=["torch", "numpy"])
def test_uint8_images_give_uint8_forecasts(model, form):
    frames = (noise(3, 8, 6) * 255).round()
    forecast = model.predict(form(frames.to(torch.uint8)), 2)
    assert forecast.dtype == form(frames.to(torch.uint8)).dtype
    same = (model.predict(frames / 255, 2) * 255).round()
    assert np.array_equal(np.asarray(forecast), same.numpy())


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "bool", "int32"])
def test_numpy_arrays_of_any_number_type(model, dtype):
    frames = noise(3, 8, 6).round().numpy()
    forecast = model.predict(frames.astype(dtype), 1)
    np.testing.assert_array_equal(forecast, model.predict(frames, 1))


def test_read_only_numpy_views(model):
    frames = noise(3, 8, 6).numpy()[::-1, :, ::-1]
    frames.flags.writeable = False
    expected = model.predict(frames.copy(), 1)
    np.testing.assert_array_equal(model.predict(frames, 1), expected)


def test_predicting_leaves_the_frames_unchanged(model):
    frames = noise(2, 3, 1, 8, 6)
    before = frames.clone()
    model.predict(frames, 2)
    assert torch.equal(frames, before)


# Units


def test_forecast_is_in_units_of_the_data_and_clipped_to_their_range():
    data = {"unit": "dBZ", "low": -10.0, "high": 70.0}
    scaled, in_units = make(), make(data=data)
    frames = noise(3, 8, 6)
    expected = scaled.predict(frames, 2)
    torch.testing.assert_close(in_units.predict(frames * 80 - 10, 2), expected * 80 - 10)
    # Values outside the range count as its ends, and uint8 values as numbers in that unit.
    low, high = torch.full((2, 8, 6), -99.0), torch.full((2, 8, 6), 200.0)
    assert torch.equal(in_units.predict(low, 1), in_units.predict(low * 0 - 10, 1))
    assert torch.equal(in_units.predict(high.byte(), 1), in_units.predict(high * 0 + 70, 1))


def test_predictions_are_clipped_to_the_range():
    model = make(data={"unit": "K", "low": 200.0, "high": 300.0})
    for bias, end in ((-99.0, 200.0), (99.0, 300.0)):
        torch.nn.init.constant_(model.network.head.bias, bias)
        assert (model.predict(noise(2, 8, 6) + 250, 2) == end).all()
        assert (next(iter(model.stream(noise(2, 8, 6) + 250))) == end).all()


# Horizon


def test_horizon_defaults_to_that_of_the_data():
    frames = noise(2, 8, 6)
    assert make().predict(frames).shape == (1, 8, 6)
    assert make(data={"horizon": 3}).predict(frames).shape == (3, 8, 6)
    assert make(data={"horizon": 3}).predict(frames, 2).shape == (2, 8, 6)


@pytest.mark.parametrize("horizon", [0, -1])
def test_horizon_below_one_is_an_error(model, horizon):
    with raises(f" {horizon}; ", ConfigError):
        model.predict(noise(2, 8, 6), horizon)
    with raises(f" {horizon}; ", ConfigError):
        model(noise(1, 2, 1, 8, 6), horizon)


# Frames that do not fit


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_missing_values_are_counted_and_located(model, value):
    frames = noise(4, 8, 6).numpy()
    frames[2, 3, 3] = frames[3, 0, 0] = value
    with pytest.raises(ZooError, match=r"\A[^\n]*\b2 NaN[^\n]*frame 2\b[^\n]*\Z"):
        model.predict(frames, 1)
    with raises("NaN"):
        list(model.stream(frames))


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (0, 1.1)])
def test_intensities_out_of_range_are_an_error(model, low, high):
    frames = torch.linspace(low, high, 96).reshape(2, 8, 6)
    with raises(f"{low:g} to {high:g}"):
        model.predict(frames, 1)


def test_intensities_slightly_out_of_range_are_clipped(model):
    frames = torch.linspace(-0.005, 1.005, 96).reshape(2, 8, 6)
    assert torch.equal(model.predict(frames, 1), model.predict(frames.clamp(0, 1), 1))


@pytest.mark.parametrize(
    ("frames", "named"),
    [
        (noise(2, 3, 8, 6), "3 channels"),
        (noise(1, 2, 3, 8, 6), "3 channels"),
        (noise(8, 6), "(8, 6); expected (B, T, C, H, W)"),
        (noise(1, 1, 1, 1, 8, 6), "expected (B, T, C, H, W)"),
        (torch.tensor(0.5), "expected (B, T, C, H, W)"),
        (noise(0, 8, 6), "empty"),
        (noise(2, 0, 1, 8, 6), "empty"),
        (noise(0, 2, 1, 8, 6), "empty"),
        (noise(2, 0, 6), "empty"),
        (np.full((2, 8, 6), "a"), "real numbers"),
        (np.ones((2, 8, 6), complex), "real numbers"),
        (torch.ones(2, 8, 6, dtype=torch.complex64), "real numbers"),
        ([[1.0]], " list; "),
    ],
)
def test_frames_that_do_not_fit_are_an_error(model, frames, named):
    with raises(named):
        model.predict(frames, 1)


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (noise(3, 8, 6), "3 channels"),
        (noise(6), "(B, "),
        (noise(1, 1, 1, 8, 6), "(B, "),
        (noise(0, 6), "empty"),
    ],
)
def test_stream_of_frames_that_do_not_fit_is_an_error(model, frame, named):
    with raises(named):
        next(model.stream([frame]))


def test_calling_the_model_needs_five_axes(model):
    with raises("(2, 8, 6); expected (B, T, C, H, W)", DataError):
        model(noise(2, 8, 6), 1)


# State of the model


def test_predicting_takes_no_gradients_and_calling_keeps_them(model):
    frames = noise(1, 2, 1, 8, 6).requires_grad_()
    assert not model.predict(frames, 1).requires_grad
    assert not any(frame.requires_grad for frame in model.stream(frames.unbind(1)))
    model(frames, 2)[:, -1].sum().backward()
    assert frames.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored_after_predicting(training):
    model = make().train(training)
    during = []
    model.network.register_forward_hook(lambda *_: during.append(model.network.training))
    model.predict(noise(2, 8, 6), 1)
    list(model.stream(noise(1, 8, 6)))
    with raises("NaN"):
        model.predict(noise(2, 8, 6) * torch.nan, 1)
    assert during == [False] * 3
    assert all(module.training == training for module in model.modules())


# Scheduled sampling


def test_scheduled_sampling_reads_own_predictions_where_not_fed(model):
    frames = noise(2, 5, 1, 8, 6)
    fed = torch.tensor([[True, True, False, True, False], [False, False, True, False, False]])
    state, own, expected = None, None, []
    with torch.no_grad():
        for t in range(6):
            frame = own
            if t < 5:
                frame = torch.stack(
                    [frames[b, t] if t == 0 or fed[b, t] else own[b] for b in range(2)]
                )
            own, state = model.step(frame, state)
            expected.append(own)
        assert torch.equal(model.rollout(frames, 2, fed).frames, torch.stack(expected, dim=1))


def test_scheduled_sampling_with_all_or_only_the_first_frame_fed(model):
    frames = noise(2, 5, 1, 8, 6)
    with torch.no_grad():
        teacher = model.rollout(frames, 1, torch.ones(2, 5, dtype=torch.bool)).frames
        free = model.rollout(frames, 1, torch.zeros(2, 5, dtype=torch.bool)).frames
        assert torch.equal(teacher, model(frames, 1))
        assert torch.equal(free, model(frames[:, :1], 5))


@pytest.mark.parametrize("frames", [torch.zeros(2, 8, 8), np.zeros((2, 8, 8), dtype="uint8")])
def test_forecast_that_is_not_finite_is_an_error(frames):
    """As an image, NaN would be a color."""
    model = zoo.create("convlstm", hidden=2, layers=2)
    with torch.no_grad():
        model.network.head.bias.fill_(float("nan"))
    with pytest.raises(DataError, match="finite"):
        model.predict(frames, 2)
    with pytest.raises(DataError, match="finite"):
        list(model.stream(frames))


@pytest.mark.parametrize(
    ("size", "grad", "times"), [(256, True, 2), (256, False, 0), (64, True, 0)]
)
def test_training_on_large_maps_returns_freed_memory(monkeypatch, size, grad, times):
    calls = []
    monkeypatch.setattr("zoo.forecast.trim", lambda: calls.append(1))
    model = zoo.create("convlstm", hidden=8, layers=2, kernel_size=1)
    with torch.set_grad_enabled(grad):
        model(torch.rand(1, 4, 1, size, size), horizon=6)  # 9 steps
    assert len(calls) == times
