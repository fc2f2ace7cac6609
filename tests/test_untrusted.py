"""Untrusted model folders: any content gives a clear error or a valid model."""

import json
import os
import re
import struct
from functools import partial
from pathlib import Path

import alarm
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from zoo.errors import ConfigError, HubError, ZooError
from zoo.hub.card import write_card
from zoo.hub.publish import publish
from zoo.model_folder import PARTS, read_json, update_metrics
from zoo.plugins import names

no_hang = partial(alarm.no_hang, seconds=30)

FRAMES = torch.rand(1, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SCORES = {"model": {"mse": 1.0}, "persistence": {"mse": 2.0}}
DATA = {"name": "mmnist", "split": "test", "sequences": 1, "input_frames": 2, "horizon": 2}
TRAINING = {"steps": 1, "sequences": 1, "minutes": 1.0, "device": "cpu", "torch": "2"}
METRICS = {"training": TRAINING, "data": DATA, "forecast": SCORES, "all-steps": SCORES}
OFTEN = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    return zoo.save(zoo.create("ms-convlstm", hidden=2, layers=3), tmp_path / "model")


def load(folder):
    """The model, or None if there is a clear error of one line."""
    with no_hang():
        try:
            return zoo.load(f"local-dir:{folder}")
        except ZooError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert 20 < len(str(error)) < 2000  # noqa: PT017
            return None


def changed(content, data):
    """Some bytes changed, removed or inserted, or the end cut off."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3), "changes")):
        place = data.draw(st.integers(0, max(len(content) - 1, 0)), "place")
        kind = data.draw(st.sampled_from(["set", "bit", "drop", "add", "cut"]), "kind")
        if not content:
            break
        if kind == "set":
            content[place] = data.draw(st.integers(0, 255), "byte")
        elif kind == "bit":
            content[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
        elif kind == "drop":
            del content[place : place + 1]
        elif kind == "add":
            content.insert(place, data.draw(st.integers(0, 255), "byte"))
        else:
            del content[place:]
    return bytes(content)


@pytest.mark.slow
@OFTEN
@given(data=st.data())
def test_changed_weights_give_an_error_or_the_same_forecast(folder, data):
    """The result is the same forecast, bit for bit, or an error."""
    sound = zoo.load(f"local-dir:{folder}")(FRAMES, 2)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    try:
        path.write_bytes(changed(content, data))
        if model := load(folder):
            assert torch.equal(model(FRAMES, 2), sound)
    finally:
        path.write_bytes(content)


@pytest.mark.slow
@OFTEN
@given(data=st.data())
def test_changed_config_gives_an_error_or_a_valid_model(folder, data):
    """The result is an error, or a model with the same weights and the config of the file."""
    weights = zoo.load(f"local-dir:{folder}").state_dict()
    path = folder / "config.json"
    content = path.read_bytes()
    try:
        path.write_bytes(changed(content, data))
        if model := load(folder):
            for name, value in json.loads(path.read_bytes()).items():
                if name not in ("options", "data", "plugin"):
                    assert model.config.model_dump(mode="json")[name] == value
            assert all(map(torch.equal, model.state_dict().values(), weights.values()))
    finally:
        path.write_bytes(content)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**9, 10**18, 2**63, 1e308, "", "\0", "../..", "x" * 10_000])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@pytest.mark.slow
@OFTEN
@given(data=st.data())
def test_arbitrary_config_values_give_an_error_or_a_model(tmp_path, data):
    """Any value of any key, for every cell, including its own options."""
    cell = data.draw(st.sampled_from(names("cells")), "cell")
    folder = tmp_path / cell
    if not folder.exists():
        zoo.save(zoo.create(cell, hidden=2, layers=3), folder)
    path = folder / "config.json"
    content = path.read_text()
    values = json.loads(content)
    holder = data.draw(st.sampled_from([values, values["options"], values["data"]]), "of")
    key = data.draw(st.sampled_from(sorted(holder)) | st.text(max_size=5), "key")
    holder[key] = data.draw(VALUES, "value")
    try:
        path.write_text(json.dumps(values))
        load(folder)
    finally:
        path.write_text(content)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1])
def test_wrong_header_length_is_an_error(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert load(folder) is None


def test_damaged_numbers_are_an_error(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ZooError, match="safetensors"):
        zoo.load(f"local-dir:{folder}")


def test_changed_dtype_is_an_error(folder):
    """The same bytes mean other numbers in the other half precision."""
    model = zoo.load(f"local-dir:{folder}")
    zoo.save(model.to(torch.bfloat16), folder)
    assert load(folder) is not None
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"dtype":"BF16"', b'"dtype": "F16"', 1))
    with pytest.raises(ZooError, match="safetensors"):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"layers": 65},
        {"layers": 64, "options": {"kernel_sizes": [1] * 33}},
        {"layers": 64, "options": {"kernel_sizes": [1] * 32}},
    ],
    ids=str,
)
def test_config_of_absurd_size_is_rejected_quickly(folder, values):
    config = json.loads((folder / "config.json").read_text()) | {"cell": "mklstm"} | values
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder) is None


@pytest.mark.parametrize(
    "change",
    [
        {"training": []},
        {"training": {}},
        {"data": {}},
        {"data": DATA | {"sequences": "many"}},
        {"forecast": {}},
        {"forecast": {"model": {"mse": "small"}, "persistence": {}}},
        {"forecast": {"model": {"mse": float("nan")}, "persistence": {}}},
        {"forecast": 3, "all-steps": 3},
        {"cost": {"macs": 1}},
        {"demo": {"model": {}}},
        {"protocol": "mine"},
    ],
    ids=str,
)
def test_invalid_metrics_are_an_error(cli, folder, change):
    (folder / "recipe.toml").write_text("a = 1")
    (folder / "metrics.json").write_text(json.dumps(METRICS | change))
    for command in (["card", folder], ["info", f"local-dir:{folder}"], ["card", folder]):
        assert "metrics.json" in cli.fail(*command)


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_huge_file_is_not_read(folder, name):
    with (folder / name).open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with no_hang(), pytest.raises(HubError, match=name):
        read_json(folder / name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_link_out_of_the_folder_is_an_error(folder, tmp_path, name):
    """A model folder must not determine which files of this machine are read."""
    secret = tmp_path / "secret"
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    with pytest.raises(HubError, match=f"{name} .*secret"):
        zoo.load(f"local-dir:{folder}")


def test_links_within_and_to_the_folder_are_allowed(folder, tmp_path):
    (folder / "config.json").rename(folder / "its-config")
    (folder / "config.json").symlink_to("its-config")
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link") is not None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipe_is_not_read(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)  # reading it would block
    with no_hang(), pytest.raises(HubError, match=name):
        zoo.load(f"local-dir:{folder}")


def a_pipe(path, _):
    os.mkfifo(path)


def endless(path, _):
    path.symlink_to("/dev/zero")


def a_link(path, secret):
    path.symlink_to(secret)


@pytest.mark.parametrize("made", [a_pipe, endless, a_link])
@pytest.mark.parametrize("name", ["metrics.json", "README.md", "recipe.toml", "config.json"])
def test_links_and_pipes_are_not_followed(folder, tmp_path, name, made):
    """No such file is read, listed, published or written to."""
    (tmp_path / "secret").write_text("{}")
    (folder / "recipe.toml").write_text("a = 1")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / name).unlink(missing_ok=True)
    made(folder / name, tmp_path / "secret")
    with no_hang(), pytest.raises(HubError, match=name):
        write_card(folder, "mit")
    with no_hang(), pytest.raises(ZooError):
        publish(folder, "name", hub=str(tmp_path / "hub"))
    if name == "metrics.json":
        with no_hang(), pytest.raises(ZooError):
            update_metrics(folder, cost=1)
    if name == "config.json":
        with no_hang(), pytest.warns(UserWarning, match="config.json"):
            assert "model" not in zoo.hub.pretrained_models(str(folder.parent))
    assert (tmp_path / "secret").read_text() == "{}"


@pytest.mark.parametrize("part", ["metrics.json", "picture.png"])
def test_link_is_not_published(folder, tmp_path, part):
    (tmp_path / "secret").write_text("{}")
    (folder / part).symlink_to(tmp_path / "secret")
    with pytest.raises(HubError, match=f"{part} .*secret"):
        publish(folder, "name", hub=str(tmp_path / "hub"))
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../model",
        "/etc",
        "..",
        ".",
        "a/../../model",
        "model\0",
        "~",
        "model/",
        "C:\\model",
        "-x",
    ],
)
def test_name_cannot_lead_elsewhere(folder, tmp_path, name):
    (tmp_path / "hub").mkdir()
    with pytest.raises(HubError, match=re.escape(repr(name))):
        zoo.pull(name, hub=str(tmp_path / "hub"))
    with pytest.raises(ConfigError, match=re.escape(repr(name))):
        zoo.hub.places.open_hub(str(tmp_path / "hub")).publish(folder, name, [])
    assert list((tmp_path / "hub").iterdir()) == []


def test_only_parts_of_a_model_are_published():
    """No code, and no checkpoints."""
    assert not {".py", ".pth", ".ckpt", ".pkl", ".so", ".sh"} & {
        Path(part).suffix for part in PARTS
    }


def with_values(**values):
    return lambda config: json.dumps({**config, **values})


def with_options(**options):
    return lambda config: json.dumps({**config, "options": {**config["options"], **options}})


def with_data(**values):
    return lambda config: json.dumps({**config, "data": {**config["data"], **values}})


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


DIGITS = 10**4000
UNKNOWN = {f"key{number}": number for number in range(15_000)}
HOSTILE = {
    "empty": lambda _: "",
    "null": lambda _: "null",
    "list": lambda _: "[]",
    "text": lambda _: '"convlstm"',
    "number": lambda _: "1e999",
    "not UTF-8": lambda config: json.dumps(config).encode("utf-16"),
    "byte order mark": lambda config: b"\xef\xbb\xbf" + json.dumps(config).encode(),
    "460,000 unknown keys": lambda _: json.dumps({f"k{n}": 0 for n in range(460_000)})[: 4 << 20],
    "15,000 unknown keys": with_values(**UNKNOWN),
    "15,000 unknown keys of data": with_data(**UNKNOWN),
    "15,000 options": with_options(**UNKNOWN),
    "15,000 options of data": with_data(options=UNKNOWN),
    "long unknown key": with_values(**{"k" * 100_000: 1}),
    "long option": with_options(**{"k" * 100_000: 1}),
    "long cell": with_values(cell="c" * 100_000),
    "long name of data": with_data(name="n" * 100_000),
    "surrogate": with_values(cell="\ud800"),
    "surrogate in a key": with_values(**{"\ud800": 1}),
    "surrogate in an option": with_options(**{"\ud800": "\ud800"}),
    "control characters": with_values(cell="\n\x1b[2J\0"),
    "control characters in a key": with_values(**{"\n\x1b[2J\0": 1}),
    "the same key twice": lambda config: json.dumps(config)[:-1] + ', "cell": "predrnn"}',
    "the same option twice": lambda config: json.dumps(config).replace(
        '"kernel_size": 3', '"kernel_size": 3, "kernel_size": 3'
    ),
    "NaN": lambda config: json.dumps(config).replace('"low": 0.0', '"low": NaN'),
    "infinite": lambda config: json.dumps(config).replace('"high": 1.0', '"high": Infinity'),
    "1e999": lambda config: json.dumps(config).replace('"high": 1.0', '"high": 1e999'),
    "1e999 in an option": lambda config: json.dumps(config).replace(
        '"kernel_size": 3', '"kernel_size": 1e999'
    ),
    "nested": lambda _: "[" * 900 + "]" * 900,
    "nested deeper than the stack": lambda _: "[" * 100_000,
    **{f"{key} of 900 lists": with_values(**{key: nested(900)}) for key in ("cell", "data", "k")},
    "option of 900 lists": with_options(kernel_size=nested(900)),
    "option of 20 lists": with_options(kernel_size=nested(20)),
    "option of data of 20 lists": with_data(options={"size": nested(20)}),
    "5,000 digits": lambda config: json.dumps(config).replace(
        '"hidden": 2', f'"hidden": {"9" * 5000}'
    ),
    "4,000 digits": with_values(hidden=DIGITS),
    "option of 4,000 digits": with_options(kernel_size=DIGITS),
    "option of data of 4,000 digits": with_data(options={"size": DIGITS}),
    "unit of 4,000 digits": with_data(low=-DIGITS),
    "format of 4,000 digits": with_values(format=DIGITS),
    **{
        f"{key}={value}": with_values(**{key: value})
        for key, value in [
            ("hidden", 10**9),
            ("hidden", [10**9] * 3),
            ("layers", 10**6),
            ("patch", 10**4),
            ("in_channels", 10**9),
            ("halvings", 10**3),
            ("size", [10**5, 10**5]),
            ("head_options", {"scale": 1.0}),
            ("head", "frame\0"),
            ("topology", "../stack"),
        ]
    },
    "options of another type": with_options(kernel_size=3.5, bias=None),
    "option that the cell has not": with_options(window=3),
    **{
        f"data option {name}": with_data(name="mmnist", options={name: value})
        for name, value in [("root", "/"), ("split", "train"), ("frames", 10**9), ("name", "kth")]
    },
    "horizon": with_data(horizon=10**9),
    "10,000 layers": with_values(hidden=[2] * 10_000),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_config_is_an_error_of_one_line(folder, tmp_path, cli, change):
    """No model is made of it, and it stops neither a list of models nor its description."""
    hub = tmp_path / "hub"
    sound = zoo.save(zoo.create("convlstm", hidden=2, layers=2), hub / "sound")
    folder = folder.rename(hub / "hostile")
    text = change(json.loads((folder / "config.json").read_text()))
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    np.save(tmp_path / "in.npy", np.zeros((2, 8, 8), dtype="float32"))
    with no_hang(seconds=20):
        assert load(folder) is None
        info = cli("info", f"local-dir:{folder}")
        assert info.exit_code in (0, 2)
        assert info.exception is None or isinstance(info.exception, SystemExit)
        cli.fail("predict", f"local-dir:{folder}", tmp_path / "in.npy", "-o", tmp_path / "o.npy")
        listed = cli("list", "--hub", hub, "--json")
    assert listed.exit_code == 0
    assert sound.name in {row["name"] for row in json.loads(listed.stdout)}
    assert listed.stderr.count("\n") <= 1


@pytest.mark.parametrize(
    "values", [{"layers": 33, "halvings": 16}, {"layers": 3, "halvings": 1, "patch": 256}], ids=str
)
def test_small_model_cannot_take_any_amount_of_memory(tmp_path, values):
    """Its weights are few, but small frames would be padded to 65,536 pixels a side."""
    from zoo import network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "LARGEST_MULTIPLE", 10**6)
        folder = zoo.save(zoo.create("ms-convlstm", hidden=1, **values), tmp_path / "model")
    assert load(folder) is None
