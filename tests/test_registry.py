"""Names of architectures, and models created by name."""

import re
from typing import Any

import pytest
import torch

import zoo
from zoo.errors import ConfigError, PluginError, ZooError
from zoo.plugins import names
from zoo.registry import (
    ALIASES,
    architectures,
    build,
    find_cell,
    find_head,
    parse_architecture,
)

CELLS = ["convlstm", "mklstm", "predrnn"]


def raises(*expected, error=ConfigError):
    """An error of one line that contains each of `expected`, in that order."""
    pattern = "[^\n]*".join(map(re.escape, expected))
    return pytest.raises(error, match=rf"\A[^\n]*{pattern}[^\n]*\Z")


def small(name, **options):
    return zoo.create(name, **{"hidden": 2, "layers": 3} | options)


def test_each_cell_has_two_architectures():
    found = architectures()
    assert set(CELLS) <= set(found)
    assert sorted(found) == sorted({n for c in found if "-" not in c for n in (c, f"ms-{c}")})
    for name in found:
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
    found = zoo.list_models(pretrained=False)
    assert found == sorted(architectures())
    assert zoo.list_models("ms-*", pretrained=False) == [n for n in found if n[:3] == "ms-"]
    assert zoo.list_models("convlstm", pretrained=False) == ["convlstm"]
    assert zoo.list_models("mslstm", pretrained=False) == ["ms-mklstm"]
    assert zoo.list_models("?ms-*", pretrained=False) == ["mklstm", "ms-convlstm"]
    assert zoo.list_models("nothing*") == []
    assert set(zoo.list_models()) == set(found) | set(zoo.list_models(pretrained=True))


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
        ({"kernel_sise": 3}, ["'kernel_sise'", "kernel_size"]),
        ({"hiden": 3}, ["'hiden'", "hidden"]),
        ({"qqqq": 3}, ["'qqqq'", "kernel_size"]),
        ({"cell": "predrnn"}, ["'cell'"]),
        ({"hidden": 0}, ["hidden"]),
        ({"kernel_size": "three"}, ["convlstm", "kernel_size", "'three'"]),
        ({"kernel_size": -1}, ["convlstm", "kernel_size", "-1"]),
        ({"kernel_size": True}, ["kernel_size", "True"]),
        ({"kernel_size": 3.0}, ["kernel_size", "3.0"]),
        ({"bias": 3}, ["bias", "3"]),
        ({"kernel_size": 10**5000}, ["options"]),
        ({"hidden": 10**5000}, ["hidden"]),
        ({"forget_bias": None}, ["forget_bias", "None"]),
        ({"forget_bias": float("inf")}, ["forget_bias"]),
        ({"hidden": 4096, "layers": 64}, ["4096", "64"]),
        ({"hidden": 512, "layers": 64, "kernel_size": 63}, ["'kernel_size': 63"]),
        ({"patch": 256, "topology": "mirror"}, ["256", "2"]),
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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("preciplstm", {"window": 4096}),
        ("modernn", {"iterations": 4096}),
        ("modernn", {"detail_sizes": [2]}),
        ("mklstm", {"kernel_sizes": []}),
        ("mklstm", {"kernel_sizes": [3] * 17}),
        ("mklstm", {"kernel_sizes": 3}),
        ("trajgru", {"align_corners": 3}),
        ("trajgru", {"slope": "x"}),
        ("motionrnn", {"alpha": -1}),
        ("predrnn", {"head": "advect", "head_options": {"reach": None}}),
        ("predrnn", {"head": "change", "head_options": {"scale": [1]}}),
    ],
    ids=str,
)
def test_option_of_another_type_or_out_of_range_is_an_error(name, options):
    (option,) = options.get("head_options", options)
    with raises(option, "expected"):
        small(name, **options)


@pytest.mark.parametrize("cell", names("cells"))
def test_every_option_has_a_type(cell):
    parts = [find_cell(cell)[0], *(find_head(head)[0] for head in names("heads"))]
    assert not [o for part in parts for o in part.options().values() if o.type is Any]


def test_options_arrive_as_their_types():
    assert small("mklstm", kernel_sizes=(3, 7)).config.options == {"kernel_sizes": [3, 7]}
    assert build(zoo.Config(cell="trajgru", hidden=2, layers=2, options={"slope": 0})).config


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


@pytest.mark.parametrize("field", ["plugin", "topology_plugin", "head_plugin"])
def test_part_that_the_zoo_has_taken_over_must_be_accepted(field):
    source = {"distribution": "zoo-of-mine", "version": "1.2"}
    config = zoo.Config(cell="convlstm", hidden=2, layers=2, **{field: source})
    with raises("zoo-of-mine 1.2", "spatiotemporal-zoo", "any_plugin", error=PluginError) as caught:
        build(config)
    assert "uninstall" not in str(caught.value)
    with pytest.warns(UserWarning, match="zoo-of-mine"):
        build(config, any_plugin=True)


def test_pretrained_models_are_listed_with_their_architecture():
    assert "mslstm-mmnist" in zoo.list_models("ms-*", pretrained=True)
    trained = ["mslstm-knmi", "mslstm-kth", "mslstm-mmnist", "mslstm-taxinyc"]
    assert zoo.list_models("mslstm", pretrained=True) == trained
    assert "mslstm-mmnist" not in zoo.list_models("ms-c*")
