"""Metrics of plugins: each keeps the contract, and reports and recipes use them."""

from pathlib import Path

import pytest
import torch
from tiny_runs import RECIPE, log

import zoo
from zoo.errors import ConfigError
from zoo.evaluate import evaluate
from zoo.metrics import FrameMetrics
from zoo.plugins import names
from zoo.scores import create_metric
from zoo.scores.spectrum import power_spectrum
from zoo.testing import MetricContract
from zoo.train.engine import train


class TestEveryMetric(MetricContract):
    @pytest.fixture(autouse=True, params=names("metrics"))
    def choose_metric(self, request: pytest.FixtureRequest) -> None:
        type(self).metric = request.param


def test_blur_lowers_sharpness_and_raises_the_spectral_error() -> None:
    truth = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    known = torch.ones_like(truth, dtype=torch.bool)
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    sharpness, spectral = create_metric("sharpness"), create_metric("spectral_error")
    assert (sharpness(blurred, truth, known, data=zoo.Data()) < 0.5).all()
    assert (spectral(blurred, truth, known, data=zoo.Data()) > 3).all()
    shifted = truth.roll(5, dims=-1)
    assert (spectral(shifted, truth, known, data=zoo.Data()) < 1e-9).all()


def test_power_spectrum_has_white_noise_flat_and_a_wave_in_one_place() -> None:
    noise = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    power = power_spectrum(2 * noise).mean(dim=0)
    assert power.shape == (33,)
    torch.testing.assert_close(power[3:], torch.full_like(power[3:], 4), rtol=0.2, atol=0)
    x = torch.arange(64).double()
    wave = torch.sin(2 * torch.pi * 5 * x / 64).expand(1, 1, 64, 64)
    assert power_spectrum(wave)[0].argmax() == 5
    # Periods are counted over the shorter side.
    assert power_spectrum(wave[..., :32, :])[0].argmax() in (2, 3)


def test_frames_with_missing_pixels_have_no_spectral_error() -> None:
    metrics = FrameMetrics(metrics={"spectral_error": create_metric("spectral_error")})
    frames = torch.rand(1, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    truth = frames.clone()
    truth[0, 1, 0, 2, 2] = torch.nan
    metrics.update(frames, truth)
    assert metrics.compute()["per_frame"]["spectral_error"] == [0.0, None, 0.0]


def test_further_metrics_are_reported_and_do_not_change_the_protocol(noise_root: Path) -> None:
    model = zoo.create("convlstm", hidden=2, layers=2)
    options = {"dataset": "mmnist", "sequences": 2, "input_frames": 2, "horizon": 2}
    plain = evaluate(model, root=noise_root, **options)
    report = evaluate(model, root=noise_root, further_metrics=["sharpness"], **options)
    assert report["protocol"]["id"] == plain["protocol"]["id"]
    assert "sum of |dx|" in report["protocol"]["metrics"]["sharpness"]
    assert len(report["per_frame"]["persistence"]["sharpness"]) == 3
    assert report["forecast"]["persistence"]["sharpness"] > 0
    assert "sharpness" not in plain["forecast"]["model"]


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'sharpnes'.*sharpness"):
        create_metric("sharpnes")
    with pytest.raises(ConfigError, match="ssim"):
        FrameMetrics(metrics={"ssim": create_metric("sharpness")})


def test_best_checkpoint_can_be_chosen_by_a_further_metric(
    tmp_path: Path, noise_root: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        RECIPE + '\n[evaluation]\nevery = 4\nsequences = 2\nmetric = "sharpness"\nselect = "best"\n'
    )
    outcome = train(recipe, tmp_path / "run", data_root=noise_root)
    scores = {
        line["step"]: line["sharpness"] for line in log(tmp_path / "run") if "sharpness" in line
    }
    assert scores.keys() == {4, 8, 12}
    assert outcome.best == max(scores.values())  # higher is better
    assert scores[outcome.best_step] == outcome.best
    settings = [("evaluation.metric", "sharpnes")]
    with pytest.raises(ConfigError, match="sharpnes"):
        train(recipe, tmp_path / "other", data_root=noise_root, settings=settings)
