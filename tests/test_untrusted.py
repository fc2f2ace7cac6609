"""A model may come from anyone: of whatever its files hold comes a clear error or a sound model."""

import json
import os
import signal
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
import zoo.cli
from zoo.errors import ZooError
from zoo.hub.card import write_card
from zoo.hub.publish import publish
from zoo.model_folder import PARTS, read_json, update_metrics
from zoo.plugins import names

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


@contextmanager
def no_hang(seconds=30):
    """Whatever takes longer fails; it is a hang, as each try takes some milliseconds."""

    def stop(*_):
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def load(folder):
    """The model, or None where there is a clear error of one line."""
    with no_hang():
        try:
            return zoo.load(f"local-dir:{folder}")
        except ZooError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert 20 < len(str(error)) < 2000  # noqa: PT017
            return None


def changed(content, data):
    """Some bytes changed, taken away or put in, and what is after a place cut off."""
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


@OFTEN
@given(data=st.data())
def test_any_change_of_the_weights(folder, data):
    """The same forecast, bit for bit, or an error: no number of the file can be changed."""
    sound = zoo.load(f"local-dir:{folder}")(FRAMES, 2)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    try:
        path.write_bytes(changed(content, data))
        if model := load(folder):
            assert torch.equal(model(FRAMES, 2), sound)
    finally:
        path.write_bytes(content)


@OFTEN
@given(data=st.data())
def test_any_change_of_the_config(folder, data):
    """An error, or a model with the very weights, whose config is what the file says."""
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


@OFTEN
@given(data=st.data())
def test_any_value_in_the_config(tmp_path, data):
    """Of every cell, any value of any key, its own options among them."""
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
def test_a_header_that_lies_about_its_length(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert load(folder) is None


def test_damaged_numbers_are_told(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ZooError, match="is damaged: its numbers have changed"):
        zoo.load(f"local-dir:{folder}")


def test_numbers_of_another_type_are_told(folder):
    """The same bytes mean other numbers in the other half precision."""
    model = zoo.load(f"local-dir:{folder}")
    zoo.save(model.to(torch.bfloat16), folder)
    assert load(folder) is not None
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"dtype":"BF16"', b'"dtype": "F16"', 1))
    with pytest.raises(ZooError, match="is damaged"):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    "values",
    [
        {"layers": 65},
        {"layers": 64, "options": {"kernel_sizes": [1] * 33}},
        {"layers": 64, "options": {"kernel_sizes": [1] * 32}},
    ],
    ids=str,
)
def test_a_config_of_absurd_size_is_told_soon(folder, values):
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
def test_metrics_that_are_none(folder, change):
    (folder / "recipe.toml").write_text("a = 1")
    (folder / "metrics.json").write_text(json.dumps(METRICS | change))
    for command in (["card", folder], ["info", f"local-dir:{folder}"], ["card", folder]):
        ran = CliRunner().invoke(zoo.cli.zoo, list(map(str, command)))
        assert ran.exit_code == 2, ran.output
        assert "metrics.json" in ran.output
        assert ran.output.count("\n") == 1


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_a_file_too_large_is_not_read(folder, name):
    with (folder / name).open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with no_hang(), pytest.raises(ZooError, match="has more than"):
        read_json(folder / name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_folder(folder, tmp_path, name):
    """A folder from elsewhere does not decide which files of this machine are read."""
    secret = tmp_path / "secret"
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    with pytest.raises(ZooError, match=f"{name} is a link to .*secret, outside its folder"):
        zoo.load(f"local-dir:{folder}")


def test_a_link_within_the_folder_and_to_it(folder, tmp_path):
    (folder / "config.json").rename(folder / "its-config")
    (folder / "config.json").symlink_to("its-config")
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link") is not None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_file_is_not_read(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)  # reading it would wait for ever
    with no_hang(), pytest.raises(ZooError, match="is no regular file"):
        zoo.load(f"local-dir:{folder}")


def a_pipe(path, _):
    os.mkfifo(path)


def endless(path, _):
    path.symlink_to("/dev/zero")


def a_link(path, secret):
    path.symlink_to(secret)


@pytest.mark.parametrize("made", [a_pipe, endless, a_link])
@pytest.mark.parametrize("name", ["metrics.json", "README.md", "recipe.toml", "config.json"])
def test_no_part_leads_elsewhere(folder, tmp_path, name, made):
    """Not what is read for a list, for what is measured, for a card; and none is written to."""
    (tmp_path / "secret").write_text("{}")
    (folder / "recipe.toml").write_text("a = 1")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / name).unlink(missing_ok=True)
    made(folder / name, tmp_path / "secret")
    with no_hang(), pytest.raises(ZooError, match=r"is no regular file|outside its folder|a link"):
        write_card(folder, "mit")
    with no_hang(), pytest.raises(ZooError):
        publish(folder, "name", hub=str(tmp_path / "hub"))
    if name == "metrics.json":
        with no_hang(), pytest.raises(ZooError):
            update_metrics(folder, cost=1)
    if name == "config.json":
        with no_hang(), pytest.warns(UserWarning, match="is left out"):
            assert "model" not in zoo.hub.pretrained_models(str(folder.parent))
    assert (tmp_path / "secret").read_text() == "{}"


@pytest.mark.parametrize("part", ["metrics.json", "picture.png"])
def test_a_link_is_not_published(folder, tmp_path, part):
    (tmp_path / "secret").write_text("{}")
    (folder / part).symlink_to(tmp_path / "secret")
    with pytest.raises(ZooError, match="outside its folder"):
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
def test_a_name_leads_nowhere_else(folder, tmp_path, name):
    (tmp_path / "hub").mkdir()
    with pytest.raises(ZooError, match=r"there are no weights for|no model is named"):
        zoo.pull(name, hub=str(tmp_path / "hub"))
    with pytest.raises(ZooError, match="is no name of a model"):
        zoo.hub.places.open_hub(str(tmp_path / "hub")).publish(folder, name, [])
    assert list((tmp_path / "hub").iterdir()) == []


def test_only_parts_of_a_model_are_published():
    """Nothing that could be run, and no checkpoint."""
    assert not {".py", ".pth", ".ckpt", ".pkl", ".so", ".sh"} & {
        Path(part).suffix for part in PARTS
    }
