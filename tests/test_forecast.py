"""Frames in every form to forecasts, the stream, and what is said of frames that do not fit."""

import re

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import ZooError


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


def refused(expected):
    """A ZooError of one line that says `expected`."""
    return pytest.raises(ZooError, match=r"\A[^\n]*" + re.escape(expected) + r"[^\n]*\Z")


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
def test_the_forecast_has_the_form_of_the_frames(model, form, shape, expected):
    frames = noise(*shape)
    forecast = model.predict(form(frames), 2)
    assert type(forecast) is type(form(frames))
    assert forecast.shape == expected
    whole = frames if frames.ndim == 5 else frames.reshape(1, shape[0], 1, 8, 6)
    with torch.no_grad():
        same = model(whole, 2)[:, -2:].clamp(0, 1)
    np.testing.assert_array_equal(np.asarray(forecast), same.reshape(expected).numpy())


def test_a_stream_has_the_form_of_its_frames(model):
    frames = noise(2, 3, 1, 8, 6)
    with torch.no_grad():
        expected = model(frames, 1).clamp(0, 1)
    assert torch.equal(torch.stack(list(model.stream(frames.unbind(1))), 1), expected)
    for one in (frames[0], frames[0].numpy(), frames[0, :, 0], frames[0, :, 0].numpy()):
        got = list(model.stream(one))
        assert type(got[0]) is type(one)
        assert got[0].shape == one[0].shape
        np.testing.assert_allclose(
            np.stack(got).reshape(3, 1, 8, 6), expected[0].numpy(), atol=1e-6
        )


def test_a_stream_takes_frames_as_they_come(model):
    taken = []

    def live():
        for frame in noise(3, 8, 6):
            taken.append(frame)
            yield frame

    for count, _ in enumerate(model.stream(live()), start=1):
        assert len(taken) == count
    assert len(taken) == 3


def test_frames_of_a_stream_have_one_size(model):
    stream = model.stream([noise(8, 6), noise(8, 8)])
    next(stream)
    with refused("(8, 8)"):
        next(stream)


@pytest.mark.parametrize("form", [torch.asarray, np.asarray], ids=["torch", "numpy"])
def test_pictures_of_uint8(model, form):
    frames = (noise(3, 8, 6) * 255).round()
    forecast = model.predict(form(frames.to(torch.uint8)), 2)
    assert forecast.dtype == form(frames.to(torch.uint8)).dtype
    same = (model.predict(frames / 255, 2) * 255).round()
    assert np.array_equal(np.asarray(forecast), same.numpy())


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "bool", "int32"])
def test_numpy_of_any_number(model, dtype):
    frames = noise(3, 8, 6).round().numpy()
    forecast = model.predict(frames.astype(dtype), 1)
    np.testing.assert_array_equal(forecast, model.predict(frames, 1))


def test_numpy_views_that_are_read_only(model):
    frames = noise(3, 8, 6).numpy()[::-1, :, ::-1]
    frames.flags.writeable = False
    expected = model.predict(frames.copy(), 1)
    np.testing.assert_array_equal(model.predict(frames, 1), expected)


def test_frames_are_left_as_they_were(model):
    frames = noise(2, 3, 1, 8, 6)
    before = frames.clone()
    model.predict(frames, 2)
    assert torch.equal(frames, before)


# Units


def test_units_of_the_data():
    data = {"unit": "dBZ", "low": -10.0, "high": 70.0}
    scaled, in_units = make(), make(data=data)
    frames = noise(3, 8, 6)
    expected = scaled.predict(frames, 2)
    torch.testing.assert_close(in_units.predict(frames * 80 - 10, 2), expected * 80 - 10)
    # Beyond the range is the end of the range; uint8 are numbers like any other.
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


def test_the_horizon_by_default():
    frames = noise(2, 8, 6)
    assert make().predict(frames).shape == (1, 8, 6)
    assert make(data={"horizon": 3}).predict(frames).shape == (3, 8, 6)
    assert make(data={"horizon": 3}).predict(frames, 2).shape == (2, 8, 6)


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_that_is_none(model, horizon):
    with refused(f"horizon is {horizon}"):
        model.predict(noise(2, 8, 6), horizon)
    with refused(f"horizon is {horizon}"):
        model(noise(1, 2, 1, 8, 6), horizon)


# What does not fit


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_missing_values_are_named_by_frame(model, value):
    frames = noise(4, 8, 6).numpy()
    frames[2, 3, 3] = frames[3, 0, 0] = value
    with refused("2 NaN or infinite values, the first in frame 2"):
        model.predict(frames, 1)
    with refused("NaN"):
        list(model.stream(frames))


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (0, 1.1)])
def test_intensities_out_of_range(model, low, high):
    frames = torch.linspace(low, high, 96).reshape(2, 8, 6)
    with refused(f"range from {low:g} to {high:g}"):
        model.predict(frames, 1)


def test_a_little_beyond_is_clipped(model):
    frames = torch.linspace(-0.005, 1.005, 96).reshape(2, 8, 6)
    assert torch.equal(model.predict(frames, 1), model.predict(frames.clamp(0, 1), 1))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (noise(2, 3, 8, 6), "frames have 3 channels"),
        (noise(1, 2, 3, 8, 6), "frames have 3 channels"),
        (noise(8, 6), "(8, 6); expected (B, T, C, H, W)"),
        (noise(1, 1, 1, 1, 8, 6), "expected (B, T, C, H, W)"),
        (torch.tensor(0.5), "expected (B, T, C, H, W)"),
        (noise(0, 8, 6), "frames are empty"),
        (noise(2, 0, 1, 8, 6), "frames are empty"),
        (noise(0, 2, 1, 8, 6), "frames are empty"),
        (noise(2, 0, 6), "frames are empty"),
        (np.full((2, 8, 6), "a"), "expected real numbers"),
        (np.ones((2, 8, 6), complex), "expected real numbers"),
        (torch.ones(2, 8, 6, dtype=torch.complex64), "expected real numbers"),
        ([[1.0]], "frames are a list; give a torch tensor, a numpy array or an xarray"),
    ],
)
def test_frames_that_do_not_fit(model, frames, said):
    with refused(said):
        model.predict(frames, 1)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (noise(3, 8, 6), "frames have 3 channels"),
        (noise(6), "; expected (B, "),
        (noise(1, 1, 1, 8, 6), "; expected (B, "),
        (noise(0, 6), "frames are empty"),
    ],
)
def test_frames_of_a_stream_that_do_not_fit(model, frame, said):
    with refused(said):
        next(model.stream([frame]))


def test_scaled_frames_have_five_axes(model):
    with refused("(2, 8, 6); expected (B, T, C, H, W)"):
        model(noise(2, 8, 6), 1)


# State of the model


def test_predicting_takes_no_gradients_and_calling_keeps_them(model):
    frames = noise(1, 2, 1, 8, 6).requires_grad_()
    assert not model.predict(frames, 1).requires_grad
    assert not any(frame.requires_grad for frame in model.stream(frames.unbind(1)))
    model(frames, 2)[:, -1].sum().backward()
    assert frames.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(training):
    model = make().train(training)
    during = []
    model.network.register_forward_hook(lambda *_: during.append(model.network.training))
    model.predict(noise(2, 8, 6), 1)
    list(model.stream(noise(1, 8, 6)))
    with refused("NaN"):
        model.predict(noise(2, 8, 6) * torch.nan, 1)
    assert during == [False] * 3
    assert all(module.training == training for module in model.modules())


# Scheduled sampling


def test_what_is_not_fed_is_the_models_own(model):
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


def test_all_or_nothing_fed(model):
    frames = noise(2, 5, 1, 8, 6)
    with torch.no_grad():
        teacher = model.rollout(frames, 1, torch.ones(2, 5, dtype=torch.bool)).frames
        free = model.rollout(frames, 1, torch.zeros(2, 5, dtype=torch.bool)).frames
        assert torch.equal(teacher, model(frames, 1))
        assert torch.equal(free, model(frames[:, :1], 5))
