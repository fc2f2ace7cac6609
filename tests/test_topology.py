"""How layers are stacked, and what passes between them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import zoo
from zoo.errors import ConfigError
from zoo.network import Network
from zoo.topology import DOWN, UP, Topology, full, mirror, noskip, resampler, stack, unet3plus


@st.composite
def mirrors(draw):
    layers = draw(st.integers(2, 40))
    halvings = draw(st.integers(0, (layers - 1) // 2))
    return layers, halvings, mirror(layers, halvings)


def test_mirror_of_six_layers_is_the_published_one():
    assert mirror(6) == Topology(
        scales=(1, 2, 4, 4, 2, 1), inputs=((), (0,), (1,), (2,), (3, 1), (4, 0))
    )
    assert mirror(6).factor == 4


def test_stack_of_six_layers_is_the_published_one():
    assert stack(6) == Topology(scales=(1,) * 6, inputs=((), (0,), (1,), (2,), (3,), (4,)))
    assert stack(6).factor == 1


@pytest.mark.parametrize(("layers", "halvings"), [(2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (9, 2)])
def test_default_halvings(layers, halvings):
    assert mirror(layers) == mirror(layers, halvings)


@given(mirrors())
def test_mirror_is_symmetric_and_halves_at_most_once_per_layer(case):
    layers, halvings, topology = case
    assert len(topology.scales) == layers
    assert topology.scales == topology.scales[::-1]
    assert topology.factor == 2**halvings
    for scale, following in zip(topology.scales, topology.scales[1:], strict=False):
        assert max(scale, following) / min(scale, following) in (1, 2)


@given(mirrors())
def test_mirror_skips_connect_mirrored_layers_of_one_scale(case):
    _, halvings, topology = case
    skips = []
    for j, (first, *rest) in enumerate(topology.inputs[1:], start=1):
        assert first == j - 1
        for i in rest:
            assert topology.scales[i] == topology.scales[j]
            assert j == len(topology.scales) - 1 - i
            skips.append(j)
    assert len(skips) == halvings


@given(st.integers(2, 40), st.integers(-3, 40))
def test_halvings_that_the_depth_does_not_allow_are_an_error(layers, halvings):
    if halvings >= 0 and layers >= 2 * halvings + 1:
        mirror(layers, halvings)
    else:
        with pytest.raises(
            ConfigError, match=rf"\b{layers} .*\b0 to {(layers - 1) // 2}\b.*{halvings}\b"
        ):
            mirror(layers, halvings)


@pytest.mark.parametrize("layers", [1, 0, -1])
@pytest.mark.parametrize("make", [stack, mirror, noskip, unet3plus, full])
def test_less_than_two_layers_is_an_error(make, layers):
    with pytest.raises(ConfigError, match=rf"2 layers.*{layers}\b"):
        make(layers)


@pytest.mark.parametrize(
    ("scales", "inputs"),
    [
        ((), ()),
        ((1, 1), ((),)),
        ((1, 1), ((), ())),
        ((1, 1), ((), (1,))),
        ((1, 1), ((), (-1,))),
        ((1, 1), ((0,), (0,))),
        ((2, 1), ((), (0,))),
        ((1, 2), ((), (0,))),
        ((1, 2, 3, 1), ((), (0,), (1,), (2,))),
    ],
)
def test_invalid_topology_is_an_error(scales, inputs):
    with pytest.raises(ValueError, match=r"layer|scales"):
        Topology(scales, inputs)


def resample(x, source, target, down="max", up="bilinear"):
    return resampler(x.shape[1], source, target, down=down, up=up)(x)


def test_resampling_is_that_of_the_published_code():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resample(x, 1, 2).flatten().tolist() == [5, 7, 13, 15]
    assert resample(x, 1, 2, down="average").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resample(x, 1, 4).flatten().tolist() == [15]
    assert resample(x, 2, 1, up="nearest")[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # Pixel centers, not corners, are aligned: the published align_corners=False.
    assert resample(x, 2, 1)[0, 0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert resample(x, 2, 2) is x


@pytest.mark.parametrize("down", DOWN)
@pytest.mark.parametrize("up", UP)
def test_resampling_keeps_constant_maps_constant(down, up):
    x = torch.full((2, 3, 4, 8), 0.5)
    coarse, fine = resample(x, 1, 4, down=down), resample(x, 4, 1, up=up)
    assert coarse.shape == (2, 3, 1, 2)
    assert fine.shape == (2, 3, 16, 32)
    for resampled, way in ((coarse, down), (fine, up)):
        if way != "conv":  # whose weights are learned
            assert torch.equal(resampled, torch.full_like(resampled, 0.5))


def test_published_variants_of_six_layers():
    scales = (1, 2, 4, 4, 2, 1)
    assert noskip(6) == Topology(scales, ((), (0,), (1,), (2,), (3,), (4,)))
    assert unet3plus(6) == Topology(scales, ((), (0,), (1,), (2, 1, 0), (3, 1, 0), (4, 3, 0)))
    assert full(6) == Topology(scales, ((), (0,), (1, 0), (2, 1, 0), (3, 2, 1, 0), (4, 3, 2, 1, 0)))


@given(st.integers(2, 12), st.data())
def test_every_layer_is_the_input_of_another(layers, data):
    halvings = data.draw(st.integers(0, (layers - 1) // 2))
    for make in (mirror, noskip, unet3plus, full):
        topology = make(layers, halvings)
        assert topology.scales == mirror(layers, halvings).scales
        assert {i for sources in topology.inputs for i in sources} == set(range(layers - 1))
        assert all(sources[0] == j for j, sources in enumerate(topology.inputs[1:]))


class Recorder(zoo.RecurrentCell):
    """Outputs its input, adds 1 to the memory, and records the first pixel of its arguments."""

    seen = []  # noqa: RUF012

    def __init__(self, in_channels, channels, place):
        super().__init__(in_channels, channels)
        self.place = place

    def init_state(self, x):
        return self.zeros(x)

    def forward(self, x, state, memory, below):
        pixel = None if below is None else below[0, 0, 0, 0].item()
        assert below is None or below.shape == x.shape
        assert memory.shape == x.shape
        self.seen.append((self.place.index, x[0, 0, 0, 0].item(), memory.max().item(), pixel))
        return zoo.Step(x, state, memory=memory + 1)


def run(topology, steps):
    """Return the outputs and each step's records of all layers; frame t is t + 1 everywhere."""
    Recorder.seen = []
    network = Network(Recorder, topology, hidden=1)
    for convolution in (network.embed, network.head):
        nn.init.ones_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    state, outputs = None, []
    for t in range(steps):
        frame = torch.full((1, 1, 8, 8), t + 1.0)
        state = network.init_state(frame) if state is None else state
        output, state, _ = network(frame, state)
        outputs.append(output.mean().item())
    depth = len(topology.scales)
    return outputs, [Recorder.seen[t * depth : (t + 1) * depth] for t in range(steps)]


def test_stack_passes_on_outputs_memory_and_below():
    outputs, (first, second) = run(stack(3), 2)
    assert outputs == [1, 2]
    assert first == [(0, 1, 0, None), (1, 1, 1, 0), (2, 1, 2, 0)]
    assert second == [(0, 2, 3, None), (1, 2, 4, 1), (2, 2, 5, 1)]


def test_mirror_adds_skips_to_inputs_but_not_to_memory_or_below():
    outputs, (first, second) = run(mirror(6), 2)
    assert outputs == [3, 6]
    assert [x for _, x, _, _ in first] == [1, 1, 1, 1, 2, 3]
    assert [memory for _, _, memory, _ in second] == [6, 7, 8, 9, 10, 11]
    assert [below for _, _, _, below in second] == [None, 1, 1, 1, 1, 2]


@pytest.fixture
def convlstm():
    return type(zoo.create("convlstm", layers=2, hidden=1).network.layers[0])


def test_one_hidden_size_per_layer_is_required(convlstm):
    with pytest.raises(ConfigError, match=r"\b2 .*\b3 layers"):
        Network(convlstm, stack(3), hidden=[4, 4])


def test_added_outputs_need_equal_hidden_sizes(convlstm):
    with pytest.raises(ConfigError, match=r"layer 2 .*\[5, 4\]"):
        Network(convlstm, mirror(3), hidden=[4, 5, 4])


def test_memory_needs_equal_hidden_sizes():
    with pytest.raises(ConfigError, match=r"Recorder.*\[4, 5\]"):
        Network(Recorder, stack(2), hidden=[4, 5])


def test_head_reads_the_hidden_size_of_the_top_layer(convlstm):
    assert Network(convlstm, mirror(3), hidden=[4, 4, 5]).head.in_channels == 5
