"""Names of architectures, and models created by name."""

import re

import pytest
import torch

import zoo
from zoo.errors import ConfigError, PluginError, ZooError
from zoo.registry import ALIASES, architectures, build, parse_architecture

CELLS = ["convlstm", "mklstm", "predrnn"]


def raises(*expected, error=ConfigError):
    """An error of one line that contains each of `expected`, in that order."""
    pattern = "[^\n]*".join(map(re.escape, expected))
    return pytest.raises(error, match=rf"\A[^\n]*{pattern}[^\n]*\Z")


def small(name, **options):
    return zoo.create(name, **{"hidden": 2, "layers": 3} | options)


def test_each_cell_has_two_architectures():
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
def test_aliases_of_the_papers(alias, expected):
    assert parse_architecture(alias) == expected
    config = small(alias).config
    assert (config.cell, config.topology) == expected


def test_aliases_hide_no_architecture():
    assert not set(ALIASES) & set(architectures())
    assert set(ALIASES.values()) <= set(architectures())


def test_list_models_by_pattern():
    names = zoo.list_models(pretrained=False)
    assert names == sorted(architectures())
    assert zoo.list_models("ms-*", pretrained=False) == [n for n in names if n[:3] == "ms-"]
    assert zoo.list_models("convlstm", pretrained=False) == ["convlstm"]
    assert zoo.list_models("mslstm", pretrained=False) == ["ms-mklstm"]
    assert zoo.list_models("?ms-*", pretrained=False) == ["mklstm", "ms-convlstm"]
    assert zoo.list_models("nothing*") == []
    assert set(zoo.list_models()) == set(names) | set(zoo.list_models(pretrained=True))


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("ms-predrn", "ms-predrnn"),
        ("mslst", "mslstm"),
        ("ConvLSTM", ""),
        ("xyz", "zoo list"),
        ("", ""),
        ("ms-", ""),
        ("ms-ms-convlstm", ""),
        ("ms-mslstm", ""),
    ],
)
def test_unknown_name_is_an_error(name, suggestion):
    with raises(f"'{name}'", suggestion):
        zoo.create(name)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kernel_sise": 3}, ["'kernel_sise'", "kernel_size?"]),
        ({"hiden": 3}, ["'hiden'", "hidden"]),
        ({"qqqq": 3}, ["'qqqq'", "kernel_size"]),
        ({"cell": "predrnn"}, ["'cell'"]),
        ({"hidden": 0}, ["hidden"]),
        ({"kernel_size": "three"}, ["convlstm", "{'kernel_size': 'three'}"]),
        ({"kernel_size": -1}, ["convlstm", "{'kernel_size': -1}"]),
        ({"topology": "spiral"}, ["'spiral'", "stack, mirror"]),
        ({"down": "drop"}, ["down='drop'", "max, average, conv"]),
        ({"up": "lift"}, ["up='lift'", "bilinear, nearest"]),
        ({"halvings": 1}, ["'stack'", "halvings"]),
        ({"topology": "mirror", "halvings": 2}, ["3", "0", "1", "halvings"]),
        ({"hidden": [4, 4]}, ["hidden", "2", "3"]),
    ],
)
def test_invalid_options_are_an_error(options, expected):
    with raises(*expected, error=ZooError):
        small("convlstm", **options)


def test_options_reach_the_network():
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


def test_config_has_default_options_and_the_plugin():
    config = small("mklstm").config
    assert config.options == {"kernel_sizes": [3, 5]}
    assert config.plugin.distribution == "spatiotemporal-zoo"
    assert build(config).config == config


def test_seed_determines_the_weights():
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.flatten() for p in small("predrnn").parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_unknown_cell_is_an_error():
    with raises("'convlst'", "convlstm"):
        build(zoo.Config(cell="convlst"))


def test_cell_of_a_missing_plugin_reports_what_to_install():
    source = {"distribution": "zoo-of-mine", "version": "1.2"}
    with raises("'mine'", "pip install zoo-of-mine==1.2", error=PluginError):
        build(zoo.Config(cell="mine", plugin=source))


def test_pretrained_models_are_listed_with_their_architecture():
    assert "mslstm-mmnist" in zoo.list_models("ms-*", pretrained=True)
    assert zoo.list_models("mslstm", pretrained=True) == ["mslstm-mmnist"]
    assert "mslstm-mmnist" not in zoo.list_models("ms-c*")
