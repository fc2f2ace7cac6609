"""The base installation works without the extras, and a missing extra names what to install."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ConfigError
from zoo.extras import EXTRAS, suggest_extra

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
#: A command line in which the optional modules cannot be imported.
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(EXTRAS)!r}))
from zoo.cli import main
main()
"""


def run(folder, *arguments):
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ZOO_")}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_every_optional_module_is_in_its_extra():
    extras = PYPROJECT["project"]["optional-dependencies"]
    for module, extra in EXTRAS.items():
        assert module in {re.split(r"\W", requirement)[0] for requirement in extras[extra]}


def test_no_optional_module_is_in_the_base_installation():
    base = {re.split(r"[^\w-]", line)[0] for line in PYPROJECT["project"]["dependencies"]}
    assert not base & {*EXTRAS}


@pytest.mark.parametrize(("module", "extra"), [("timm", "train"), ("h5py", "data")])
def test_missing_module_names_the_extra(module, extra):
    with pytest.raises(ConfigError) as raised, suggest_extra():
        raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")
    assert module in str(raised.value)
    assert f"pip install 'spatiotemporal-zoo[{extra}]'" in str(raised.value)


def test_other_missing_modules_are_left_alone():
    with pytest.raises(ModuleNotFoundError), suggest_extra():
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")


@pytest.mark.slow
def test_demo_and_predict_need_no_extra(tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((4, 1, 16, 16), np.uint8))
    assert run(tmp_path, "demo").returncode == 0
    out = ["--horizon", 2, "-o", "future.gif"]
    assert run(tmp_path, "predict", "convlstm-mmnist", "clip.npy", *out).returncode == 0
    assert run(tmp_path, "list").returncode == 0


@pytest.mark.slow
def test_eval_needs_no_extra(tmp_path, noise_root):
    arguments = ["--sequences", 2, "--horizon", 2, "--data-dir", noise_root]
    ran = run(tmp_path, "eval", "convlstm-mmnist", *arguments)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_train_without_its_extra_exits_with_one_line(tmp_path):
    recipe = ROOT / "cards" / "convlstm-mmnist" / "recipe.toml"
    for arguments in (["train", recipe], ["train", recipe, "--show"]):
        ran = run(tmp_path, *arguments)
        assert ran.returncode == 2
        assert ran.stderr.count("\n") == 1
        assert "pip install 'spatiotemporal-zoo[train]'" in ran.stderr
