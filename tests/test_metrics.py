"""Metrics of pictures: known values, invariants, and agreement with scikit-image."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.baselines import persistence
from zoo.errors import DataError
from zoo.metrics import PSNR_CAP, FrameMetrics

NAMES = ("mse", "mae", "ssim", "psnr")


def frames(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def measure(forecast: torch.Tensor, truth: torch.Tensor, batch: int = 1000) -> dict[str, Any]:
    metrics = FrameMetrics()
    for a, b in zip(forecast.split(batch), truth.split(batch), strict=True):
        metrics.update(a, b)
    return metrics.compute()


def test_known_values() -> None:
    truth = torch.zeros(2, 3, 2, 16, 16)
    forecast = torch.full_like(truth, 0.5)
    forecast[:, 1] = 0.1
    forecast[:, 2] = 0
    got = measure(forecast, truth)["per_frame"]
    pixels = 2 * 16 * 16
    assert got["mse"] == pytest.approx([0.25 * pixels, 0.01 * pixels, 0])
    assert got["mae"] == pytest.approx([0.5 * pixels, 0.1 * pixels, 0])
    assert got["psnr"] == pytest.approx([10 * math.log10(4), 20, PSNR_CAP])
    # Flat frames have no variance; the luminance term alone is left.
    assert got["ssim"] == pytest.approx([1e-4 / (0.25 + 1e-4), 1e-4 / (0.01 + 1e-4), 1], rel=1e-3)


def test_perfect_forecast_gives_best_scores() -> None:
    truth = frames(2, 4, 1, 16, 16)
    got = measure(truth, truth)
    assert [got[name] for name in NAMES] == pytest.approx([0, 0, 1, PSNR_CAP])
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    for name in NAMES:
        assert len(got["per_frame"][name]) == 4
        assert got[name] == pytest.approx(np.mean(got["per_frame"][name]))


def test_forecast_is_clipped() -> None:
    truth = frames(1, 2, 1, 16, 16)
    wild = 3 * frames(1, 2, 1, 16, 16, seed=1) - 1
    assert measure(wild, truth) == measure(wild.clamp(0, 1), truth)


@settings(max_examples=20, deadline=None)
@given(
    sequences=st.integers(1, 7),
    batch=st.integers(1, 7),
    time=st.integers(1, 3),
    height=st.integers(3, 14),
    width=st.integers(3, 14),
    seed=st.integers(0, 100),
)
def test_scores_are_symmetric_bounded_and_independent_of_batches(
    sequences: int, batch: int, time: int, height: int, width: int, seed: int
) -> None:
    shape = (sequences, time, 1, height, width)
    a, b = frames(*shape, seed=seed), frames(*shape, seed=seed + 1)
    whole, parts, swapped = measure(a, b), measure(a, b, batch=batch), measure(b, a)
    for name in NAMES:
        assert parts["per_frame"][name] == pytest.approx(whole["per_frame"][name], rel=1e-12)
        assert swapped[name] == pytest.approx(whole[name], rel=1e-12)
    assert 0 <= whole["mse"] <= whole["mae"]  # as no error is above 1
    assert -1 <= whole["ssim"] <= 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (11, 20), (9, 30), (8, 16)])
def test_ssim_agrees_with_scikit_image(height: int, width: int) -> None:
    """Both omit pixels whose window crosses the border.

    The mean of torchmetrics 1.7 (not 1.4) includes them, with frames mirrored at the border: for
    persistence on Moving MNIST, where borders are mostly empty, it is 0.11 higher on average and
    0.18 at most. Frames smaller than 11×11 have a smaller window, σ in proportion.
    """
    skimage = pytest.importorskip("skimage.metrics")
    truth = frames(2, 3, 1, height, width)
    forecast = (0.7 * truth + 0.3 * frames(2, 3, 1, height, width, seed=1)) ** 2
    radius = min(5, (height - 1) // 2)
    expected = [
        np.mean(
            [
                skimage.structural_similarity(
                    forecast[b, t, 0].double().numpy(),
                    truth[b, t, 0].double().numpy(),
                    data_range=1,
                    gaussian_weights=True,
                    sigma=0.3 * radius,
                    use_sample_covariance=False,
                )
                for b in range(2)
            ]
        )
        for t in range(3)
    ]
    assert measure(forecast, truth)["per_frame"]["ssim"] == pytest.approx(expected, abs=1e-12)


def test_half_precision_is_measured_in_double() -> None:
    truth = frames(1, 1, 1, 16, 16).bfloat16()
    forecast = frames(1, 1, 1, 16, 16, seed=1).bfloat16()
    assert measure(forecast, truth) == measure(forecast.double(), truth.double())


GOOD = frames(1, 2, 1, 16, 16)


@pytest.mark.parametrize(
    ("forecast", "truth", "message"),
    [
        (GOOD, GOOD[:, :1], r"\(1, 2, 1, 16, 16\), truth \(1, 1, 1, 16, 16\)"),
        (GOOD[0], GOOD[0], r"\(B, T, C, H, W\)"),
        (GOOD, GOOD.byte(), "uint8"),
        (GOOD[..., :2], GOOD[..., :2], "16×2.* 3×3"),
        (GOOD * torch.nan, GOOD, "NaN"),
    ],
    ids=["shapes", "dimensions", "integers", "small", "nan"],
)
def test_invalid_frames_are_refused(
    forecast: torch.Tensor, truth: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        FrameMetrics().update(forecast, truth)


def test_compute_without_sequences_is_refused() -> None:
    with pytest.raises(DataError, match="sequences"):
        FrameMetrics().compute()


def test_batches_of_different_length_are_refused() -> None:
    metrics = FrameMetrics()
    metrics.update(GOOD, GOOD)
    with pytest.raises(DataError, match="1 frames after batches of 2"):
        metrics.update(GOOD[:, :1], GOOD[:, :1])


@pytest.mark.parametrize("horizon", [1, 3])
def test_persistence_repeats_the_last_frame(horizon: int) -> None:
    past = frames(2, 4, 1, 5, 6)
    got = persistence(past, horizon)
    assert got.shape == (2, 3 + horizon, 1, 5, 6)
    for step, frame in enumerate(got.unbind(dim=1)):
        assert torch.equal(frame, past[:, min(step, 3)])


def test_persistence_needs_a_frame_and_a_horizon() -> None:
    with pytest.raises(DataError, match="horizon 0"):
        persistence(frames(1, 2, 1, 4, 4), 0)
    with pytest.raises(DataError, match=r"\(1, 0, 1, 4, 4\)"):
        persistence(frames(1, 0, 1, 4, 4), 1)
