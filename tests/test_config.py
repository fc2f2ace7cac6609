"""What config.json may hold, and what is said of what it may not."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.config import Config, Data, PluginSource, read_config
from zoo.errors import ZooError, did_you_mean

COUNT = st.integers(1, 4096)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-4096, 4096)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)  # fmt: skip
CONFIGS = st.builds(
    Config,
    cell=st.text(),
    topology=st.sampled_from(["stack", "mirror"]),
    in_channels=COUNT,
    hidden=COUNT | st.lists(COUNT, min_size=1).map(tuple),
    layers=st.integers(2, 64),
    patch=st.integers(1, 256),
    size=st.none() | st.tuples(COUNT, COUNT),
    halvings=st.none() | st.integers(0, 16),
    options=st.dictionaries(st.text(), JSON | st.tuples(st.integers(-4096, 4096)), max_size=32),
    data=st.builds(
        Data,
        unit=st.text(),
        low=st.floats(-1e6, 0),
        high=st.floats(1, 1e6),
        size=st.none() | st.tuples(COUNT, COUNT),
        horizon=st.none() | COUNT,
    ),
    plugin=st.none()
    | st.builds(
        PluginSource,
        distribution=st.from_regex(r"\A[a-z]([a-z._-]*[a-z])?\Z"),
        version=st.from_regex(r"\A[0-9.a-z+]{0,9}\Z"),
    ),
)


def refused(expected):
    """A ZooError of one line that says `expected`."""
    return pytest.raises(ZooError, match=r"\A[^\n]*" + re.escape(expected) + r"[^\n]*\Z")


def write(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


@given(CONFIGS)
def test_json_and_back(config):
    assert Config.parse(json.loads(config.model_dump_json()), source="it") == config


def test_read_from_a_folder(tmp_path):
    config = Config(cell="convlstm", hidden=(4, 8), layers=2, options={"kernel_size": 5})
    assert read_config(write(tmp_path, config.model_dump_json())) == config


def test_defaults_are_those_of_the_papers():
    config = Config(cell="convlstm")
    assert (config.hidden, config.layers, config.in_channels, config.patch) == (32, 6, 1, 1)
    assert (config.down, config.up) == ("max", "bilinear")


def test_architectures_are_named():
    assert Config(cell="predrnn").architecture == "predrnn"
    assert Config(cell="predrnn", topology="mirror").architecture == "ms-predrnn"


def test_a_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config(cell="convlstm").hidden = 8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "cell is missing"),
        ({"cell": 1}, "cell: "),
        ({"cell": "c", "hiden": 3}, "unknown key 'hiden' (did you mean hidden?)"),
        ({"cell": "c", "data": {"heigh": 3}}, "unknown key 'data.heigh' (did you mean data.high"),
        ({"cell": "c", "qqqq": 3}, "unknown key 'qqqq'"),
        ({"cell": "c", "hidden": 0}, "hidden"),
        ({"cell": "c", "hidden": -1}, "hidden"),
        ({"cell": "c", "hidden": 10**9}, "hidden"),
        ({"cell": "c", "hidden": 10**400}, "hidden"),
        ({"cell": "c", "hidden": True}, "hidden"),
        ({"cell": "c", "hidden": "32"}, "hidden"),
        ({"cell": "c", "hidden": 3.0}, "hidden"),
        ({"cell": "c", "hidden": [4, 0]}, "hidden"),
        ({"cell": "c", "in_channels": 0}, "in_channels"),
        ({"cell": "c", "layers": 1}, "layers"),
        ({"cell": "c", "layers": 10**6}, "layers"),
        ({"cell": "c", "patch": 0}, "patch"),
        ({"cell": "c", "halvings": 99}, "halvings"),
        ({"cell": "c", "halvings": -1}, "halvings"),
        ({"cell": "c", "options": []}, "options"),
        ({"cell": "c", "options": {"a": object()}}, "options"),
        ({"cell": "c", "options": {"a": float("nan")}}, "options"),
        ({"cell": "c", "data": {"low": 1.0, "high": 1.0}}, "low (1.0) must be below high (1.0)"),
        ({"cell": "c", "data": {"low": float("nan")}}, "data.low"),
        ({"cell": "c", "data": {"high": float("inf")}}, "data.high"),
        ({"cell": "c", "data": {"size": [4]}}, "data.size"),
        ({"cell": "c", "plugin": {"distribution": "x"}}, "plugin.version is missing"),
        (
            {"cell": "c", "plugin": {"distribution": "x; rm -rf ~", "version": "1"}},
            "plugin.distribution",
        ),
        (
            {"cell": "c", "plugin": {"distribution": "x", "version": "1 --index-url y"}},
            "plugin.version",
        ),
        ({"cell": "c", "topology_plugin": {"distribution": "-e."}}, "topology_plugin.distribution"),
        ({"cell": "c", "format": 2}, "format"),
        ([], "the whole"),
        (None, "the whole"),
    ],
)
def test_what_is_no_config(values, said):
    with refused(said) as caught:
        Config.parse(values, source="it")
    assert str(caught.value).startswith("it: ")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("\x00", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("1" * 10_000, "cannot be read as JSON"),
        ("[]", "the whole"),
        ('{"cell": "convlstm", "hidden": NaN}', "NaN is no number of JSON"),
        ('{"format": 2, "cell": "convlstm", "novelty": 1}', "has format 2, this zoo reads 1"),
        ('{"format": null, "cell": "convlstm"}', "has format None"),
    ],
    ids=range(9),
)
def test_what_is_no_config_json(tmp_path, text, said):
    with refused(said) as caught:
        read_config(write(tmp_path, text))
    assert "config.json" in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with refused("cannot be read as text"):
        read_config(tmp_path)


def test_a_folder_without_a_config(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with refused("is not a model folder: it has no config.json"):
            read_config(folder)
    (tmp_path / "config.json").mkdir()
    with refused("config.json"):
        read_config(tmp_path)


@given(st.text(), st.lists(st.text()))
def test_suggestions_are_among_the_names(name, names):
    clause = did_you_mean(name, names)
    if name in names and name:
        assert name in clause
    assert bool(clause) <= bool(names)


def test_suggestions_for_published_names():
    assert did_you_mean("ms-predrn", ["ms-predrnn", "convlstm"]) == " (did you mean ms-predrnn?)"
    assert did_you_mean("xyz", ["ms-predrnn", "convlstm"]) == ""


def test_data_in_create():
    model = zoo.create("convlstm", hidden=2, layers=2, data=Data(unit="K", low=200, high=300))
    assert model.config.data == Data(unit="K", low=200, high=300)
    assert not model.config.data.is_picture
    assert Data().is_picture
