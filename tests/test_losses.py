"""Losses: each keeps the contract, and has the values of its paper."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

import zoo
from zoo.errors import ConfigError
from zoo.losses import create_loss
from zoo.plugins import names
from zoo.testing import LossContract, _forecast_and_truth

RAIN = zoo.Data(unit="mm/h", low=0, high=10)


class TestEveryLoss(LossContract):
    @pytest.fixture(autouse=True, params=names("losses"))
    def choose_loss(self, request: pytest.FixtureRequest) -> None:
        type(self).loss = request.param


class TestBalanced(LossContract):
    loss = "pixelwise"
    options: ClassVar = {"thresholds": [2, 5], "weights": [1, 2, 5]}
    data = RAIN


class TestEnsembleOfFour(LossContract):
    loss = "crps"
    options: ClassVar = {"members": 4, "alpha": 0.5}


def measure(name: str, forecast: Tensor, truth: Tensor, progress: float = 0.5, **options) -> Tensor:
    known = torch.ones_like(truth, dtype=torch.bool)
    loss = create_loss(name, options)
    return loss(forecast, truth, known, data=zoo.Data(), progress=progress)


def test_facl_starts_with_correlation_and_ends_with_amplitude() -> None:
    forecast, truth = _forecast_and_truth(1)
    f, g = (torch.fft.fft2(x, norm="ortho") for x in (truth, forecast))
    amplitude = (f.abs() - g.abs()).square().sum(dim=(2, 3, 4)).mean(dim=1)
    product = (truth * forecast).sum(dim=(3, 4))  # Parseval: correlations agree with those of F
    powers = [x.square().sum(dim=(3, 4)) for x in (truth, forecast)]
    correlation = 64 * (1 - product / (powers[0] * powers[1]).sqrt()).sum(dim=2).mean(dim=1)
    for progress, share in ((0.0, 1.0), (0.45, 0.5), (0.9, 0.0), (1.0, 0.0)):
        expected = share * correlation + (1 - share) * amplitude
        loss = measure("facl", forecast, truth, progress, alpha=0.1)
        torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-3)


def test_amplitude_loss_is_blind_to_shifts_and_correlation_loss_is_not() -> None:
    truth = torch.zeros(1, 1, 1, 16, 16)
    truth[..., 4:8, 4:8] = 1
    shifted = truth.roll(5, dims=-1)
    assert measure("facl", shifted, truth, progress=1.0).abs() < 1e-3
    assert measure("facl", shifted, truth, progress=0.0) > 100


def test_blur_costs_amplitude() -> None:
    _, truth = _forecast_and_truth(1, (2, 1, 16, 16))
    blurred = torch.nn.functional.avg_pool2d(truth.flatten(0, 1), 3, 1, 1).view_as(truth)
    assert (measure("facl", blurred, truth, progress=1.0) > 1).all()


def test_gradient_loss_ignores_a_shift_in_value_and_sees_blur() -> None:
    _, truth = _forecast_and_truth(1)
    assert (measure("gradient", truth + 0.3, truth).abs() < 1e-4).all()
    flat = truth.mean(dim=(-2, -1), keepdim=True).expand_as(truth)
    steps = truth.diff(dim=-1).abs().sum((2, 3, 4)) + truth.diff(dim=-2).abs().sum((2, 3, 4))
    torch.testing.assert_close(measure("gradient", flat, truth), steps.mean(dim=1))


@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.95, 1.0])
def test_crps_is_a_mixture_of_fair_and_usual_one(members: int, alpha: float) -> None:
    forecast, truth = _forecast_and_truth(members)
    distance = (forecast - truth).abs().mean(dim=0)
    all_pairs = (forecast[:, None] - forecast).abs().sum(dim=(0, 1))
    usual = distance - all_pairs / (2 * members**2)
    fair = distance - all_pairs / (2 * members * (members - 1))
    expected = (alpha * fair + (1 - alpha) * usual).sum(dim=(2, 3, 4)).mean(dim=1)
    loss = measure("crps", forecast, truth, members=members, alpha=alpha)
    torch.testing.assert_close(loss, expected)


def test_fair_crps_ignores_one_member_and_almost_fair_one_does_not() -> None:
    _, truth = _forecast_and_truth(1)
    members = torch.stack([truth, truth, truth + 1])
    assert (measure("crps", members, truth, members=3, alpha=1.0).abs() < 1e-3).all()
    assert (measure("crps", members, truth, members=3, alpha=0.95) > 0.1).all()


def test_crps_of_a_calibrated_ensemble_is_smallest() -> None:
    """Members as spread as the truth beat members that are too close or too far apart."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(1, 1, 1, 100, 100, generator=generator)
    noise = torch.randn(2, 1, 1, 1, 100, 100, generator=generator)
    spreads = (0.3, 0.7, 1.0, 1.4, 2.0)
    losses = [float(measure("crps", spread * noise, truth)) for spread in spreads]
    assert min(losses) == losses[2]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fakl", {}, r"'fakl'.*facl"),
        ("facl", {"alpha": 2}, r"facl.*alpha"),
        ("facl", {"alfa": 0.1}, r"'alfa'.*alpha"),
        ("crps", {"members": 1}, r"members"),
        ("pixelwise", {"l1": 0, "l2": 0}, r"l1 and l2"),
        ("pixelwise", {"weights": [1, 2]}, r"0 thresholds.* 1 .*2"),
    ],
)
def test_invalid_losses_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_loss(name, options)


class FirstOfBatch(zoo.Loss):
    def __call__(self, forecast, truth, known, *, data, progress):
        error = (forecast - truth).where(known, 0).square()
        return error.sum(dim=(2, 3, 4)).mean(dim=1) + error[0].sum()


class CountsMissing(zoo.Loss):
    def __call__(self, forecast, truth, known, *, data, progress):
        return (forecast - truth).square().sum(dim=(2, 3, 4)).mean(dim=1)


class LikesBlur(zoo.Loss):
    def __call__(self, forecast, truth, known, *, data, progress):
        return forecast.where(known, 0).square().sum(dim=(2, 3, 4)).mean(dim=1)


class Root(zoo.Loss):
    def __call__(self, forecast, truth, known, *, data, progress):
        return (forecast - truth).where(known, 0).square().sum(dim=(2, 3, 4)).mean(dim=1).sqrt()


@pytest.mark.parametrize(
    ("loss", "law"),
    [
        (FirstOfBatch, "a_batch_equals_its_sequences"),
        (CountsMissing, "missing_pixels_do_not_count"),
        (LikesBlur, "a_perfect_forecast_has_the_smallest_loss"),
        (Root, "gradients_are_finite_everywhere"),
    ],
)
def test_loss_that_breaks_a_law_is_caught(loss: type[zoo.Loss], law: str) -> None:
    arguments = {
        "a_perfect_forecast_has_the_smallest_loss": (0.5,),
        "gradients_are_finite_everywhere": (None, 0.5),
    }.get(law, ())
    test = getattr(LossContract(), f"test_{law}")
    test(create_loss("pixelwise", {"l1": 0}), *arguments)
    with pytest.raises(AssertionError):
        test(loss(), *arguments)
