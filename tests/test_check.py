"""zoo check reports which laws of the contract a cell or head breaks; zoo new writes a project."""

import json
import os
import sys
import zipfile
from pathlib import Path

import hatchling.build
import pytest
from conftest import CELL

from zoo.check import _Recorder, check_contract
from zoo.errors import PluginError
from zoo.testing import CellContract, HeadContract

HEAD = """
import torch
from torch import nn
import zoo

class Paint(zoo.Head):
    starts_from_frame = False

    def __init__(self, in_channels, channels, patch=1, slope: float = 1.0):
        super().__init__(in_channels, channels, patch)
        self.conv = nn.Conv2d(in_channels, channels * patch**2, 1)
        self.slope = slope

    def forward(self, features, frame):
        return self.slope * self.to_pixels(self.conv(features))

@zoo.hookimpl
def zoo_heads():
    return {"paint": Paint}
"""


def laws(contract):
    return [name for name in dir(contract) if name.startswith("test_")]


@pytest.fixture
def few_laws(monkeypatch):
    """Leave the laws that take long out of the suites: a report reads the same without them."""
    for name in ("any_size", "compiles", "exports", "gradients_are_right"):
        monkeypatch.delattr(f"zoo.testing._Contract.test_{name}")


@pytest.mark.slow
def test_sound_cell_passes_regardless_of_the_environment(cli, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k saved")
    monkeypatch.setenv("PYTEST_PLUGINS", "nothing_of_this_name")
    report = json.loads(cli.succeed("check", "convlstm", "--json"))
    assert report["cell"] == "convlstm"
    assert report["passed"]
    assert {check["architecture"] for check in report["checks"]} == {"convlstm", "ms-convlstm"}
    assert len({check["law"] for check in report["checks"]}) == len(laws(CellContract)) >= 18
    assert os.environ["PYTEST_ADDOPTS"] == "-k saved"
    costs = {cost["name"]: cost for cost in report["cost"]}
    assert round(costs["convlstm"]["macs"] / 1e9, 2) == 34.43
    assert round(costs["ms-convlstm"]["macs"] / 1e9, 2) == 15.07


@pytest.mark.slow
def test_sound_head_passes_every_law(cli, install_plugin):
    install_plugin("zoo-paint", HEAD, entry="paint")
    report = json.loads(cli.succeed("check", "paint", "--json"))
    assert report["head"] == "paint"
    assert report["passed"]
    assert {check["architecture"] for check in report["checks"]} == {
        "paint, patch 1",
        "paint, patch 2",
    }
    assert len({check["law"] for check in report["checks"]}) == len(laws(HeadContract)) >= 14
    assert report["cost"] == []


@pytest.mark.slow
@pytest.mark.usefixtures("few_laws")
def test_broken_head_fails_and_the_law_is_named(cli, install_plugin):
    """The head claims to start from the frame, but redraws it."""
    install_plugin("zoo-paint", HEAD.replace("frame = False", "frame = True"), entry="paint")
    result = cli("check", "paint")
    assert result.exit_code == 1, result.output
    lines = result.output.splitlines()
    (failure,) = [i for i, line in enumerate(lines) if line.startswith("FAILS")]
    assert lines[failure] == f"FAILS   {law(HeadContract.test_a_static_scene_stays_static)}"
    assert lines[failure + 1].startswith("        paint, patch 1: AssertionError")
    assert lines[failure + 2].startswith("        paint, patch 2: AssertionError")
    assert lines[-1].startswith("paint breaks 1 ")


def law(test):
    return test.__doc__.splitlines()[0]


@pytest.mark.slow
@pytest.mark.usefixtures("few_laws")
def test_broken_cell_fails_and_the_law_is_named(cli, install_plugin):
    """The cell keeps a count of its own, so that steps do not equal the rollout."""
    counting = CELL.replace(
        "state = self.rate * state", "self.rate += 0.1; state = self.rate * state"
    )
    install_plugin("zoo-mean", counting)
    result = cli("check", "mean")
    assert result.exit_code == 1, result.output
    assert f"FAILS   {law(CellContract.test_steps_equal_the_rollout)}" in result.output
    assert "        mean: AssertionError" in result.output
    assert "        ms-mean: AssertionError" in result.output
    assert f"passes  {law(CellContract.test_state_starts_at_zero)}" in result.output
    assert "mean breaks " in result.output.splitlines()[-1]
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_deselected_checks_are_an_error(monkeypatch):
    """Some pytest plugins run only the tests that a change affects."""

    def choose(self, items):
        del items[2:]

    monkeypatch.setattr(_Recorder, "pytest_collection_modifyitems", choose, raising=False)
    with pytest.raises(PluginError, match=r"'convlstm'.* test_"):
        check_contract("convlstm")


@pytest.mark.slow
@pytest.mark.usefixtures("few_laws")
def test_skipped_check_counts_as_failed(install_plugin):
    skipping = CELL.replace("state = self.rate", "__import__('pytest').skip(); state = self.rate")
    install_plugin("zoo-mean", skipping)
    failed = {verdict.law for verdict in check_contract("mean") if verdict.reason}
    assert law(CellContract.test_any_number_of_frames) in failed


@pytest.mark.parametrize(("name", "near"), [("convlst", "convlstm"), ("advec", "advect")])
def test_unknown_name_suggests_the_nearest(cli, name, near):
    message = cli.fail("check", name)
    assert repr(name) in message
    assert near in message


def test_missing_pytest_is_an_error(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    monkeypatch.delitem(sys.modules, "zoo.check", raising=False)
    assert "pip install pytest" in cli.fail("check", "convlstm")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new_project_has_all_files_under_the_new_name(cli, here):
    cli.succeed("new", "zoo-rain-cell")
    files = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert files == {
        "zoo-rain-cell/.github/workflows/tests.yml",
        "zoo-rain-cell/.gitignore",
        "zoo-rain-cell/README.md",
        "zoo-rain-cell/cards/ms-rain_cell-mmnist/README.md",
        "zoo-rain-cell/cards/ms-rain_cell-mmnist/recipe.toml",
        "zoo-rain-cell/pyproject.toml",
        "zoo-rain-cell/tests/test_rain_cell.py",
        "zoo-rain-cell/zoo_rain_cell.py",
    }
    text = "".join((here / file).read_text() for file in files)
    assert "mycell" not in text.lower()
    assert "class RainCell(zoo.RecurrentCell)" in text


def test_new_project_is_installed_editable_without_further_packages(cli, here, monkeypatch):
    """As by pip install -e --no-build-isolation with hatchling alone."""
    cli.succeed("new", "zoo-rain-cell")
    monkeypatch.chdir("zoo-rain-cell")
    monkeypatch.setitem(sys.modules, "editables", None)
    wheel = here / hatchling.build.build_editable(str(here))
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".pth"))
        assert Path(archive.read(path).decode().strip()) == here / "zoo-rain-cell"


def test_new_project_in_another_folder(cli, here):
    cli.succeed("new", "my-cell", "-o", "elsewhere")
    assert (here / "elsewhere" / "zoo_my_cell.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["Zoo-Mine"], "'Zoo-Mine'"),
        (["../mine"], "'../mine'"),
        (["zoo"], "'zoo'"),
        (["zoo-"], "'zoo-'"),
        (["3d"], "'3d'"),
        (["zoo-3d"], "'zoo-3d' makes 3d "),
        (["zoo-none"], "'zoo-none' makes None "),
        (["spatiotemporal-zoo"], "spatiotemporal-zoo"),
        (["zoo-" + "a" * 300], "a" * 300),
        (["zoo-convlstm"], "'convlstm' is taken"),
        (["zoo-mslstm"], "'mslstm' is taken"),
        (["zoo-ms"], "'ms' is taken"),
        (["zoo-mine", "-o", "there"], "there"),
        (["zoo-mine", "-o", "no/where"], "no/where"),
    ],
)
def test_unusable_name_or_folder_is_an_error_and_writes_nothing(cli, here, arguments, named):
    (here / "there").mkdir()
    assert named in cli.fail("new", *arguments)
    assert [path.name for path in here.iterdir()] == ["there"]
