"""All installed cells and heads keep their contracts, and the suites catch those that do not."""

import inspect
import itertools
from typing import ClassVar

import pytest
import torch
from conftest import FEWER_REPETITIONS
from torch import nn

import zoo
from zoo.errors import ConfigError, DataError, ZooError
from zoo.network import Network
from zoo.registry import architectures, heads, topologies
from zoo.testing import CellContract, HeadContract
from zoo.topology import mirror

#: The cells and heads that are tested without the slow ones, too.
QUICK = {"convlstm", "ms-predrnn", "change"}


def mostly_slow(names):
    """Parameters, of which all but the quick ones are marked slow."""
    return [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in names]


class TestEveryCell(CellContract):
    @pytest.fixture(params=mostly_slow(architectures()))
    def architecture(self, request):
        return request.param

    def create(self, architecture, **arguments):
        options = FEWER_REPETITIONS.get(architecture.removeprefix("ms-"), {})
        return super().create(architecture, **options, **arguments)


class TestEveryHead(HeadContract):
    @pytest.fixture(autouse=True, params=mostly_slow(heads()))
    def choose_head(self, request):
        self.head = request.param

    @pytest.mark.slow
    def test_a_static_scene_stays_static(self, architecture, patch):
        super().test_a_static_scene_stays_static(architecture, patch)


@pytest.mark.slow
class TestPublishedOptions(CellContract):
    """Options of other published networks: normalization, no bias, a forget bias, patches."""

    options: ClassVar = {
        "norm": True,
        "size": [8, 8],
        "patch": 2,
        "embed": False,
        "kernel_size": 3,
    }

    # Every such cell in one of two topologies.
    @pytest.fixture(
        params=[
            "convlstm",
            "ms-predrnn",
            "predrnnv2",
            "ms-predrnnpp",
            "openstl_predrnnpp",
            "ms-openstl_mim",
        ]
    )
    def architecture(self, request):
        return request.param

    def create(self, architecture, **sizes):
        own = {} if "openstl" in architecture else {"bias": False, "forget_bias": 1.0}
        model = super().create(architecture, **own, **sizes)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):  # at 1 the network is chaotic: rounding grows
                nn.init.constant_(module.weight, 0.25)
        return model

    def test_any_size(self, architecture):
        """Weights of layer normalization are for one size, padded or not."""
        for size, patch, channels in (((9, 14), 4, 3), ((5, 6), 1, 1)):
            sizes = {"size": size, "patch": patch, "in_channels": channels}
            model = self.create(architecture, **sizes)
            assert model(torch.rand(2, 2, channels, *size), 2).shape == (2, 3, channels, *size)
            other = torch.rand(2, 2, channels, size[0] + 1, size[1])
            with pytest.raises(ZooError, match=f"{size[0] + 1}×{size[1]}.* {size[0]}×{size[1]}"):
                model(other, 2)

    def test_normalization_needs_the_size_of_the_frames(self, architecture):
        with pytest.raises(ConfigError, match=r"size="):
            self.create(architecture, size=None)

    def test_any_size_without_normalization(self, architecture):
        model = self.create(architecture, norm=False, size=None)
        assert model(torch.rand(1, 2, 1, 9, 14), 1).shape == (1, 2, 1, 9, 14)
        assert not any(name.endswith("bias") for name, _ in model.named_parameters())


#: Laws that take long or do not depend on the topology; above they are checked in two.
ELSEWHERE = {"compiles", "exports", "gradients_are_right"}
ELSEWHERE |= {"any_number_of_frames", "input_may_be_wider_than_the_layer"}
LAWS = sorted({name[5:] for name in dir(CellContract) if name.startswith("test_")} - ELSEWHERE)
CELLS = [name for name in architectures() if "-" not in name]
TOPOLOGIES = ["noskip", "unet3plus", "full"]


#: Every pair of a cell and a law, of a cell and a topology, and of a topology and a law occurs.
PAIRS = [
    (cell, TOPOLOGIES[(i + j) % len(TOPOLOGIES)], law)
    for (i, cell), (j, law) in itertools.product(enumerate(CELLS), enumerate(LAWS))
]


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "topology", "law"), PAIRS)
def test_every_cell_keeps_the_contract_in_every_topology(cell, topology, law, tmp_path):
    class Contract(CellContract):
        options = {"layers": 5, **FEWER_REPETITIONS.get(cell, {})}  # noqa: RUF012

    check(f"{topology}-{cell}", law, Contract(), layers=5, tmp_path=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "law"),
    # motionrnn asks for most: memory, below, its place, and a grid of its own.
    [("motionrnn", "exports"), ("motionrnn", "gradients_are_right"), ("predrnn", "compiles")],
)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_compiles_exports_and_has_right_gradients(topology, cell, law):
    check(f"{topology}-{cell}", law, CellContract())


@pytest.mark.parametrize("head", heads())
@pytest.mark.parametrize("topology", topologies())
def test_every_head_works_with_every_topology(head, topology):
    model = zoo.create(f"{topology}-predrnn", hidden=2, layers=5, patch=2, in_channels=3, head=head)
    assert model(torch.rand(1, 2, 3, 9, 14), 2).shape == (1, 3, 3, 9, 14)


def check(architecture, law, contract, layers=3, patch=1, **offered):
    """Run one check of a contract."""
    test = getattr(contract, f"test_{law}")
    model = contract.create(architecture, layers=layers, patch=patch)
    offered |= {"architecture": architecture, "size": (15, 22), "channels": 1, "patch": patch}
    offered |= {"layers": layers, "model": model}
    test(**{name: offered[name] for name in inspect.signature(test).parameters})


class Sound(zoo.RecurrentCell):
    """A simple recurrent cell that keeps the contract, for the others to break."""

    def __init__(self, in_channels, channels):
        super().__init__(in_channels, channels)
        self.mix = nn.Conv2d(in_channels + channels, channels, 3, padding="same")

    def init_state(self, x):
        return self.zeros(x)

    def forward(self, x, state):
        h = torch.tanh(self.mix(torch.cat([x, state], dim=1)))
        return zoo.Step(h, h)


class HalvesOddSizes(Sound):
    def forward(self, x, state):
        x = nn.functional.max_pool2d(x, 2)
        return super().forward(nn.functional.interpolate(x, scale_factor=2), state)


class KeepsItsOwnState(Sound):
    count = 0

    def forward(self, x, state):
        self.count += 1
        return super().forward(x * self.count, state)


class ChangesItsState(Sound):
    def forward(self, x, state):
        state += x
        return super().forward(x, state)


class Forgets(Sound):
    def forward(self, x, state):
        return super().forward(x, torch.zeros_like(state))


class Grows(Sound):
    def forward(self, x, state):
        output, _ = super().forward(x, state[:, : self.channels])[:2]
        return zoo.Step(output, torch.cat([output, state], dim=1))


class StartsAtOne(Sound):
    def init_state(self, x):
        return self.zeros(x) + 1


class MixesTheBatch(Sound):
    def forward(self, x, state):
        return super().forward(x + x.mean(dim=0), state)


class DrawsNumbers(Sound):
    def forward(self, x, state):
        return super().forward(nn.functional.dropout(x, 1e-9), state)


class HasDeadChannels(Sound):
    def __init__(self, in_channels, channels):
        super().__init__(in_channels, channels)
        self.unused = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x, state):
        return super().forward(x, state + self.unused(state)[:, : self.channels])


class CutsGradients(Sound):
    def forward(self, x, state):
        return super().forward(x, state.detach())


class NeedsPrecision(Sound):
    def forward(self, x, state):
        return super().forward(x + 100 - 100, state)


class StaysOnTheCpu(Sound):
    def init_state(self, x):
        return torch.zeros(x.shape[0], self.channels, *x.shape[2:], dtype=x.dtype)


class LooksAtMemory(Sound):
    def forward(self, x, state):
        output, state = super().forward(x, state)[:2]
        return zoo.Step(output + (output.stride(1) == 1), state)


class LooksAtData(Sound):
    def forward(self, x, state):
        return super().forward(x if x.mean() > 0 else -x, state)


class AlwaysHasALoss(Sound):
    def forward(self, x, state):
        return super().forward(x, state)._replace(loss=x.mean(dim=(1, 2, 3)))


class HasAnOptionWithoutType(Sound):
    def __init__(self, in_channels, channels, rate=0.5):
        super().__init__(in_channels, channels)


class HasAnOptionOfUnknownType(Sound):
    def __init__(self, in_channels, channels, rate: "Share" = 0.5):  # noqa: F821
        super().__init__(in_channels, channels)


@pytest.mark.parametrize(
    ("cell", "law"),
    [
        (HasAnOptionWithoutType, "options_have_types"),
        (HasAnOptionOfUnknownType, "options_have_types"),
        (KeepsItsOwnState, "steps_equal_the_rollout"),
        (ChangesItsState, "steps_equal_the_rollout"),
        (Forgets, "the_first_frame_is_remembered"),
        (Grows, "state_does_not_grow"),
        (StartsAtOne, "state_starts_at_zero"),
        (MixesTheBatch, "a_batch_equals_its_samples"),
        (DrawsNumbers, "same_seed_same_result"),
        (HasDeadChannels, "no_parameter_is_dead"),
        (CutsGradients, "gradients_are_right"),
        (NeedsPrecision, "bfloat16_is_close"),
        (StaysOnTheCpu, "any_device"),
        (LooksAtMemory, "optimized_gives_the_same_forecast"),
        (LooksAtData, "compiles"),
        (LooksAtData, "exports"),
        (AlwaysHasALoss, "auxiliary_loss_is_for_training"),
        (HalvesOddSizes, "any_size"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_cell_that_breaks_a_law_is_caught(cell, law):
    class Contract(CellContract):
        def create(self, architecture, layers=3, **sizes):
            torch.manual_seed(0)
            network = Network(cell_class, mirror(3), hidden=2, **sizes)
            return zoo.Forecaster(network, zoo.Config(cell="toy", **sizes)).eval()

    cell_class = Sound
    check("toy", law, Contract())
    cell_class = cell
    with pytest.raises((AssertionError, RuntimeError)):
        check("toy", law, Contract())


class SoundHead(zoo.Head):
    """A simple head that keeps the contract, for the others to break."""

    def __init__(self, in_channels, channels, patch=1):
        super().__init__(in_channels, channels, patch)
        self.conv = nn.Conv2d(in_channels, channels * patch**2, 1)

    def forward(self, features, frame):
        return frame + 0.1 * self.to_pixels(self.conv(features))


class HasAnOptionWithoutTypeToo(SoundHead):
    def __init__(self, in_channels, channels, patch=1, start=1):
        super().__init__(in_channels, channels, patch)


class CountsSteps(SoundHead):
    count = 0

    def forward(self, features, frame):
        self.count += 1
        return super().forward(features, frame * self.count)


class FillsFloat32Only(SoundHead):
    def forward(self, features, frame):
        return super().forward(features.float(), frame)


class MixesSamples(SoundHead):
    def forward(self, features, frame):
        return super().forward(features, frame + frame.mean(dim=0))


class DropsOut(SoundHead):
    def forward(self, features, frame):
        return super().forward(nn.functional.dropout(features, 1e-9), frame)


class RoundsInBfloat16(SoundHead):
    def forward(self, features, frame):
        return frame + self.to_pixels(self.conv(features) + 1000) - 1000


class MakesCpuTensors(SoundHead):
    def forward(self, features, frame):
        return super().forward(features, frame) + torch.zeros(frame.shape)


class BranchesOnData(SoundHead):
    def forward(self, features, frame):
        return super().forward(features if features.mean() > 0 else -features, frame)


class ForgetsPatches(SoundHead):
    def forward(self, features, frame):
        return nn.functional.interpolate(self.conv(features)[:, : self.channels], frame.shape[-2:])


class DividesByZero(SoundHead):
    def forward(self, features, frame):
        return super().forward(features, frame) / (frame - frame[..., -1:])


class RedrawsTheFrame(SoundHead):
    def forward(self, features, frame):
        return self.to_pixels(self.conv(features))


@pytest.mark.parametrize(
    ("head", "law"),
    [
        (HasAnOptionWithoutTypeToo, "options_have_types"),
        (CountsSteps, "steps_equal_the_rollout"),
        (CountsSteps, "stream_equals_the_rollout"),
        (MixesSamples, "a_batch_equals_its_samples"),
        (DropsOut, "same_seed_same_result"),
        (ForgetsPatches, "no_parameter_is_dead"),
        (FillsFloat32Only, "gradients_are_right"),
        (RoundsInBfloat16, "bfloat16_is_close"),
        (MakesCpuTensors, "any_device"),
        (BranchesOnData, "compiles"),
        (BranchesOnData, "exports"),
        (DividesByZero, "any_size"),
        (DividesByZero, "padding_is_cropped"),
        pytest.param(RedrawsTheFrame, "a_static_scene_stays_static", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_head_that_breaks_a_law_is_caught(head, law):
    class Contract(HeadContract):
        def create(self, architecture, layers=3, **sizes):
            torch.manual_seed(0)
            cell = type(zoo.create("convlstm", hidden=1, layers=2).network.layers[0])
            network = Network(cell, mirror(3), hidden=2, head=head_class, **sizes)
            return zoo.Forecaster(network, zoo.Config(cell="toy", **sizes)).eval()

    head_class = SoundHead
    check("toy", law, Contract(), patch=2)
    head_class = head
    with pytest.raises((AssertionError, RuntimeError, DataError)):
        check("toy", law, Contract(), patch=2)
