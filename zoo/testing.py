"""Contract suites: tests that every cell, head, loss and metric must pass.

The author of a cell runs them with three lines in a file that pytest collects::

    from zoo.testing import CellContract

    class TestMyCell(CellContract):
        cell = "mycell"

and the author of a head with::

    from zoo.testing import HeadContract

    class TestMyHead(HeadContract):
        head = "myhead"

``LossContract`` and ``MetricContract`` do the same for a loss and a metric.

Each test is a law, stated in the first line of its docstring. ``zoo check NAME`` runs the same
suites and prints a report.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo.cell import Place
from zoo.config import Data
from zoo.errors import ConfigError, ZooError
from zoo.forecast import Forecaster
from zoo.hub import load, save
from zoo.losses import Loss, create_loss
from zoo.network import NetworkState
from zoo.optimize import optimize
from zoo.options import complete_options
from zoo.registry import create, find_cell
from zoo.scores import Metric, create_metric

try:
    import pytest
except ImportError as error:
    raise ImportError("zoo.testing needs pytest: pip install 'spatiotemporal-zoo[test]'") from error

__all__ = ["CellContract", "HeadContract", "LossContract", "MetricContract"]


class _Contract:
    """The laws that every network keeps, whatever its cell and head."""

    @pytest.fixture
    def architecture(self) -> str:
        """Name of the architecture under test."""
        raise NotImplementedError

    @pytest.fixture
    def model(self, architecture: str) -> Forecaster:
        """A small network of the architecture."""
        return self.create(architecture)

    def create(self, architecture: str, **arguments: Any) -> Forecaster:
        """Return a small network with large weights, so that an error in any gate shows."""
        torch.manual_seed(0)
        model = create(architecture, **{"hidden": 4, "layers": 3, **arguments})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        return model.eval()

    # Every pair of values occurs.
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
        """Predictions have the size of the frames, whether or not the scales divide it."""
        model = self.create(architecture, in_channels=channels, patch=patch, layers=layers)
        with torch.no_grad():
            predictions = model(_frames(2, channels, size), 2)
        assert predictions.shape == (2, 3, channels, *size)
        assert predictions.isfinite().all()

    @torch.no_grad()
    def test_steps_equal_the_rollout(self, model: Forecaster) -> None:
        """The returned state is complete: single steps equal the rollout, bit for bit.

        Each step is taken twice, which exposes state hidden in a module and state changed in
        place.
        """
        frames = _frames(3)
        state: NetworkState | None = None
        predictions: list[Tensor] = []
        for t in range(5):
            frame = frames[:, t] if t < 3 else predictions[-1]
            before = copy.deepcopy(state)
            model.step(frame, state)
            same = map(torch.equal, _tensors(state), _tensors(before))
            assert all(same), "the step changed the state that it was given"
            prediction, state = model.step(frame, state)
            predictions.append(prediction)
        assert torch.equal(torch.stack(predictions, dim=1), model(frames, 3))

    def test_stream_equals_the_rollout(self, model: Forecaster) -> None:
        """Streaming gives the clipped predictions of the rollout, bit for bit."""
        frames = _frames(4)
        streamed = torch.stack(list(model.stream(frames.unbind(1))), dim=1)
        assert torch.equal(streamed, model(frames, 1).clamp(0, 1))

    def test_a_batch_equals_its_samples(self, model: Forecaster) -> None:
        """A sample's forecast does not depend on the rest of its batch."""
        frames = _frames(3)
        alone = torch.cat([model(sample, 2) for sample in frames.split(1)])
        torch.testing.assert_close(model(frames, 2), alone, rtol=1e-5, atol=1e-5)

    def test_saved_and_loaded(self, model: Forecaster, tmp_path: Path) -> None:
        """Saving and loading restores config and weights, bit for bit."""
        loaded = load(f"local-dir:{save(model, tmp_path / 'model')}")
        assert loaded.config == model.config
        assert torch.equal(loaded(_frames(3), 2), model(_frames(3), 2))

    def test_optimized_gives_the_same_forecast(self, model: Forecaster) -> None:
        """In the channels-last memory format, predictions in float32 are the same within 1e-5."""
        frames = _frames(3)
        plain = model(frames, 2)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            patch.setattr("zoo.optimize.CHANNELS_LAST", {model.config.cell: 128})
            patch.setattr("zoo.optimize.LARGEST_KERNEL", 99)
            warnings.simplefilter("always")
            chosen = optimize(model, (8, 8), batch=2)
        assert chosen == ("channels_last",), [str(warning.message) for warning in caught]
        torch.testing.assert_close(model(frames, 2), plain, rtol=1e-5, atol=1e-5)

    def test_same_seed_same_result(self, model: Forecaster, architecture: str) -> None:
        """The seed determines the weights; frames and weights the predictions, bit for bit."""
        again = self.create(architecture, patch=model.config.patch)
        before = torch.get_rng_state()
        assert torch.equal(model(_frames(3), 2), again(_frames(3), 2))
        assert torch.equal(torch.get_rng_state(), before), "a step draws random numbers"

    def test_options_have_types(self, model: Forecaster) -> None:
        """Every option has a default and a type, and a value of another type is a ConfigError."""
        for part in (type(model.network.cells[0]), type(model.network.head)):
            for name, option in part.options().items():
                label = f"the option {name} of {part.__name__}"
                assert option.default is not inspect.Parameter.empty, f"{label} has no default"
                assert option.type is not Any, f"{label} has no type, or one that is not found"
                complete_options(label, {name: option}, {name: option.default})
                with pytest.raises(ConfigError):
                    complete_options(label, {name: option}, {name: {"of": ["another", "type"]}})

    def test_no_parameter_is_dead(self, model: Forecaster) -> None:
        """Gradients of the training loss reach every output channel of every parameter."""
        predictions, loss = model.train().rollout(_frames(3), 3)
        (predictions.square().sum() + (0 if loss is None else loss.sum())).backward()
        dead = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None
            # Vectors are checked as a whole: the bias of an attention key has no influence.
            or not (parameter.grad.flatten(min(1, parameter.ndim - 1)) != 0).any(-1).all()
        ]
        assert not dead, f"parameters without a gradient: {', '.join(dead)}"

    def test_gradients_are_right(self, model: Forecaster) -> None:
        """Gradients in float64 agree with finite differences, for frames and parameters."""
        model.double()
        names, parameters = zip(*model.named_parameters(), strict=True)

        def predict(frames: Tensor, vector: Tensor) -> Tensor:
            values = vector.split([parameter.numel() for parameter in parameters])
            shaped = map(Tensor.view_as, values, parameters)
            return torch.func.functional_call(
                model, dict(zip(names, shaped, strict=True)), (frames, 2)
            )

        frames = _frames(2, size=model.config.size or (4, 4)).double().requires_grad_()
        vector = torch.nn.utils.parameters_to_vector(parameters).detach().requires_grad_()
        # Fast mode checks one random direction of each argument instead of every element. All
        # parameters share one direction, so the tolerance is small enough for an error in any.
        assert torch.autograd.gradcheck(
            predict, (frames, vector), fast_mode=True, rtol=1e-5, atol=1e-8
        )

    def test_bfloat16_is_close(self, model: Forecaster) -> None:
        """Predictions under autocast to bfloat16 stay close to those in float32."""
        frames = _frames(3)
        exact = model(frames, 2)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(frames, 2)
        torch.testing.assert_close(
            rounded.float(), exact, rtol=0, atol=0.05 * exact.abs().max().item()
        )

    def test_any_device(self, model: Forecaster) -> None:
        """A network runs on the device of its weights: here "meta", which has shapes only."""
        prediction = model.to("meta")(_frames(2).to("meta"), 2)
        assert prediction.is_meta
        assert prediction.shape == (2, 3, 1, 8, 8)

    def test_compiles(self, model: Forecaster) -> None:
        """torch.compile captures a step as one graph with the same result."""
        torch.compiler.reset()
        step = torch.compile(model.network, backend="aot_eager", fullgraph=True)
        frame, state = _second_step(model)
        with torch.no_grad():
            torch.testing.assert_close(step(frame, state), model.network(frame, state))

    def test_exports(self, model: Forecaster) -> None:
        """torch.export captures a step with the same result."""
        frame, state = _second_step(model)
        exported = torch.export.export(model.network, (frame, state)).module()
        with torch.no_grad():
            torch.testing.assert_close(exported(frame, state), model.network(frame, state))


class CellContract(_Contract):
    """The contract of a cell, checked on ``<cell>`` and ``ms-<cell>``.

    To check other architectures, override the fixture ``architecture``.

    Attributes:
        cell: Name of the cell.
        options: Arguments of :func:`zoo.create` that replace the defaults, such as
            ``{"kernel_size": 5}``. Networks have 3 layers of 4 channels unless given here.
    """

    cell: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(params=["", "ms-"], ids=["stack", "mirror"])
    def architecture(self, request: pytest.FixtureRequest) -> str:
        """Name of the architecture under test."""
        return request.param + self.cell

    def create(self, architecture: str, **arguments: Any) -> Forecaster:
        """Return a small network with the options of the class."""
        return super().create(architecture, **{**self.options, **arguments})

    @pytest.mark.parametrize("given", [1, 2, 4])
    @pytest.mark.parametrize("horizon", [1, 3])
    def test_any_number_of_frames(self, model: Forecaster, given: int, horizon: int) -> None:
        """Any number of frames gives a prediction of each that follows, for any horizon."""
        frames = _frames(given)
        assert model(frames, horizon).shape == (2, given - 1 + horizon, 1, 8, 8)
        assert model.predict(frames, horizon).shape == (2, horizon, 1, 8, 8)

    def test_input_may_be_wider_than_the_layer(self, model: Forecaster) -> None:
        """A cell accepts in_channels ≠ channels, or rejects it with a ZooError about channels."""
        cell_class, _ = find_cell(model.config.cell) or pytest.fail("the cell is not installed")
        options: dict[str, Any] = dict(model.config.options)
        x = torch.rand(2, 6, 8, 8)
        try:
            cell = cell_class.build(6, 4, Place(1, 3), size=(8, 8), **options)
        except ZooError as error:
            assert "channels" in str(error), f"unclear error: {error}"  # noqa: PT017
            return
        offered = {
            "memory": cell.zeros(x),
            "below": torch.zeros_like(x),
            "shared": cell_class.make_shared(4, **options),
        }
        step = cell(x, cell.init_state(x), **{name: offered[name] for name in cell.asks_for})
        assert step.output.shape == (2, 4, 8, 8)

    def test_state_starts_at_zero(self, model: Forecaster) -> None:
        """The first state is a pytree of zeros, each with the batch as its first axis."""
        for tensor in _tensors(model.network.init_state(_frames(1)[:, 0])):
            assert tensor.shape[0] == 2
            assert not tensor.any()

    def test_state_does_not_grow(self, model: Forecaster) -> None:
        """The structure, shapes and dtypes of the state never change."""
        frames = _frames(3)
        state = model.network.init_state(frames[:, 0])
        initial = _form(state)
        for frame in frames.unbind(1):
            _, state = model.step(frame, state)
            assert _form(state) == initial

    def test_the_first_frame_is_remembered(self, model: Forecaster) -> None:
        """The first frame influences the forecast."""
        frames = _frames(3)
        other = torch.cat([1 - frames[:, :1], frames[:, 1:]], dim=1)
        assert not torch.equal(model(frames, 1)[:, -1], model(other, 1)[:, -1])

    def test_auxiliary_loss_is_for_training(self, model: Forecaster) -> None:
        """An auxiliary loss is one number per sample, and only computed in training mode."""
        frames = _frames(3)
        assert model.rollout(frames, 1).loss is None
        loss = model.train().rollout(frames, 1).loss
        if loss is not None:
            assert loss.shape == (2,)
            assert loss.isfinite().all()


class HeadContract(_Contract):
    """The contract of a head, checked on a small multi-scale network with patches of 1 and 2.

    To check it on another network, override the fixture ``architecture``.

    Attributes:
        head: Name of the head.
        options: The head's own options, if other than the defaults.
    """

    head: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def architecture(self) -> str:
        """Name of the architecture under test."""
        return "ms-convlstm"

    @pytest.fixture(params=[1, 2], ids=["patch1", "patch2"])
    def patch(self, request: pytest.FixtureRequest) -> int:
        """Side of the patches."""
        return request.param

    @pytest.fixture
    def model(self, architecture: str, patch: int) -> Forecaster:
        """A small network with the head."""
        return self.create(architecture, patch=patch)

    def create(self, architecture: str, **arguments: Any) -> Forecaster:
        """Return a small network with the head."""
        arguments = {"head": self.head, "head_options": self.options, **arguments}
        return super().create(architecture, **arguments)

    def test_config_names_the_head(self, model: Forecaster) -> None:
        """The config holds the head's name and a value for each of its options."""
        head = type(model.network.head)
        assert model.config.head == self.head
        assert model.config.head_options.keys() == head.options().keys()
        assert self.options.items() <= model.config.head_options.items()

    def test_padding_is_cropped(self, model: Forecaster) -> None:
        """Frames that are padded give a finite prediction of their own size, and so streamed."""
        for size in ((7, 9), (5, 8)):
            frames = _frames(3, size=size)
            streamed = torch.stack(list(model.stream(frames.unbind(1))), dim=1)
            assert streamed.shape == (2, 3, 1, *size)
            assert torch.equal(streamed, model(frames, 1).clamp(0, 1))
            assert model(frames, 5).isfinite().all()

    def test_a_static_scene_stays_static(self, architecture: str, patch: int) -> None:
        """A head that starts from the frame learns to keep a static scene for 60 frames.

        The network is trained for 75 steps on other static scenes. A head that redraws every
        frame has an error near 0.2 then, half the contrast of a scene.
        """
        model = self.create(architecture, patch=patch)
        if not model.network.head.starts_from_frame:
            return
        generator = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.03, total_steps=75)
        for _ in range(75):
            scenes = _static_scenes(5, generator)
            loss = F.mse_loss(model(scenes[:, :2], horizon=4), scenes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        unseen = _static_scenes(60, generator)
        error = (model.predict(unseen[:, :4], horizon=60) - unseen).abs().mean()
        assert error < 0.1, f"mean absolute error {error:.3f} over 60 frames of a static scene"


#: Shapes (T, C, H, W) of the frames that losses and metrics are checked on.
SHAPES = [(1, 1, 3, 3), (2, 3, 15, 22), (3, 1, 8, 8), (2, 2, 9, 4)]


class LossContract:
    """The contract of a loss.

    Attributes:
        loss: name of the loss.
        options: its own options, if other than the defaults.
        data: the meaning of the values, for options in their unit.
    """

    loss: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    data: ClassVar[Data] = Data()

    @pytest.fixture
    def subject(self) -> Loss:
        """The loss under test."""
        return create_loss(self.loss, self.options)

    def measure(
        self,
        subject: Loss,
        forecast: Tensor,
        truth: Tensor,
        known: Tensor | None = None,
        progress: float = 0.5,
    ) -> Tensor:
        """Compute the loss of each sequence, with all pixels known by default."""
        known = torch.ones_like(truth, dtype=torch.bool) if known is None else known
        return subject(forecast, truth, known, data=self.data, progress=progress)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("progress", [0.0, 0.5, 0.999, 1.0])
    def test_one_finite_number_per_sequence(
        self, subject: Loss, shape: tuple[int, int, int, int], progress: float
    ) -> None:
        """The loss is one finite number per sequence, for any size and at any time in training."""
        forecast, truth = _forecast_and_truth(subject.ensemble, shape)
        loss = self.measure(subject, forecast, truth, progress=progress)
        assert loss.shape == (3,)
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()

    @pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
    def test_a_perfect_forecast_has_the_smallest_loss(self, subject: Loss, progress: float) -> None:
        """No forecast has a smaller loss than the truth, whose loss is 0 if the class says so."""
        forecast, truth = _forecast_and_truth(subject.ensemble)
        perfect = truth.expand_as(forecast)
        smallest = self.measure(subject, perfect, truth, progress=progress)
        rounding = 1e-5 * truth[0].numel()
        if subject.zero_at_truth:
            assert (smallest.abs() < rounding).all()
        for distance in (0.01, 0.1, 1.0):
            other = perfect + distance * (forecast - perfect)
            loss = self.measure(subject, other, truth, progress=progress)
            assert (loss > smallest - rounding).all()

    def test_a_worse_forecast_has_a_larger_loss(self, subject: Loss) -> None:
        """Noise has a larger loss than the truth."""
        forecast, truth = _forecast_and_truth(subject.ensemble)
        perfect = self.measure(subject, truth.expand_as(forecast), truth)
        assert (self.measure(subject, forecast, truth) > perfect).all()

    def test_a_batch_equals_its_sequences(self, subject: Loss) -> None:
        """The loss of a sequence does not depend on the rest of its batch."""
        forecast, truth = _forecast_and_truth(subject.ensemble)
        rows = zip(forecast.split(1, dim=-5), truth.split(1), strict=True)
        alone = torch.cat([self.measure(subject, *row) for row in rows])
        torch.testing.assert_close(self.measure(subject, forecast, truth), alone)

    def test_missing_pixels_do_not_count(self, subject: Loss) -> None:
        """The forecast of a missing pixel changes neither the loss nor any gradient."""
        forecast, truth = _forecast_and_truth(subject.ensemble)
        known = torch.rand(truth.shape, generator=torch.Generator().manual_seed(2)) < 0.7
        truth = truth.where(known, 0)
        results = []
        for filling in (0.0, 0.5, 100.0):
            filled = forecast.where(known, filling).requires_grad_()
            loss = self.measure(subject, filled, truth, known)
            (gradient,) = torch.autograd.grad(loss.sum(), filled)
            results.append((loss.detach(), gradient))
            assert not gradient.masked_select(~known.expand_as(gradient)).any()
        for loss, gradient in results[1:]:
            assert torch.equal(loss, results[0][0])
            assert torch.equal(gradient, results[0][1])

    def test_nothing_known_costs_nothing(self, subject: Loss) -> None:
        """The loss of a sequence without any known pixel is 0, and so is its gradient."""
        forecast, truth = _forecast_and_truth(subject.ensemble)
        forecast.requires_grad_()
        nothing = torch.zeros_like(truth, dtype=torch.bool)
        loss = self.measure(subject, forecast, torch.zeros_like(truth), nothing)
        assert not loss.any()
        if loss.requires_grad:
            assert not torch.autograd.grad(loss.sum(), forecast)[0].any()

    @pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
    def test_gradients_are_right(self, subject: Loss, progress: float) -> None:
        """Gradients in float64 agree with finite differences."""

        def agrees(seed: int) -> bool:
            forecast, truth = _forecast_and_truth(subject.ensemble, (2, 1, 5, 4), seed)
            return torch.autograd.gradcheck(
                lambda x: self.measure(subject, x, truth.double(), progress=progress),
                forecast.double().requires_grad_(),
                raise_exception=False,
            )

        # Finite differences fail across the kink of an absolute value, which few draws are close
        # to; a wrong gradient is wrong for all of them.
        assert any(map(agrees, range(3))), "gradients differ from finite differences"

    @pytest.mark.parametrize("progress", [0.0, 1.0])
    @pytest.mark.parametrize("level", [None, 0.0, 1.0], ids=["truth", "zeros", "ones"])
    def test_gradients_are_finite_everywhere(
        self, subject: Loss, level: float | None, progress: float
    ) -> None:
        """Gradients are finite for the truth itself and for uniform frames."""
        forecast, truth = _forecast_and_truth(subject.ensemble)
        start = truth.expand_as(forecast) if level is None else torch.full_like(forecast, level)
        start = start.clone().requires_grad_()
        for target in (truth, torch.zeros_like(truth)):
            loss = self.measure(subject, start, target, progress=progress)
            assert loss.isfinite().all()
            assert torch.autograd.grad(loss.sum(), start)[0].isfinite().all()

    def test_repeats_itself(self, subject: Loss) -> None:
        """The same arguments give the same loss, bit for bit, and are not changed."""
        forecast, truth = _forecast_and_truth(subject.ensemble)
        copies, before = (forecast.clone(), truth.clone()), torch.get_rng_state()
        first = self.measure(subject, forecast, truth)
        assert torch.equal(first, self.measure(subject, forecast, truth))
        assert torch.equal(forecast, copies[0])
        assert torch.equal(truth, copies[1])
        assert torch.equal(torch.get_rng_state(), before), "it draws random numbers"

    def test_any_device(self, subject: Loss) -> None:
        """A loss is computed on the device of the frames: here "meta", which has shapes only."""
        forecast, truth = (x.to("meta") for x in _forecast_and_truth(subject.ensemble))
        loss = self.measure(subject, forecast, truth)
        assert loss.is_meta
        assert loss.shape == (3,)

    def test_options_are_complete(self, subject: Loss) -> None:
        """Every option has a default, and options survive being saved in a recipe."""
        assert type(subject)() == create_loss(self.loss)
        assert create_loss(self.loss, subject.model_dump(mode="json")) == subject
        assert "weight" not in type(subject).model_fields, "the weight is a key of every recipe"


class MetricContract:
    """The contract of a metric.

    Attributes:
        metric: name of the metric.
        data: the meaning of the values.
    """

    metric: ClassVar[str]
    data: ClassVar[Data] = Data()

    @pytest.fixture
    def subject(self) -> Metric:
        """The metric under test."""
        return create_metric(self.metric)

    def measure(
        self, subject: Metric, forecast: Tensor, truth: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Measure a sequence, with all pixels known by default."""
        known = torch.ones_like(truth, dtype=torch.bool) if known is None else known
        return subject(forecast.double(), truth.double(), known, data=self.data)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_one_number_per_frame(self, subject: Metric, shape: tuple[int, int, int, int]) -> None:
        """The metric of noise is one finite number per frame, for any size."""
        forecast, truth = (x[0] for x in _forecast_and_truth(1, shape))
        score = self.measure(subject, forecast, truth)
        assert score.shape == shape[:1]
        assert score.isfinite().all()

    def test_a_perfect_forecast_has_the_best_score(self, subject: Metric) -> None:
        """The score of the truth is the best one, if the class names it."""
        forecast, truth = (x[0] for x in _forecast_and_truth(1))
        perfect = self.measure(subject, truth, truth)
        if subject.best is not None:
            torch.testing.assert_close(perfect, torch.full_like(perfect, subject.best))
        assert not torch.equal(self.measure(subject, forecast, truth), perfect)

    def test_a_sequence_equals_its_frames(self, subject: Metric) -> None:
        """The score of a frame does not depend on the rest of its sequence."""
        forecast, truth = (x[0] for x in _forecast_and_truth(1))
        pairs = zip(forecast.split(1), truth.split(1), strict=True)
        alone = torch.cat([self.measure(subject, *pair) for pair in pairs])
        torch.testing.assert_close(self.measure(subject, forecast, truth), alone)

    def test_nothing_known_is_not_a_number(self, subject: Metric) -> None:
        """Frames without any known pixel have the score NaN, and so are left out of means."""
        zeros = torch.zeros(2, 1, 8, 8)
        score = self.measure(subject, zeros, zeros, torch.zeros_like(zeros, dtype=torch.bool))
        assert score.isnan().all()

    def test_is_defined(self, subject: Metric) -> None:
        """The class defines the metric in one line."""
        assert subject.definition.strip()
        assert "\n" not in subject.definition


def _forecast_and_truth(
    members: int, shape: tuple[int, int, int, int] = (2, 1, 8, 8), seed: int = 3
) -> tuple[Tensor, Tensor]:
    """Return noise for 3 sequences of (T, C, H, W), always the same, of `members` if above 1."""
    generator = torch.Generator().manual_seed(seed)
    ensemble = (members,) if members > 1 else ()
    forecast = torch.rand(*ensemble, 3, *shape, generator=generator)
    return forecast, torch.rand(3, *shape, generator=generator)


def _static_scenes(time: int, generator: torch.Generator) -> Tensor:
    """Return eight sequences (8, time, 1, 8, 8), each of one smooth random image in [0, 1]."""
    coarse = torch.rand(8, 1, 3, 3, generator=generator)
    images = F.interpolate(coarse, size=(8, 8), mode="bicubic").clamp(0, 1)
    return images[:, None].expand(-1, time, -1, -1, -1)


def _frames(time: int, channels: int = 1, size: tuple[int, int] = (8, 8)) -> Tensor:
    """Return two sequences of noise in [0, 1], always the same."""
    return torch.rand(2, time, channels, *size, generator=torch.Generator().manual_seed(1))


def _second_step(model: Forecaster) -> tuple[Tensor, NetworkState]:
    """Return a frame and a state that is not zero."""
    first, second = _frames(2).unbind(1)
    with torch.no_grad():
        return second, model.step(first)[1]


def _tensors(state: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(state) if leaf is not None]


def _form(state: NetworkState) -> tuple[pytree.TreeSpec, list[tuple[torch.Size, torch.dtype]]]:
    return pytree.tree_structure(state), [(t.shape, t.dtype) for t in _tensors(state)]
