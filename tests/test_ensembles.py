"""Scores of ensembles: against other implementations and known distributions, and in reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from conftest import Cli
from scores.probability import brier_score_for_ensemble, crps_for_ensemble

import zoo
from zoo.errors import DataError
from zoo.evaluate import evaluate
from zoo.scores.ensemble import EnsembleMetrics, fair_crps

MEMBERS = 8


def calibrated(spread: float = 1.0, shape: tuple[int, ...] = (6, 3, 1, 32, 32)):
    """Members and truth from the same distribution around an unknown mean, if spread is 1."""
    generator = torch.Generator().manual_seed(0)
    mean = 0.5 + 0.1 * torch.randn(shape, generator=generator)
    truth = mean + 0.05 * torch.randn(shape, generator=generator)
    noise = torch.randn(MEMBERS, *shape, generator=generator)
    return mean + spread * 0.05 * noise, truth


def as_arrays(members: torch.Tensor, truth: torch.Tensor):
    return (
        xarray.DataArray(members.reshape(len(members), -1).numpy(), dims=("member", "place")),
        xarray.DataArray(truth.flatten().numpy(), dims="place"),
    )


@pytest.mark.parametrize("count", [2, 3, 8])
def test_fair_crps_agrees_with_scores(count: int) -> None:
    members, truth = calibrated()
    members = members[:count]
    expected = crps_for_ensemble(
        *as_arrays(members, truth), "member", method="fair", preserve_dims="place"
    )
    crps = fair_crps(members.double(), truth.double()).flatten()
    np.testing.assert_allclose(crps.numpy(), expected.values, atol=1e-6)


def test_brier_score_agrees_with_scores() -> None:
    members, truth = calibrated()
    metrics = EnsembleMetrics(zoo.Data(), (0.4, 0.6))
    metrics.update(members, truth)
    for threshold in (0.4, 0.6):
        expected = brier_score_for_ensemble(
            *as_arrays(members, truth), "member", threshold, fair_correction=False
        )
        actual = metrics.scores()[f"brier@{threshold:g}"]
        np.testing.assert_allclose(actual, expected.item(), rtol=1e-3)


def test_calibrated_ensemble_has_even_ranks_and_reliable_probabilities() -> None:
    members, truth = calibrated()
    metrics = EnsembleMetrics(zoo.Data(), (0.5,))
    metrics.update(members, truth)
    assert metrics.scores()["spread_skill"] == pytest.approx(1, abs=0.02)
    found = metrics.distributions(last=3)
    ranks = np.array(found["ranks"])
    assert ranks.sum() == pytest.approx(truth.numel())
    np.testing.assert_allclose(ranks / ranks.mean(), 1, atol=0.15)
    pixels, events = np.array(found["reliability"]["0.5"]).T
    assert pixels.sum() == truth.numel()
    # With a finite number of members, extreme probabilities are a little too extreme.
    np.testing.assert_allclose(events / pixels, np.arange(MEMBERS + 1) / MEMBERS, atol=0.13)
    spectra = found["spectra"]
    assert len(spectra["truth"]) == 17
    assert np.mean(spectra["mean"][1:]) < 0.9 * np.mean(spectra["members"][1:])
    assert np.mean(spectra["members"][1:]) == pytest.approx(np.mean(spectra["truth"][1:]), rel=0.1)


@pytest.mark.parametrize(("spread", "low"), [(0.5, True), (2.0, False)])
def test_wrong_spread_shows_in_ratio_and_ranks(spread: float, low: bool) -> None:
    members, truth = calibrated(spread)
    metrics = EnsembleMetrics(zoo.Data())
    metrics.update(members, truth)
    ratio = metrics.scores()["spread_skill"]
    assert (ratio < 0.75) if low else (ratio > 1.4)
    ranks = metrics.distributions(last=3)["ranks"]
    assert (ranks[0] > ranks[MEMBERS // 2]) == low
    calibrated_crps = EnsembleMetrics(zoo.Data())
    calibrated_crps.update(*calibrated())
    assert metrics.scores()["crps"] > calibrated_crps.scores()["crps"]


def test_ties_share_their_ranks() -> None:
    """Dry pixels, where all members and the truth are 0, have every rank alike."""
    metrics = EnsembleMetrics(zoo.Data())
    metrics.update(torch.zeros(3, 1, 1, 1, 4, 4), torch.zeros(1, 1, 1, 4, 4))
    assert metrics.distributions(last=1)["ranks"] == [4, 4, 4, 4]


def test_single_forecast_has_its_absolute_error_as_crps() -> None:
    members, truth = calibrated()
    data = zoo.Data(unit="mm/h", low=0, high=10)
    metrics = EnsembleMetrics(data, (5.0,))
    metrics.update(members[:1], truth)
    scores = metrics.scores()
    assert scores["crps"] == pytest.approx(10 * float((members[0] - truth).abs().mean()), rel=1e-5)
    assert scores["spread_skill"] is None
    wrong = (members[0] >= 0.5) != (truth >= 0.5)
    assert scores["brier@5"] == pytest.approx(float(wrong.float().mean()), rel=1e-2)


def test_missing_pixels_do_not_count_and_parts_add_up() -> None:
    members, truth = calibrated()
    truth[0, 1, 0, :16] = torch.nan
    truth[1, 2] = torch.nan
    whole = EnsembleMetrics(zoo.Data(), (0.5,))
    whole.update(members, truth)
    assert whole.distributions(3)["reliability"]["0.5"] != []
    pixels = sum(row[0] for row in whole.distributions(3)["reliability"]["0.5"])
    assert pixels == int((~truth.isnan()).sum())
    one, other, empty = (EnsembleMetrics(zoo.Data(), (0.5,)) for _ in range(3))
    one.update(members[:, :2], truth[:2])
    other.update(members[:, 2:], truth[2:])
    for part in (other, empty):
        one.merge(part)
    empty.merge(one)
    assert one.scores() == whole.scores()
    assert empty.per_frame() == whole.per_frame()
    with pytest.raises(DataError, match="members"):
        whole.update(members[:3], truth)


@pytest.fixture
def model() -> zoo.Forecaster:
    torch.manual_seed(0)
    data = {"name": "mmnist", "input_frames": 2, "horizon": 2}
    return zoo.create("convlstm", hidden=2, layers=2, head="change", noise=1, data=data)


def test_ensembles_are_evaluated_next_to_baselines(model: zoo.Forecaster, noise_root: Path) -> None:
    report = evaluate(model, root=noise_root, sequences=3, members=4, thresholds=(0.5,))
    scores = report["forecast"]
    assert scores["model"].keys() == scores["persistence"].keys()
    assert scores["model"]["crps"] > 0
    assert scores["persistence"]["crps"] == pytest.approx(scores["persistence"]["mae_mean"])
    assert scores["persistence"]["spread_skill"] is None
    assert len(report["per_frame"]["model"]["brier@0.5"]) == 3
    assert report["ensemble"]["model"]["members"] == 4
    assert report["ensemble"]["persistence"]["members"] == 1
    assert "fair" in report["protocol"]["metrics"]["crps"]
    again = evaluate(
        model, root=noise_root, sequences=3, members=4, thresholds=(0.5,), batch_size=2
    )
    assert again["forecast"]["model"]["crps"] == pytest.approx(scores["model"]["crps"], rel=1e-6)
    plain = zoo.create("convlstm", hidden=2, layers=2, data=model.config.data.model_dump())
    other = evaluate(plain, root=noise_root, sequences=3, thresholds=(0.5,))
    assert other["protocol"]["id"] == report["protocol"]["id"]
    assert "ensemble" not in other


def test_commands_forecast_and_draw_ensembles(
    model: zoo.Forecaster, noise_root: Path, tmp_path: Path, cli: Cli
) -> None:
    folder = zoo.save(model, tmp_path / "model")
    output = tmp_path / "report"
    arguments = ["--members", "3", "--sequences", "2", "--thresholds", "0.5", "--data-dir"]
    cli.succeed("eval", f"local-dir:{folder}", *arguments, noise_root, "-o", output)
    assert (output / "ensemble.png").stat().st_size > 10_000
    assert "CRPS" in (output / "table.md").read_text()
    assert "model" in json.loads((output / "report.json").read_text())["ensemble"]
    np.save(tmp_path / "past.npy", np.random.default_rng(0).random((2, 1, 64, 64), np.float32))
    arguments = ["-o", tmp_path / "future.npy", "--horizon", "2", "--members", "3", "--seed", "5"]
    cli.succeed("predict", f"local-dir:{folder}", tmp_path / "past.npy", *arguments)
    assert np.load(tmp_path / "future.npy").shape == (3, 2, 1, 64, 64)
