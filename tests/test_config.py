"""Valid and invalid contents of config.json."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from zoo.config import Config, Data, PluginSource
from zoo.errors import ConfigError, HubError, did_you_mean
from zoo.model_folder import read_config

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


def raises(*expected, error=ConfigError):
    """An error of one line that contains each of `expected`, in that order."""
    pattern = "[^\n]*".join(map(re.escape, expected))
    return pytest.raises(error, match=rf"\A[^\n]*{pattern}[^\n]*\Z")


def write(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(CONFIGS)
def test_json_round_trip(config):
    assert Config.parse(json.loads(config.model_dump_json()), source="it") == config


def test_read_config_from_a_folder(tmp_path):
    config = Config(cell="convlstm", hidden=(4, 8), layers=2, options={"kernel_size": 5})
    assert read_config(write(tmp_path, config.model_dump_json())) == config


def test_defaults_of_the_papers():
    config = Config(cell="convlstm")
    assert (config.hidden, config.layers, config.in_channels, config.patch) == (32, 6, 1, 1)
    assert (config.down, config.up) == ("max", "bilinear")


def test_architecture_name():
    assert Config(cell="predrnn").architecture == "predrnn"
    assert Config(cell="predrnn", topology="mirror").architecture == "ms-predrnn"


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config(cell="convlstm").hidden = 8


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "cell"),
        ({"cell": 1}, "cell: "),
        ({"cell": "c", "hiden": 3}, "'hiden' (did you mean hidden?)"),
        ({"cell": "c", "data": {"heigh": 3}}, "'data.heigh' (did you mean data.high"),
        ({"cell": "c", "qqqq": 3}, "'qqqq'"),
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
        ({"cell": "c", "data": {"low": 1.0, "high": 1.0}}, "low (1.0)"),
        ({"cell": "c", "data": {"low": float("nan")}}, "data.low"),
        ({"cell": "c", "data": {"high": float("inf")}}, "data.high"),
        ({"cell": "c", "data": {"size": [4]}}, "data.size"),
        ({"cell": "c", "data": {"standardization": {"std": [0.0]}}}, "data.standardization.std"),
        ({"cell": "c", "data": {"standardization": {"mean": [1.0, 2.0]}}}, "2 means"),
        ({"cell": "c", "data": {"standardization": {}, "high": 9.0}}, "standardization"),
        (
            {"cell": "c", "data": {"standardization": {"mean": [1.0, 2.0], "std": [1.0, 1.0]}}},
            "2 channels",
        ),
        ({"cell": "c", "plugin": {"distribution": "x"}}, "plugin.version"),
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
        ([], ""),
        (None, ""),
    ],
)
def test_invalid_config_is_an_error(values, expected):
    with raises(expected) as caught:
        Config.parse(values, source="it")
    assert str(caught.value).startswith("it: ")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "error", "expected"),
    [
        ("", HubError, "JSON"),
        ("{", HubError, "JSON"),
        ("\x00", HubError, "JSON"),
        ("[" * 100_000, HubError, "JSON"),
        ("1" * 10_000, HubError, "JSON"),
        ("[]", ConfigError, ""),
        ('{"cell": "convlstm", "hidden": NaN}', HubError, "NaN"),
        ('{"format": 2, "cell": "convlstm", "novelty": 1}', HubError, "format 2"),
        ('{"format": null, "cell": "convlstm"}', HubError, "format None"),
    ],
    ids=range(9),
)
def test_invalid_config_json_is_an_error(tmp_path, text, error, expected):
    with raises(expected, error=error) as caught:
        read_config(write(tmp_path, text))
    assert "config.json" in str(caught.value)


def test_binary_config_json_is_an_error(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with raises("config.json", "text", error=HubError):
        read_config(tmp_path)


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_missing_config_json_is_an_error(tmp_path, folder):
    with raises(str(tmp_path / folder), "config.json", error=HubError):
        read_config(tmp_path / folder)


def test_folder_named_config_json_is_an_error(tmp_path):
    (tmp_path / "config.json").mkdir()
    with raises("config.json", error=HubError):
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


def test_long_name_gets_no_suggestion():
    """Comparing takes quadratic time."""
    assert did_you_mean("k" * 10**7, ["convlstm", "k" * 100]) == ""


def test_error_lists_a_few_of_many_unknown_keys():
    with raises("'key0'") as caught:
        Config.parse({"cell": "c"} | {f"key{n}": n for n in range(10_000)}, source="it")
    assert str(caught.value).count("unknown key") < 10


@pytest.mark.parametrize(
    "options",
    [
        {"root": "/"},
        {"split": "train"},
        {"frames": 3},
        {"name": "kth"},
        {"a": "x" * 501},
        {"a": [0] * 1001},
        {"a" * 501: 1},
        {"a": 2**64},
        {"a": [[[[[[[[[[0]]]]]]]]]]},
        {"a": float("inf")},
    ],
    ids=lambda options: str(options)[:30],
)
def test_options_of_data_are_bounded(options):
    with raises("options"):
        Data.parse({"name": "mmnist", "options": options}, source="it")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"folder": "/data"}, "folder"),
        ({"folder": "~/data"}, "folder"),
        ({"folder": "a/../.."}, "folder"),
        ({"folder": "a\\..\\.."}, "folder"),
        ({"folder": "C:/data"}, "folder"),
        ({"files": ["a", "/b"]}, "files"),
        ({"files": {"a": {"b": ".."}}}, "files"),
    ],
)
def test_options_of_data_cannot_name_places(options, named):
    data = Data(options=options)
    with raises(named):
        data.trusted_options()
    assert data.trusted_options({named: "mine"}) == {named: "mine"}


def test_other_options_of_data_are_read():
    options = {"folder": "kth-64", "path": "a/b..c.nc", "unit": "1/h", "variable": "/rain", "n": 3}
    assert Data(options=options).trusted_options() == options
    assert Data(options=options).trusted_options({"n": 4}) == {**options, "n": 4}


def test_create_with_data():
    model = zoo.create("convlstm", hidden=2, layers=2, data=Data(unit="K", low=200, high=300))
    assert model.config.data == Data(unit="K", low=200, high=300)
    assert not model.config.data.is_picture
    assert Data().is_picture


def test_limits_of_standardized_data_are_four_deviations_from_the_mean():
    data = Data(standardization={"mean": (1.0, 10.0), "std": (1.0, 2.0)})
    assert not data.is_picture
    assert data.limits == (-3, 18)
