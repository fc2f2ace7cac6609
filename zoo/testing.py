"""The contract of a cell, as tests: what every architecture of the zoo keeps.

The author of a cell proves it with three lines in a file that pytest runs::

    from zoo.testing import CellContract

    class TestMyCell(CellContract):
        cell = "mycell"

Every check runs on ``mycell`` and on ``ms-mycell``. Arguments of :func:`zoo.create` that are
not to be the defaults go into ``options``, such as ``options = {"kernel_size": 5}``. A class
that overrides the fixture ``architecture`` names the architectures itself.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo.cell import Place
from zoo.errors import ZooError
from zoo.forecast import Forecaster
from zoo.hub import load, save
from zoo.network import NetworkState
from zoo.registry import create, find_cell

try:
    import pytest
except ImportError as error:
    raise ImportError("zoo.testing needs pytest: pip install 'spatiotemporal-zoo[test]'") from error

__all__ = ["CellContract"]


class CellContract:
    """The checks, each a law that a cell must keep in every topology.

    cell: the name of the cell.
    options: further arguments of :func:`zoo.create`; networks have 3 layers of 4 channels
        where they do not say otherwise.
    """

    cell: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(params=["", "ms-"], ids=["stack", "mirror"])
    def architecture(self, request: pytest.FixtureRequest) -> str:
        """The name of the architecture under test."""
        return request.param + self.cell

    @pytest.fixture
    def model(self, architecture: str) -> Forecaster:
        """A small network of the architecture."""
        return self.create(architecture)

    def create(self, architecture: str, **sizes: Any) -> Forecaster:
        """A small network with large weights, so that an error in any gate shows."""
        torch.manual_seed(0)
        model = create(architecture, **{"hidden": 4, "layers": 3, **self.options, **sizes})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        return model.eval()

    @pytest.mark.parametrize("given", [1, 2, 4])
    @pytest.mark.parametrize("horizon", [1, 3])
    def test_any_number_of_frames(self, model: Forecaster, given: int, horizon: int) -> None:
        """Any number of frames gives a prediction of each that follows, any horizon."""
        frames = _frames(given)
        assert model(frames, horizon).shape == (2, given - 1 + horizon, 1, 8, 8)
        assert model.predict(frames, horizon).shape == (2, horizon, 1, 8, 8)

    # Every pair of values is among them.
    @pytest.mark.parametrize(
        ("size", "channels", "patch", "layers"),
        [
            ((15, 22), 1, 1, 3),
            ((15, 22), 3, 2, 6),
            ((9, 4), 1, 2, 6),
            ((9, 4), 3, 1, 3),
            ((2, 1), 1, 1, 6),
            ((2, 1), 3, 2, 3),
        ],
        ids=str,
    )
    def test_any_size(
        self, architecture: str, size: tuple[int, int], channels: int, patch: int, layers: int
    ) -> None:
        """Predictions are as large as the frames, whether or not the scales divide them."""
        model = self.create(architecture, in_channels=channels, patch=patch, layers=layers)
        with torch.no_grad():
            predictions = model(_frames(2, channels, size), 2)
        assert predictions.shape == (2, 3, channels, *size)
        assert predictions.isfinite().all()

    def test_input_may_be_wider_than_the_layer(self, model: Forecaster) -> None:
        """A cell takes in_channels ≠ channels, or refuses it with a ZooError about them."""
        cell_class, _ = find_cell(model.config.cell) or pytest.fail("the cell is not installed")
        options: dict[str, Any] = dict(model.config.options)
        x = torch.rand(2, 6, 8, 8)
        try:
            cell = cell_class.build(6, 4, Place(1, 3), size=(8, 8), **options)
        except ZooError as error:
            assert "channels" in str(error), f"an unclear refusal: {error}"  # noqa: PT017
            return
        offered = {
            "memory": cell.zeros(x),
            "below": torch.zeros_like(x),
            "shared": cell_class.make_shared(4, **options),
        }
        step = cell(x, cell.init_state(x), **{name: offered[name] for name in cell.asks_for})
        assert step.output.shape == (2, 4, 8, 8)

    def test_state_starts_at_zero(self, model: Forecaster) -> None:
        """The first state is a pytree of zeros, the batch the first axis of each."""
        for tensor in _tensors(model.network.init_state(_frames(1)[:, 0])):
            assert tensor.shape[0] == 2
            assert not tensor.any()

    def test_state_does_not_grow(self, model: Forecaster) -> None:
        """After any number of steps the state has the form that it began with."""
        frames = _frames(3)
        state = model.network.init_state(frames[:, 0])
        begin = _form(state)
        for frame in frames.unbind(1):
            _, state = model.step(frame, state)
            assert _form(state) == begin

    @torch.no_grad()
    def test_steps_equal_the_rollout(self, model: Forecaster) -> None:
        """The state handed back is all there is: steps give the rollout, bit for bit.

        Each step is taken twice, so that neither a state kept in the cell nor one that it
        changes in place goes unseen.
        """
        frames = _frames(3)
        state: NetworkState | None = None
        predictions: list[Tensor] = []
        for t in range(5):
            frame = frames[:, t] if t < 3 else predictions[-1]
            before = copy.deepcopy(state)
            model.step(frame, state)
            same = map(torch.equal, _tensors(state), _tensors(before))
            assert all(same), "the step changed the state it was given"
            prediction, state = model.step(frame, state)
            predictions.append(prediction)
        assert torch.equal(torch.stack(predictions, dim=1), model(frames, 3))

    def test_stream_equals_the_rollout(self, model: Forecaster) -> None:
        """A stream gives the clipped predictions of the rollout, bit for bit."""
        frames = _frames(4)
        streamed = torch.stack(list(model.stream(frames.unbind(1))), dim=1)
        assert torch.equal(streamed, model(frames, 1).clamp(0, 1))

    def test_the_first_frame_is_remembered(self, model: Forecaster) -> None:
        """What was seen first has a part in the forecast."""
        frames = _frames(3)
        other = torch.cat([1 - frames[:, :1], frames[:, 1:]], dim=1)
        assert not torch.equal(model(frames, 1)[:, -1], model(other, 1)[:, -1])

    def test_a_batch_equals_its_samples(self, model: Forecaster) -> None:
        """No sample of a batch has a part in the forecast of another."""
        frames = _frames(3)
        alone = torch.cat([model(sample, 2) for sample in frames.split(1)])
        torch.testing.assert_close(model(frames, 2), alone, rtol=1e-5, atol=1e-5)

    def test_saved_and_loaded(self, model: Forecaster, tmp_path: Path) -> None:
        """A model that was saved is loaded with its config and weights, bit for bit."""
        loaded = load(f"local-dir:{save(model, tmp_path / 'model')}")
        assert loaded.config == model.config
        assert torch.equal(loaded(_frames(3), 2), model(_frames(3), 2))

    def test_same_seed_same_result(self, model: Forecaster, architecture: str) -> None:
        """The seed fixes the weights; frames and weights fix the predictions, bit for bit."""
        again = self.create(architecture)
        before = torch.get_rng_state()
        assert torch.equal(model(_frames(3), 2), again(_frames(3), 2))
        assert torch.equal(torch.get_rng_state(), before), "the cell draws random numbers"

    def test_no_parameter_is_dead(self, architecture: str) -> None:
        """Gradients of the training loss reach every output channel of every parameter."""
        model = self.create(architecture).train()
        predictions, loss = model.rollout(_frames(3), 3)
        (predictions.square().sum() + (0 if loss is None else loss.sum())).backward()
        dead = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None
            # The bias of a key of attention has no influence; a vector is checked whole.
            or not (parameter.grad.flatten(min(1, parameter.ndim - 1)) != 0).any(-1).all()
        ]
        assert not dead, f"parameters without a gradient: {', '.join(dead)}"

    def test_gradients_are_right(self, model: Forecaster) -> None:
        """Gradients in float64 agree with finite differences, for frames and parameters."""
        model.double()
        names, parameters = zip(*model.named_parameters(), strict=True)

        def predict(frames: Tensor, *values: Tensor) -> Tensor:
            weights = dict(zip(names, values, strict=True))
            return torch.func.functional_call(model, weights, (frames, 2))

        frames = _frames(2, size=model.config.size or (4, 4)).double().requires_grad_()
        # Fast: one random direction in place of every number by itself.
        assert torch.autograd.gradcheck(predict, (frames, *parameters), fast_mode=True)

    def test_bfloat16_is_close(self, model: Forecaster) -> None:
        """Under autocast to bfloat16 predictions stay close to those in float32."""
        frames = _frames(3)
        exact = model(frames, 2)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(frames, 2)
        torch.testing.assert_close(
            rounded.float(), exact, rtol=0, atol=0.05 * exact.abs().max().item()
        )

    def test_auxiliary_loss_is_for_training(self, model: Forecaster) -> None:
        """A cell with a loss of its own gives one number a sample, in training alone."""
        frames = _frames(3)
        assert model.rollout(frames, 1).loss is None
        loss = model.train().rollout(frames, 1).loss
        if loss is not None:
            assert loss.shape == (2,)
            assert loss.isfinite().all()

    def test_any_device(self, model: Forecaster) -> None:
        """A network runs where its weights are: here on no device, where shapes alone are."""
        prediction = model.to("meta")(_frames(2).to("meta"), 2)
        assert prediction.is_meta
        assert prediction.shape == (2, 3, 1, 8, 8)

    def test_compiles(self, model: Forecaster) -> None:
        """torch.compile takes a step as one graph and gives the same."""
        torch.compiler.reset()
        step = torch.compile(model.network, backend="aot_eager", fullgraph=True)
        frame, state = _second_step(model)
        with torch.no_grad():
            torch.testing.assert_close(step(frame, state), model.network(frame, state))

    def test_exports(self, model: Forecaster) -> None:
        """torch.export takes a step and gives the same."""
        frame, state = _second_step(model)
        exported = torch.export.export(model.network, (frame, state)).module()
        with torch.no_grad():
            torch.testing.assert_close(exported(frame, state), model.network(frame, state))


def _frames(time: int, channels: int = 1, size: tuple[int, int] = (8, 8)) -> Tensor:
    """Two sequences of noise in [0, 1], always the same."""
    return torch.rand(2, time, channels, *size, generator=torch.Generator().manual_seed(1))


def _second_step(model: Forecaster) -> tuple[Tensor, NetworkState]:
    """A frame and a state that is no longer zero."""
    first, second = _frames(2).unbind(1)
    with torch.no_grad():
        return second, model.step(first)[1]


def _tensors(state: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(state) if leaf is not None]


def _form(state: NetworkState) -> tuple[pytree.TreeSpec, list[tuple[torch.Size, torch.dtype]]]:
    return pytree.tree_structure(state), [(t.shape, t.dtype) for t in _tensors(state)]
