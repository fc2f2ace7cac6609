"""From a reference to a model: built-in models, folders, the Hugging Face Hub."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import zoo
import zoo.hub
from zoo.errors import ZooError


def refused(expected):
    """A ZooError of one line that says `expected`."""
    return pytest.raises(ZooError, match=r"\A[^\n]*" + re.escape(expected) + r"[^\n]*\Z")


def small(name, **options):
    return zoo.create(name, **{"hidden": 2, "layers": 3} | options)


@pytest.fixture
def builtin(tmp_path, monkeypatch):
    """A built-in place of four models."""
    folder = tmp_path / "cards"
    monkeypatch.setattr(zoo.hub, "builtin_folder", lambda: folder)
    for name in ("mslstm-kth", "mslstm-mmnist", "ms-convlstm-mmnist", "predrnn-mmnist-small"):
        architecture = name.removesuffix("-small").rpartition("-")[0]
        zoo.save(small(architecture, data={"name": name}), folder / name)
    (folder / "convlstm-mmnist").mkdir()  # a recipe whose model is not trained yet
    (folder / "convlstm-mmnist" / "recipe.toml").write_text("")
    return folder


@pytest.mark.parametrize(
    ("ref", "pretrained", "name"),
    [
        ("mslstm-mmnist", True, "mslstm-mmnist"),
        ("mslstm", True, "mslstm-kth"),
        ("mslstm", "mmnist", "mslstm-mmnist"),
        ("ms-lstm", "mmnist", "mslstm-mmnist"),
        ("ms-mklstm", "mmnist", "mslstm-mmnist"),
        ("ms-mklstm-mmnist", True, "mslstm-mmnist"),
        ("ms-lstm-kth", True, "mslstm-kth"),
        ("sms-lstm", True, "ms-convlstm-mmnist"),
        ("sms-lstm-mmnist", True, "ms-convlstm-mmnist"),
        ("ms-convlstm", "mmnist", "ms-convlstm-mmnist"),
        ("predrnn", True, "predrnn-mmnist-small"),
        ("predrnn", "mmnist-small", "predrnn-mmnist-small"),
    ],
)
def test_a_name_is_found(builtin, ref, pretrained, name):
    assert zoo.pull(ref, pretrained) == builtin / name
    model = zoo.load(ref, pretrained=pretrained)
    assert model.config.data.name == name
    assert not model.training


@pytest.mark.parametrize(
    ("ref", "pretrained", "said"),
    [
        ("mslstm-mnist", True, "'mslstm-mnist' (did you mean mslstm-mmnist"),
        ("mslstm", "mnist", "'mslstm-mnist' (did you mean mslstm-mmnist"),
        ("convlstm", True, "there are no weights for 'convlstm'"),
        ("convlstm-mmnist", True, "there are no weights for 'convlstm-mmnist'"),
        ("tms-lstm", True, "there are no weights for 'tms-lstm'"),
        ("predrnn-mmnist", True, "there are no weights for 'predrnn-mmnist'"),
        ("xyz", True, "there are no weights for 'xyz'; see: zoo list"),
        ("../cards/mslstm-kth", True, "there are no weights for '../cards/mslstm-kth'"),
        ("", True, "there are no weights for ''"),
    ],
)
def test_a_name_that_is_not_found(builtin, ref, pretrained, said):
    with refused(said):
        zoo.load(ref, pretrained=pretrained)


def test_without_weights_there_is_create(builtin):
    with refused("zoo.create('mslstm')"):
        zoo.load("mslstm", pretrained=False)


def test_pretrained_models_are_listed(builtin):
    names = ["ms-convlstm-mmnist", "mslstm-kth", "mslstm-mmnist", "predrnn-mmnist-small"]
    assert zoo.list_models(pretrained=True) == names
    assert zoo.list_models("*-kth") == ["mslstm-kth"]
    assert zoo.list_models("mslstm*", pretrained=True) == ["mslstm-kth", "mslstm-mmnist"]


# Folders


def test_a_folder(tmp_path, monkeypatch):
    model = small("ms-predrnn", in_channels=2)
    monkeypatch.chdir(tmp_path)
    assert zoo.save(model, "a/b") == tmp_path.joinpath("a/b").relative_to(tmp_path)
    loaded = zoo.load("local-dir:a/b")
    assert loaded.config == model.config
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert zoo.pull("local-dir:~/a/b") == tmp_path / "a/b"


@pytest.fixture
def folder(tmp_path):
    return zoo.save(small("convlstm"), tmp_path / "model")


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("path", ["{}/nowhere", "~nobody-of-this-name/x", "{}/config.json", "\0"])
def test_a_folder_that_is_not_there(folder, path):
    with refused("there is no folder"):
        zoo.load(f"local-dir:{path.format(folder)}")


def test_a_folder_that_lacks_a_file(folder):
    (folder / "model.safetensors").rename(folder / "aside")
    with refused("has no model.safetensors"):
        zoo.load(f"local-dir:{folder}")
    (folder / "config.json").unlink()
    with refused("has no config.json"):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cell": "mine"}, "does not provide it; pip install spatiotemporal-zoo=="),
        ({"cell": "mine", "plugin": None}, "no cell is named 'mine'"),
        ({"hidden": 3}, "does not fit its config.json; of another shape: embed.bias [2]"),
        ({"layers": 4}, "missing: layers.3.gates.bias"),
        ({"layers": 2}, "not of this model: layers.2.gates.bias"),
        ({"options": {"kernel_sise": 3}}, "has no option 'kernel_sise'"),
        ({"hiden": 3}, "unknown key 'hiden'"),
        ({"hidden": 10**9}, "hidden"),
    ],
)
def test_a_config_that_does_not_fit(folder, values, said):
    edit(folder, **values)
    with refused(said):
        zoo.load(f"local-dir:{folder}")


def test_a_config_that_is_too_large_for_its_weights(folder):
    """The weights are compared before memory is taken for them (1 TB here)."""
    edit(folder, hidden=4096, layers=64)
    with refused("does not fit its config.json"):
        zoo.load(f"local-dir:{folder}")


def test_a_device_that_is_not_there(folder):
    for device in ("nonsense", "cuda:99"):
        with refused(f"the device '{device}' cannot be used"):
            zoo.load(f"local-dir:{folder}", device=device)


def test_a_model_is_saved_over_another(folder):
    model = small("predrnn")
    zoo.save(model, folder)
    assert zoo.load(f"local-dir:{folder}").config == model.config
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_model_that_cannot_be_saved(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with refused(str(path)):
            zoo.save(small("convlstm"), path)


# The Hugging Face Hub, without a network


def offline(home, code):
    """Run code where the Hub cannot be reached and `home` is its cache."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", f"import zoo\n{code}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout.splitlines(), result.stderr.splitlines()


TELL = """
for ref in {refs}:
    try: print(zoo.pull(f"hf-hub:{{ref}}"))
    except zoo.ZooError as error: print(error)
"""


def test_a_model_of_the_hub_that_cannot_be_had(tmp_path):
    refs = ["org/name", "org/name@v1", "no name", "a/b/c", "", "@main"]
    lines, errors = offline(tmp_path, TELL.format(refs=refs))
    assert not errors
    assert len(lines) == len(refs)
    assert lines[0].startswith("hf-hub:org/name is not in the cache and the Hub cannot be reached")
    assert lines[1].startswith("hf-hub:org/name@v1 is not in the cache")
    for line in lines[2:]:
        assert "is no name of a repository (hf-hub:org/name)" in line


def test_a_model_of_the_hub_that_is_in_the_cache(tmp_path, folder):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--org--name"
    shutil.copytree(folder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    refs = ["org/name", "org/name@main", f"org/name@{commit}"]
    lines, errors = offline(tmp_path, TELL.format(refs=refs))
    assert lines == [str(cache / "snapshots" / commit)] * 3, errors


def test_loaded_in_the_precision_it_was_saved_in(tmp_path):
    model = zoo.create("convlstm", hidden=2, layers=2)
    ref = f"local-dir:{zoo.save(model, tmp_path / 'single')}"
    exact = f"local-dir:{zoo.save(model.double(), tmp_path / 'double')}"
    half = f"local-dir:{zoo.save(model.half(), tmp_path / 'half')}"
    for name, dtype, expected in (
        (ref, None, torch.float32),
        (exact, None, torch.float64),
        (half, None, torch.float32),
        (ref, torch.bfloat16, torch.bfloat16),
    ):
        loaded = zoo.load(name, dtype=dtype)
        assert {p.dtype for p in loaded.parameters()} == {expected}
        assert loaded.predict(np.zeros((2, 8, 8), np.float32), 1).shape == (1, 8, 8)
