"""Names of models, and models by name."""

import re

import pytest
import torch

import zoo
from zoo.errors import ZooError
from zoo.registry import ALIASES, architectures, build, parse_architecture

CELLS = ["convlstm", "mklstm", "predrnn"]


def refused(expected):
    """A ZooError of one line that says `expected`."""
    return pytest.raises(ZooError, match=r"\A[^\n]*" + re.escape(expected) + r"[^\n]*\Z")


def small(name, **options):
    return zoo.create(name, **{"hidden": 2, "layers": 3} | options)


def test_every_cell_has_two_architectures():
    names = architectures()
    assert set(CELLS) <= set(names)
    assert sorted(names) == sorted({n for c in names if "-" not in c for n in (c, f"ms-{c}")})
    for name in names:
        assert small(name).config.architecture == name


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("mslstm", ("mklstm", "mirror")),
        ("ms-lstm", ("mklstm", "mirror")),
        ("sms-lstm", ("convlstm", "mirror")),
        ("tms-lstm", ("mklstm", "stack")),
        ("predrnn", ("predrnn", "stack")),
        ("ms-predrnn", ("predrnn", "mirror")),
    ],
)
def test_names_of_the_papers(alias, expected):
    assert parse_architecture(alias) == expected
    config = small(alias).config
    assert (config.cell, config.topology) == expected


def test_an_alias_hides_no_architecture():
    assert not set(ALIASES) & set(architectures())
    assert set(ALIASES.values()) <= set(architectures())


def test_models_are_listed_by_pattern():
    names = zoo.list_models(pretrained=False)
    assert names == sorted(architectures())
    assert zoo.list_models("ms-*", pretrained=False) == [n for n in names if n[:3] == "ms-"]
    assert zoo.list_models("convlstm", pretrained=False) == ["convlstm"]
    assert zoo.list_models("mslstm", pretrained=False) == ["ms-mklstm"]
    assert zoo.list_models("?ms-*", pretrained=False) == ["mklstm", "ms-convlstm"]
    assert zoo.list_models("nothing*") == []
    assert set(zoo.list_models()) == set(names) | set(zoo.list_models(pretrained=True))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ms-predrn", "no model is named 'ms-predrn' (did you mean ms-predrnn"),
        ("mslst", "mslstm"),
        ("ConvLSTM", "no model is named 'ConvLSTM'"),
        ("xyz", "no model is named 'xyz'; see: zoo list"),
        ("", "no model is named ''"),
        ("ms-", "no model is named 'ms-'"),
        ("ms-ms-convlstm", "no model is named 'ms-ms-convlstm'"),
        ("ms-mslstm", "no model is named 'ms-mslstm'"),
    ],
)
def test_unknown_names(name, said):
    with refused(said):
        zoo.create(name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernel_sise": 3}, "has no option 'kernel_sise' (did you mean kernel_size?)"),
        ({"hiden": 3}, "has no option 'hiden' (did you mean hidden"),
        ({"qqqq": 3}, "has no option 'qqqq'; its own are: kernel_size"),
        ({"cell": "predrnn"}, "has no option 'cell'"),
        ({"hidden": 0}, "hidden"),
        ({"kernel_size": "three"}, "cannot be built with {'kernel_size': 'three'}"),
        ({"kernel_size": -1}, "cannot be built with"),
        ({"topology": "spiral"}, "no topology is named 'spiral'; there are: stack, mirror"),
        ({"down": "drop"}, "down='drop' is not one of max, average, conv"),
        ({"up": "lift"}, "up='lift' is not one of bilinear, nearest"),
        ({"halvings": 1}, "the topology 'stack' has no halvings"),
        ({"topology": "mirror", "halvings": 2}, "3 layers allow 0 to 1 halvings"),
        ({"hidden": [4, 4]}, "hidden has 2 numbers for 3 layers"),
    ],
)
def test_options_that_make_no_model(options, said):
    with refused(said):
        small("convlstm", **options)


def test_options_make_the_model():
    model = small(
        "ms-convlstm",
        hidden=[2, 2, 5],
        layers=3,
        in_channels=3,
        patch=2,
        kernel_size=5,
        up="nearest",
    )
    gates = model.network.layers[2].gates
    assert gates.weight.shape == (4 * 5, 2 + 5, 5, 5)
    assert model.network.embed.in_channels == 3 * 2 * 2
    assert model.network.topology.scales == (1, 2, 1)
    assert isinstance(model.network.resamplers["0_1"], torch.nn.MaxPool2d)
    assert model.network.resamplers["1_2"].mode == "nearest"
    assert small("convlstm", topology="mirror").config.architecture == "ms-convlstm"
    assert small("ms-convlstm", halvings=0).network.topology.scales == (1, 1, 1)


def test_the_config_is_complete():
    """Options are written with their defaults, and the plugin that the cell is from."""
    config = small("mklstm").config
    assert config.options == {"kernel_sizes": [3, 5]}
    assert config.plugin.distribution == "spatiotemporal-zoo"
    assert build(config).config == config


def test_the_seed_fixes_the_weights():
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.flatten() for p in small("predrnn").parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_cell_that_is_not_installed():
    with refused("no cell is named 'convlst' (did you mean convlstm, "):
        build(zoo.Config(cell="convlst"))
    source = {"distribution": "zoo-of-mine", "version": "1.2"}
    with refused(
        "from zoo-of-mine 1.2, which is not installed; install it: pip install zoo-of-mine==1.2"
    ):
        build(zoo.Config(cell="mine", plugin=source))


def test_an_architecture_brings_in_its_pretrained_models():
    assert "mslstm-mmnist" in zoo.list_models("ms-*", pretrained=True)
    assert zoo.list_models("mslstm", pretrained=True) == ["mslstm-mmnist"]
    assert "mslstm-mmnist" not in zoo.list_models("ms-c*")
