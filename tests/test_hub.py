"""Models by reference: built-in models, folders, the Hugging Face Hub."""

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
from zoo.errors import ConfigError, HubError, NotFoundError, PluginError, ZooError


def raises(*expected, error=HubError):
    """An error of one line that contains each of `expected`, in that order."""
    pattern = "[^\n]*".join(map(re.escape, expected))
    return pytest.raises(error, match=rf"\A[^\n]*{pattern}[^\n]*\Z")


def small(name, **options):
    return zoo.create(name, **{"hidden": 2, "layers": 3} | options)


@pytest.fixture
def builtin(tmp_path, monkeypatch):
    """Four built-in models."""
    folder = tmp_path / "cards"
    monkeypatch.setattr(zoo.hub, "builtin_folder", lambda: folder)
    for name in ("mslstm-kth", "mslstm-mmnist", "ms-convlstm-mmnist", "predrnn-mmnist-small"):
        architecture = name.removesuffix("-small").rpartition("-")[0]
        zoo.save(small(architecture, data={"name": name}), folder / name)
    (folder / "convlstm-mmnist").mkdir()  # a recipe without weights
    (folder / "convlstm-mmnist" / "recipe.toml").write_text("")
    return folder


@pytest.mark.parametrize(
    ("ref", "pretrained", "name"),
    [
        ("mslstm-mmnist", True, "mslstm-mmnist"),
        ("mslstm", True, "mslstm-mmnist"),
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
def test_pull_by_name(builtin, ref, pretrained, name):
    assert zoo.pull(ref, pretrained) == builtin / name
    model = zoo.load(ref, pretrained=pretrained)
    assert model.config.data.name == name
    assert not model.training


@pytest.mark.parametrize(
    ("ref", "pretrained", "expected"),
    [
        ("mslstm-mnist", True, ["'mslstm-mnist'", "mslstm-mmnist"]),
        ("mslstm", "mnist", ["'mslstm-mnist'", "mslstm-mmnist"]),
        ("convlstm", True, ["'convlstm'", "zoo.create"]),
        ("convlstm-mmnist", True, ["'convlstm-mmnist'"]),
        ("tms-lstm", True, ["'tms-lstm'", "zoo.create"]),
        ("predrnn-mmnist", True, ["'predrnn-mmnist'"]),
        ("xyz", True, ["'xyz'", "zoo list"]),
        ("../cards/mslstm-kth", True, ["'../cards/mslstm-kth'"]),
        ("", True, ["''"]),
    ],
)
def test_unknown_name_is_not_found(builtin, ref, pretrained, expected):
    with raises(*expected, error=NotFoundError):
        zoo.load(ref, pretrained=pretrained)


def test_load_without_weights_suggests_create(builtin):
    with raises("zoo.create('mslstm')", error=ConfigError):
        zoo.load("mslstm", pretrained=False)


def test_pretrained_models_are_listed(builtin):
    names = ["ms-convlstm-mmnist", "mslstm-kth", "mslstm-mmnist", "predrnn-mmnist-small"]
    own = [n for n in zoo.list_models(pretrained=True) if not n.endswith("-openstl")]
    assert own == names
    assert zoo.list_models("*-kth") == ["mslstm-kth"]
    assert zoo.list_models("mslstm*", pretrained=True) == ["mslstm-kth", "mslstm-mmnist"]


# Folders


def test_load_from_a_folder(tmp_path, monkeypatch):
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
def test_missing_folder_is_not_found(folder, path):
    path = path.format(folder)
    with raises(os.path.expanduser(path), error=NotFoundError):
        zoo.load(f"local-dir:{path}")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_incomplete_folder_is_an_error(folder, file):
    (folder / file).unlink()
    with raises(str(folder), file):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("values", "error", "expected"),
    [
        ({"cell": "mine"}, PluginError, ["'mine'", "pip install spatiotemporal-zoo=="]),
        ({"cell": "mine", "plugin": None}, ConfigError, ["'mine'"]),
        ({"hidden": 3}, ZooError, ["embed.bias", "2"]),
        ({"layers": 4}, ZooError, ["layers.3.gates.bias"]),
        ({"layers": 2}, ZooError, ["layers.2.gates.bias"]),
        ({"options": {"kernel_sise": 3}}, ConfigError, ["'kernel_sise'"]),
        ({"hiden": 3}, ConfigError, ["'hiden'"]),
        ({"hidden": 10**9}, ConfigError, ["hidden"]),
    ],
)
def test_config_that_does_not_fit_the_weights_is_an_error(folder, values, error, expected):
    edit(folder, **values)
    with raises(*expected, error=error):
        zoo.load(f"local-dir:{folder}")


def test_huge_config_is_rejected_before_memory_is_allocated(folder):
    edit(folder, hidden=4096, layers=64)  # 1 TB
    with raises("hidden=4096", "layers=64", error=ZooError):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_unknown_device_is_an_error(folder, device):
    with raises(f"'{device}'", error=ConfigError):
        zoo.load(f"local-dir:{folder}", device=device)


def test_save_replaces_a_model(folder):
    model = small("predrnn")
    zoo.save(model, folder)
    assert zoo.load(f"local-dir:{folder}").config == model.config
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_save_below_a_file_is_an_error(tmp_path, path):
    (tmp_path / "file").write_text("")
    with raises(str(tmp_path / path), error=ZooError):
        zoo.save(small("convlstm"), tmp_path / path)


# The Hugging Face Hub, without a network


def offline(home, code):
    """Run code with an unreachable Hub and the cache `home`; returns both streams' lines."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", f"import zoo\n{code}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout.splitlines(), result.stderr.splitlines()


PULL = """
for ref in {refs}:
    try: print(zoo.pull(f"hf-hub:{{ref}}"))
    except zoo.ZooError as error: print(error)
"""


def test_pull_from_an_unreachable_hub_names_the_model(tmp_path):
    refs = ["org/name", "org/name@v1", "no name", "a/b/c", "", "@main"]
    lines, errors = offline(tmp_path, PULL.format(refs=refs))
    assert not errors
    assert len(lines) == len(refs)
    assert "hf-hub:org/name " in lines[0]
    assert "HF_HUB_OFFLINE" in lines[0]
    assert "hf-hub:org/name@v1 " in lines[1]
    for ref, line in zip(refs[2:], lines[2:], strict=True):
        assert f"hf-hub:{ref} " in line
        assert "hf-hub:org/name" in line


def test_pull_offline_from_the_cache(tmp_path, folder):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--org--name"
    shutil.copytree(folder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    refs = ["org/name", "org/name@main", f"org/name@{commit}"]
    lines, errors = offline(tmp_path, PULL.format(refs=refs))
    assert lines == [str(cache / "snapshots" / commit)] * 3, errors


def test_load_keeps_double_precision(tmp_path):
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
