"""Metrics of physical fields: agreement with other libraries, missing values, batches."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from zoo.baselines import persistence
from zoo.config import Data
from zoo.errors import ConfigError, DataError
from zoo.metrics import BALANCE, FrameMetrics
from zoo.units import to_physical, to_unit_interval

RAIN = Data(name="rain", variable="rain_rate", unit="mm/h", reflectivity={}, missing=True)  # type: ignore[arg-type]
THRESHOLDS = (0.5, 2.0, 5.0)


def fields(count: int = 3, time: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a forecast and a similar truth (B, T, 1, H, W) of rain in mm/h."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, count, time, 1, 24, 30))
    noise[0] = 0.7 * noise[1] + 0.3 * noise[0]
    smooth = gaussian_filter(noise, (0, 0, 0, 0, 2, 2))
    rain = np.maximum(0, smooth * 40) ** 1.5
    return torch.from_numpy(rain[0]).float(), torch.from_numpy(rain[1]).float()


def measured(
    forecast: torch.Tensor, truth: torch.Tensor, batch: int = 100, **options: Any
) -> FrameMetrics:
    metrics = FrameMetrics(RAIN, **options)
    scaled = [to_unit_interval(x, RAIN) for x in (forecast, truth)]
    for a, b in zip(*(x.split(batch) for x in scaled), strict=True):
        metrics.update(a, b)
    return metrics


def test_contingency_scores_agree_with_scores() -> None:
    categorical = pytest.importorskip("scores.categorical", reason="pip install scores")
    xarray = pytest.importorskip("xarray")
    forecast, truth = fields()
    got = measured(forecast, truth, thresholds=THRESHOLDS).compute()
    # A forecast is scaled to [0, 1] and back.
    shown = to_physical(to_unit_interval(forecast, RAIN), RAIN)
    for threshold in THRESHOLDS:
        manager = categorical.ThresholdEventOperator(default_event_threshold=threshold)
        pair = [xarray.DataArray(x.numpy()) for x in (shown, truth)]
        table = manager.make_contingency_manager(*pair).transform()
        for name, theirs in (
            ("pod", table.probability_of_detection()),
            ("far", table.false_alarm_ratio()),
            ("csi", table.critical_success_index()),
            ("hss", table.heidke_skill_score()),
            ("bias", table.frequency_bias()),
        ):
            assert got[f"{name}@{threshold:g}"] == pytest.approx(float(theirs), rel=1e-9), name


def test_categorical_scores_agree_with_pysteps() -> None:
    verification = pytest.importorskip("pysteps.verification", reason="pip install pysteps")
    forecast, truth = fields()
    got = measured(forecast, truth, thresholds=THRESHOLDS).compute()
    for threshold in THRESHOLDS:
        theirs = verification.det_cat_fct(forecast.numpy(), truth.numpy(), threshold)
        for name in ("POD", "FAR", "CSI", "HSS", "BIAS"):
            expected = theirs[name] + (name == "BIAS" and theirs[name] < 0)
            assert got[f"{name.lower()}@{threshold:g}"] == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("window", [1, 3, 7])
def test_fss_agrees_with_scores(window: int) -> None:
    spatial = pytest.importorskip("scores.spatial", reason="pip install scores")
    forecast, truth = fields(count=1, time=1)
    got = measured(forecast, truth, thresholds=(2.0,), windows=(window,)).compute()
    theirs = spatial.fss_2d_single_field(
        forecast[0, 0, 0].numpy().astype(np.float64),
        truth[0, 0, 0].numpy().astype(np.float64),
        event_threshold=2.0,
        window_size=(window, window),
        zero_padding=True,
    )
    # scores pads with zeros, which adds a row of windows at the edges.
    tolerance = 1e-9 if window == 1 else 1e-3
    assert got[f"fss@2/{window}"] == pytest.approx(float(theirs), rel=tolerance)


@pytest.mark.parametrize("window", [1, 3, 7])
def test_fss_agrees_with_pysteps(window: int) -> None:
    scores = pytest.importorskip("pysteps.verification.spatialscores", reason="pip install pysteps")
    forecast, truth = fields(count=2, time=1)
    got = measured(forecast, truth, thresholds=(2.0,), windows=(window,)).compute()
    theirs = scores.fss_init(2.0, window)
    for b in range(2):  # accumulated over frames before dividing
        scores.fss_accum(theirs, forecast[b, 0, 0].numpy(), truth[b, 0, 0].numpy())
    assert got[f"fss@2/{window}"] == pytest.approx(float(scores.fss_compute(theirs)), rel=1e-6)


def test_ssim_7x7_agrees_with_the_default_of_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    forecast, truth = (to_unit_interval(x, RAIN).double() for x in fields())
    metrics = FrameMetrics()
    metrics.update(forecast, truth)
    expected = np.mean(
        [
            skimage.structural_similarity(a.numpy(), b.numpy(), data_range=1)
            for a, b in zip(forecast.flatten(0, 2), truth.flatten(0, 2), strict=True)
        ]
    )
    assert metrics.compute()["ssim_7x7"] == pytest.approx(expected, abs=1e-9)


def test_psnr_agrees_with_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    forecast, truth = (to_unit_interval(x, RAIN).double() for x in fields(count=1, time=1))
    metrics = FrameMetrics()
    metrics.update(forecast, truth)
    expected = skimage.peak_signal_noise_ratio(truth.numpy(), forecast.numpy(), data_range=1)
    assert metrics.compute()["psnr"] == pytest.approx(expected)


def test_gdl_balanced_errors_and_unit_errors_match_hand_calculation() -> None:
    truth = torch.zeros(1, 1, 1, 4, 4)
    truth[..., 2:] = 12.0  # mm/h in the right half
    forecast = torch.zeros_like(truth)
    got = measured(forecast, truth).compute()
    x = float(to_unit_interval(torch.tensor(12.0), RAIN))
    assert got["gdl"] == pytest.approx(4 * x)  # one edge of four pixels
    assert got["mse"] == pytest.approx(8 * x**2)
    assert got["b_mse"] == pytest.approx(10 * 8 * x**2)  # 10 is the weight from 10 mm/h on
    assert got["b_mae"] == pytest.approx(10 * 8 * x)
    assert got["mae_unit"] == pytest.approx(6.0, rel=1e-5)
    assert got["rmse_unit"] == pytest.approx(math.sqrt(72), rel=1e-5)
    assert [weight for _, weight in BALANCE] == [1, 2, 5, 10, 30]


def test_value_at_the_threshold_exceeds_it() -> None:
    truth = torch.full((1, 1, 1, 4, 4), 0.5)
    got = measured(truth, truth, thresholds=(0.5,)).compute()
    assert got["csi@0.5"] == 1


def test_missing_pixels_are_not_counted() -> None:
    forecast, truth = fields(count=2)
    holed = truth.clone()
    holed[0, :, :, :, :15] = torch.nan
    wild = forecast.clone()
    wild[0, :, :, :, :15] = 99.0
    options: dict[str, Any] = {"thresholds": THRESHOLDS, "windows": (3,)}
    one = measured(forecast, holed, **options).compute()
    other = measured(wild, holed, **options).compute()
    assert one == other
    # These are the scores of the other half; sums are scaled to whole frames.
    half = measured(forecast[:1, ..., 15:], truth[:1, ..., 15:], thresholds=THRESHOLDS).compute()
    first = measured(forecast[:1], holed[:1], thresholds=THRESHOLDS).compute()
    for name in ("mae_mean", "mae_unit", "ssim", "ssim_7x7", "psnr", "csi@2", "hss@0.5", "far@2"):
        assert first[name] == pytest.approx(half[name], rel=1e-5), name
    for name in ("mse", "mae", "b_mse"):
        assert first[name] == pytest.approx(2 * half[name]), name


def test_frames_without_truth_are_left_out() -> None:
    forecast, truth = fields(count=2)
    truth[0, 1] = torch.nan
    got = measured(forecast, truth, thresholds=(2.0,)).compute()
    alone = measured(forecast[1:], truth[1:], thresholds=(2.0,)).compute()
    assert got["per_frame"]["mse"][1] == alone["per_frame"]["mse"][1]
    nothing = measured(forecast[:1], truth[:1], thresholds=(2.0,)).compute()
    assert nothing["per_frame"]["mse"][1] is None
    assert nothing["per_frame"]["csi@2"][1] is None


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 6),
    order=st.permutations(range(6)),
    cut=st.integers(0, 6),
    seed=st.integers(0, 50),
)
def test_batches_order_and_merging_change_no_digit(
    batch: int, order: list[int], cut: int, seed: int
) -> None:
    forecast, truth = fields(count=6, seed=seed)
    truth[2, :, :, 3:9] = torch.nan
    options: dict[str, Any] = {"thresholds": THRESHOLDS, "windows": (1, 5)}
    whole = measured(forecast, truth, **options)
    first = measured(forecast[order[:cut]], truth[order[:cut]], batch, **options)
    second = measured(forecast[order[cut:]], truth[order[cut:]], batch, **options)
    first.merge(second)
    assert first.compute() == whole.compute()
    assert first.compute(1) == whole.compute(1)
    assert first.counts() == whole.counts()


def test_metrics_of_different_kinds_are_not_merged() -> None:
    forecast, truth = fields()
    metrics = measured(forecast, truth, thresholds=(2.0,))
    with pytest.raises(ConfigError, match=r"2\.0.*5\.0"):
        metrics.merge(measured(forecast, truth, thresholds=(5.0,)))
    with pytest.raises(DataError, match="1 frames after batches of 2"):
        metrics.merge(measured(forecast[:, :1], truth[:, :1], thresholds=(2.0,)))


def test_threshold_outside_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="1000 mm/h"):
        FrameMetrics(RAIN, thresholds=(1000.0,))


def test_even_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 pixels.* odd"):
        FrameMetrics(RAIN, thresholds=(2.0,), windows=(4,))


def test_persistence_fills_missing_values_with_the_last_known() -> None:
    past = torch.tensor([[1.0, math.nan, 3], [math.nan, 2.0, math.nan]]).T.reshape(1, 3, 1, 1, 2)
    got = persistence(past, 2)[0, :, 0, 0]
    assert got.tolist() == [[1, 0], [1, 2], [3, 2], [3, 2]]
