"""The training loss, and that saving memory does not change it."""

import pytest
import torch
from torch import Tensor

import zoo
from zoo.errors import ConfigError
from zoo.train.objective import Objective
from zoo.train.recipe import LossRecipe

FED = torch.tensor([[True, True, False, True], [True, False, True, False]])


@pytest.fixture
def model() -> zoo.Forecaster:
    torch.manual_seed(0)
    return zoo.create("ms-convlstm", hidden=4, layers=3, in_channels=2)


@pytest.fixture
def sequences() -> Tensor:
    return torch.rand(2, 5, 2, 8, 12, generator=torch.Generator().manual_seed(0))


def error(model: zoo.Forecaster, sequences: Tensor) -> Tensor:
    return model.rollout(sequences[:, :-1], 1, FED).frames - sequences[:, 1:]


def test_loss_is_weighted_sum_of_l1_and_l2(model: zoo.Forecaster, sequences: Tensor) -> None:
    off = error(model, sequences)
    l1, l2 = (x.sum(dim=(2, 3, 4)).mean(dim=1) for x in (off.abs(), off**2))
    for weights, expected in (
        ({}, l1 + l2),
        ({"l2": 0}, l1),
        ({"l1": 0}, l2),
        ({"l1": 0.5, "l2": 2}, l1 / 2 + 2 * l2),
    ):
        loss = Objective(model, LossRecipe(**weights))(sequences, FED)
        torch.testing.assert_close(loss, expected)


def test_default_loss_is_computed_as_ever(model: zoo.Forecaster, sequences: Tensor) -> None:
    """Bit for bit, so that earlier runs can be repeated and resumed."""
    off = error(model, sequences)
    expected = (1.0 * off.square() + 1.0 * off.abs()).sum(dim=(2, 3, 4)).mean(dim=1)
    assert torch.equal(Objective(model)(sequences, FED), expected)
    recipe = LossRecipe(l1=0.3, thresholds=(0.4,), weights=(1, 5))
    weight = torch.tensor([1.0, 5.0])[(sequences[:, 1:] >= 0.4).long()]
    expected = ((1.0 * off.square() + 0.3 * off.abs()) * weight).sum(dim=(2, 3, 4)).mean(dim=1)
    assert torch.equal(Objective(model, recipe)(sequences, FED), expected)


def test_terms_are_added_with_their_weights(model: zoo.Forecaster, sequences: Tensor) -> None:
    def loss(**keys) -> Tensor:
        return Objective(model, LossRecipe(**keys))(sequences, FED, progress=0.25)

    facl, gradient = (loss(terms={name: {}}) for name in ("facl", "gradient"))
    both = {"facl": {"weight": 0.5}, "gradient": {"weight": 2}}
    torch.testing.assert_close(loss(terms=both), 0.5 * facl + 2 * gradient)
    squared = loss(l1=0, l2=1)
    torch.testing.assert_close(loss(l2=3, terms=both), 3 * squared + 0.5 * facl + 2 * gradient)


def test_loss_knows_how_far_the_training_is(model: zoo.Forecaster, sequences: Tensor) -> None:
    objective = Objective(model, LossRecipe(terms={"facl": {"alpha": 0.5}}))
    start, middle, end = (objective(sequences, FED, progress) for progress in (0.0, 0.5, 1.0))
    assert torch.equal(middle, end)
    assert not torch.equal(start, end)


def test_ensemble_loss_needs_several_forecasts(model: zoo.Forecaster) -> None:
    with pytest.raises(ConfigError, match=r"2 forecasts.*noise"):
        Objective(model, LossRecipe(terms={"crps": {}}))


def test_missing_pixels_do_not_contribute(model: zoo.Forecaster, sequences: Tensor) -> None:
    """They are read as 0, and ignored as truth."""
    missing = torch.rand(sequences.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    holes = sequences.masked_fill(missing, float("nan"))
    off = error(model, sequences.masked_fill(missing, 0)).masked_fill(missing[:, 1:], 0)
    expected = (off.abs() + off**2).sum(dim=(2, 3, 4)).mean(dim=1)
    loss = Objective(model)(holes, FED)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    nothing = Objective(model)(torch.full_like(sequences, float("nan")), FED)
    assert (nothing == 0).all()


def test_infinite_values_are_not_missing(model: zoo.Forecaster, sequences: Tensor) -> None:
    sequences[1, 2, 0, 3, 3] = float("inf")
    loss = Objective(model)(sequences, FED)
    assert loss.isfinite().tolist() == [True, False]


def test_pixels_are_weighted_by_rain_rate(sequences: Tensor) -> None:
    """B-MAE and B-MSE, with thresholds in mm/h."""
    rain = zoo.Data(unit="mm/h", low=0, high=40)
    model = zoo.create("convlstm", hidden=4, layers=2, in_channels=2, data=rain.model_dump())
    off, rate = error(model, sequences), 40 * sequences[:, 1:]
    weight = torch.ones_like(rate)
    for threshold, heavier in ((2, 2), (5, 5), (10, 10), (30, 30)):
        weight[rate >= threshold] = heavier
    recipe = LossRecipe(thresholds=(2, 5, 10, 30), weights=(1, 2, 5, 10, 30))
    expected = (weight * (off.abs() + off**2)).sum(dim=(2, 3, 4)).mean(dim=1)
    torch.testing.assert_close(Objective(model, recipe)(sequences, FED), expected)
    assert len(weight.unique()) == 5


def test_threshold_belongs_to_range_above() -> None:
    model = zoo.create("convlstm", hidden=4, layers=2)
    sequences = torch.full((1, 2, 1, 4, 4), 0.5)
    off = error_of_one(model, sequences)
    recipe = LossRecipe(l2=0, thresholds=(0.5,), weights=(0, 3))
    loss = Objective(model, recipe)(sequences, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(loss, 3 * off.abs().sum()[None])


def error_of_one(model: zoo.Forecaster, sequences: Tensor) -> Tensor:
    return model.rollout(sequences[:, :-1], 1).frames - sequences[:, 1:]


def test_auxiliary_losses_are_weighted(sequences: Tensor) -> None:
    model = zoo.create("predrnnv2", hidden=4, layers=2, in_channels=2)
    plain, full, half = (
        Objective(model, LossRecipe(auxiliary=weight))(sequences, FED) for weight in (0, 1, 0.5)
    )
    own = model.rollout(sequences[:, :-1], 1, FED).loss
    assert own is not None
    assert (own > 0).all()
    torch.testing.assert_close(full - plain, own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(half, (plain + full) / 2)


@pytest.mark.parametrize("name", ["convlstm", "ms-predrnnv2", "ms-motionrnn", "predrnnpp"])
def test_activation_checkpointing_gives_identical_gradients(name: str, sequences: Tensor) -> None:
    torch.manual_seed(0)
    model = zoo.create(name, hidden=4, layers=3, in_channels=2)
    gradients = []
    for every in (None, 1, 2, 3, 4, 9):
        model.zero_grad()
        loss = Objective(model, checkpoint_every=every)(sequences, FED)
        loss.sum().backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters())])
    for others in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], others, strict=True))


def test_activation_checkpointing_saves_memory(sequences: Tensor) -> None:
    def saved_bytes(every: int | None) -> int:
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model = zoo.create("convlstm", hidden=8, layers=3, in_channels=2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = Objective(model, checkpoint_every=every)(sequences, FED)
        assert loss.isfinite().all()
        return sum(seen.values())

    assert saved_bytes(2) < 0.6 * saved_bytes(None)
