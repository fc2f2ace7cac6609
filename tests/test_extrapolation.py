"""Extrapolation: motion is found, frames move along it, and models start from the result."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zoo
from zoo.baselines import extrapolation, optical_flow, persistence
from zoo.config import Data
from zoo.data import open_dataset
from zoo.evaluate import evaluate
from zoo.extrapolation import RECENT, extrapolate, extrapolations, find_motion

REAL = Path(os.environ.get("ZOO_DATA", "data"))

INNER = slice(12, -12)  # what moves in from outside does not reach these rows and columns


def moving(dx: float, dy: float, steps: int = 7, size: int = 64, seed: int = 0) -> Tensor:
    """A smooth pattern that moves by (dx, dy) pixels a step, (1, steps, 1, size, size)."""
    draws = torch.Generator().manual_seed(seed)
    waves = torch.rand(12, 2, generator=draws) - 0.5  # radians a pixel
    phases = 6.3 * torch.rand(12, generator=draws)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    frames = []
    for t in range(steps):
        angle = waves[:, :1, None] * (x - dx * t) + waves[:, 1:, None] * (y - dy * t)
        frames.append(torch.cos(angle + phases[:, None, None]).mean(dim=0))
    return (0.5 + torch.stack(frames)[None, :, None]).clamp(0, 1)


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 99))
def test_motion_of_a_moving_pattern_is_found(dx: float, dy: float, seed: int) -> None:
    motion = find_motion(moving(dx, dy, steps=RECENT, seed=seed)[:, :, 0])
    assert motion.shape == (1, 2, 64, 64)
    inner = motion[0, :, INNER, INNER]
    expected = torch.tensor([dx, dy])[:, None, None].expand_as(inner)
    torch.testing.assert_close(inner, expected, atol=0.3, rtol=0)
    torch.testing.assert_close(inner.mean(dim=(1, 2)), expected[:, 0, 0], atol=0.1, rtol=0)


def test_motion_may_differ_from_place_to_place() -> None:
    left, right = moving(1.5, 0.0, RECENT), moving(0.0, -1.5, RECENT, seed=1)
    motion = find_motion(torch.cat([left, right], dim=-1)[:, :, 0])[0, :, INNER]
    assert motion[0, :, 12:40].mean() > 1.2
    assert motion[1, :, -40:-12].mean() < -1.2
    assert motion[0, :, -30:-12].abs().mean() < 0.4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_frames_without_contrast_do_not_move(value: float) -> None:
    assert not find_motion(torch.full((2, 3, 20, 24), value)).any()


def test_static_frames_do_not_move() -> None:
    still = moving(0, 0, steps=4)
    assert find_motion(still[:, :, 0]).abs().max() < 1e-4
    torch.testing.assert_close(extrapolations(still, 5, 2), still[:, :1].expand(-1, 5, -1, -1, -1))


def test_extrapolation_continues_a_moving_pattern() -> None:
    frames = moving(2.0, -1.0)
    forecast = extrapolations(frames[:, :4], 6, 3)[:, -3:]
    assert forecast.shape == frames[:, 4:].shape
    truth = frames[:, 4:, :, INNER, INNER]
    assert (forecast[..., INNER, INNER] - truth).abs().mean() < 0.02
    assert (frames[:, 3:4, :, INNER, INNER] - truth).abs().mean() > 0.08


def test_what_enters_the_frame_is_its_border() -> None:
    frame = torch.arange(8.0).expand(1, 1, 8, 8)
    right = torch.stack([torch.full((1, 8, 8), 3.0), torch.zeros(1, 8, 8)], dim=1)
    moved = extrapolate(frame, right, 2)
    assert moved.shape == (1, 2, 1, 8, 8)
    torch.testing.assert_close(moved[0, 0, 0, 0], torch.tensor([0.0, 0, 0, 0, 1, 2, 3, 4]))
    torch.testing.assert_close(moved[0, 1, 0, 0], torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 1]))


def test_the_first_frame_has_no_motion_and_stays() -> None:
    frames = moving(2, 0, steps=3)
    forecast = extrapolations(frames, 4, 2)
    assert forecast.shape == (1, 4, 1, 64, 64)
    assert torch.equal(forecast[:, 0], frames[:, 0])
    assert torch.equal(extrapolations(frames[:, :1], 3, 3), frames[:, :1].expand(-1, 3, -1, -1, -1))


def test_steps_do_not_depend_on_later_frames() -> None:
    frames = moving(2, 1, steps=5)
    changed = frames.clone()
    changed[:, 3:] = torch.rand(frames[:, 3:].shape)
    one, other = extrapolations(frames, 6, 2), extrapolations(changed, 6, 2)
    assert torch.equal(one[:, :3], other[:, :3])
    assert not torch.equal(one[:, 3:], other[:, 3:])


def test_fewer_steps_are_the_last_ones() -> None:
    frames = moving(2, 1, steps=5)
    assert torch.equal(extrapolations(frames, 3, 2), extrapolations(frames, 6, 2)[:, -3:])


def test_sequences_and_channels_move_by_themselves() -> None:
    one, other = moving(2, 1, steps=4), moving(-1, 0, steps=4, seed=1)
    together = torch.cat([torch.cat([one, other], dim=2), torch.cat([other, other], dim=2)])
    forecast = extrapolations(together, 5, 2)
    torch.testing.assert_close(forecast[:1, :, :1], extrapolations(one, 5, 2))
    torch.testing.assert_close(forecast[1:, :, 1:], extrapolations(other, 5, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_that_of_the_frames(dtype: torch.dtype) -> None:
    forecast = extrapolations(moving(1, 0, steps=3).to(dtype), 3, 1)
    assert forecast.dtype == dtype
    assert forecast.isfinite().all()


def create(**options: object) -> zoo.Forecaster:
    torch.manual_seed(0)
    data = {"horizon": 3, "input_frames": 4}
    arguments = {"hidden": 4, "layers": 3, "head": "change", "data": data, **options}
    return zoo.create("ms-convlstm", inputs=["lead_time", "extrapolation"], **arguments).eval()


def without_change(model: zoo.Forecaster) -> zoo.Forecaster:
    torch.nn.init.zeros_(model.network.head.conv.weight)
    return model


def test_head_starts_from_the_extrapolation() -> None:
    frames = moving(2, 1)
    forecast = without_change(create()).predict(frames[:, :4])
    torch.testing.assert_close(forecast, extrapolations(frames[:, :4], 6, 3)[:, -3:])


def test_only_forecast_channels_are_extrapolated() -> None:
    frames = torch.cat([moving(2, 1), moving(0, 0, seed=1)], dim=2)
    model = without_change(create(in_channels=2, out_channels=1))
    assert model.config.read_channels == 2 + 1 + 1
    torch.testing.assert_close(
        model.predict(frames[:, :4]), extrapolations(frames[:, :4, :1], 6, 3)[:, -3:]
    )


def test_stream_extrapolates_as_predict_does() -> None:
    model, frames = create(), moving(2, 1, steps=6)[0]
    streamed = list(model.stream(frames))
    for t in range(1, 7):
        torch.testing.assert_close(streamed[t - 1], model.predict(frames[:t], 1)[0])


def test_missing_values_are_read_as_nothing() -> None:
    frames = moving(2, 1, steps=4)
    frames[..., :8, :8] = torch.nan
    model = create(data={"horizon": 3, "input_frames": 4, "missing": True})
    forecast = model.predict(frames)
    assert forecast[..., :8, :8].isnan().all()
    assert forecast[..., 8:, :].isfinite().all()


def test_rollout_extrapolates_by_itself() -> None:
    model, frames = create(), moving(2, 1, steps=4)
    torch.testing.assert_close(model(frames, 3)[:, -3:].clamp(0, 1), model.predict(frames))


def test_step_needs_the_extrapolation() -> None:
    with pytest.raises(zoo.errors.DataError, match="known inputs"):
        create().step(moving(1, 0)[:, 0])


def test_gradients_flow_to_the_frame_that_is_moved() -> None:
    frames = moving(2, 1, steps=4).requires_grad_()
    extrapolations(frames, 5, 2)[:, -2:].sum().backward()
    assert frames.grad is not None
    assert frames.grad[:, -1].any()
    assert not frames.grad[:, :-1].any()


@pytest.mark.data
@pytest.mark.skipif(not (REAL / "radar/knmi").exists(), reason="needs ZOO_DATA")
def test_extrapolation_of_real_radar_beats_optical_flow() -> None:
    pytest.importorskip("pysteps", reason="pip install 'spatiotemporal-zoo[flow]'")
    pytest.importorskip("cv2", reason="pip install 'spatiotemporal-zoo[flow]'")
    options = {"crop": [260, 200, 320, 320], "pool": 5, "test_share": 0.3, "valid_share": 0.2}
    dataset = open_dataset("knmi", "valid", root=REAL, frames=8, **options)
    frames = torch.stack([dataset[i] for i in (0, 5, 10)])
    past, truth = frames[:, :4], frames[:, 4:]

    def error(forecast: Tensor) -> float:
        return float((forecast[:, -4:] - truth).square().nanmean())

    flow = error(optical_flow(past, 4, Data()))
    assert error(extrapolation(past, 4)) < flow < error(persistence(past, 4))


@pytest.mark.data
@pytest.mark.skipif(not (REAL / "radar/knmi").exists(), reason="needs ZOO_DATA")
def test_evaluation_gives_a_model_what_the_baseline_has() -> None:
    data = {"name": "knmi", "input_frames": 4, "horizon": 2, "missing": True}
    scale = {"unit": "mm/h", "reflectivity": {}, "time_step": 300.0}
    model = without_change(create(data={**data, **scale}))
    options = {"crop": [260, 200, 320, 320], "pool": 10}
    report = evaluate(
        model, options=options, root=REAL, sequences=3, baselines=("persistence", "extrapolation")
    )
    scores = report["forecast"]
    assert scores["model"]["mse"] == pytest.approx(scores["extrapolation"]["mse"], rel=1e-4)
    assert scores["extrapolation"]["mse"] < scores["persistence"]["mse"]
