"""zoo check tells in words whether a cell keeps the contract; zoo new writes a project."""

import json
import os
import sys

import pytest
from click.testing import CliRunner
from test_plugins import CELL

from zoo.check import _Recorder, check_cell
from zoo.cli import zoo as command
from zoo.errors import ZooError
from zoo.testing import CellContract

LAWS = [name for name in dir(CellContract) if name.startswith("test_")]


def run(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_a_sound_cell_passes_whatever_the_surroundings(monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k saved")
    monkeypatch.setenv("PYTEST_PLUGINS", "nothing_of_this_name")
    ran = run("check", "convlstm", "--json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["passed"]
    assert {check["architecture"] for check in told["checks"]} == {"convlstm", "ms-convlstm"}
    assert len({check["law"] for check in told["checks"]}) == len(LAWS) >= 18
    assert os.environ["PYTEST_ADDOPTS"] == "-k saved"
    costs = {cost["name"]: cost for cost in told["cost"]}
    assert round(costs["convlstm"]["macs"] / 1e9, 2) == 34.43
    assert round(costs["ms-convlstm"]["macs"] / 1e9, 2) == 15.07


def test_a_cell_that_breaks_a_law_is_told_in_words(install_plugin):
    """It keeps a count of its own, so that steps are no longer the rollout."""
    counting = CELL.replace(
        "state = self.rate * state", "self.rate += 0.1; state = self.rate * state"
    )
    install_plugin("zoo-mean", counting)
    ran = run("check", "mean")
    assert ran.exit_code == 1, ran.output
    assert "FAILS   The state handed back is all there is" in ran.output
    assert "        mean: AssertionError" in ran.output
    assert "        ms-mean: AssertionError" in ran.output
    assert "passes  The first state is a pytree of zeros" in ran.output
    assert "mean breaks " in ran.output.splitlines()[-1]
    assert "Traceback" not in ran.output


def test_a_part_of_the_checks_is_no_verdict(monkeypatch):
    """A plugin of pytest that leaves some out, as those that choose by what has changed do."""

    def choose(self, items):
        del items[2:]

    monkeypatch.setattr(_Recorder, "pytest_collection_modifyitems", choose, raising=False)
    with pytest.raises(ZooError, match=r"of the checks of 'convlstm' were not run, such as test_"):
        check_cell("convlstm")


def test_a_check_that_is_skipped_is_not_kept(install_plugin):
    skipping = CELL.replace("state = self.rate", "__import__('pytest').skip(); state = self.rate")
    install_plugin("zoo-mean", skipping)
    ran = run("check", "mean")
    assert ran.exit_code == 1, ran.output
    assert "FAILS   Any number of frames" in ran.output


def test_a_cell_that_is_not_installed():
    ran = run("check", "convlst")
    assert ran.exit_code == 2
    assert "no installed plugin provides the cell 'convlst' (did you mean convlstm" in ran.output


def test_without_pytest(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    monkeypatch.delitem(sys.modules, "zoo.check", raising=False)
    ran = run("check", "convlstm")
    assert ran.exit_code == 2
    assert "pip install pytest" in ran.output


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_project(here):
    ran = run("new", "zoo-rain-cell")
    assert ran.exit_code == 0, ran.output
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
    assert run("new", "my-cell", "-o", "elsewhere").exit_code == 0
    assert (here / "elsewhere" / "zoo_my_cell.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Zoo-Mine"], "'Zoo-Mine'"),
        (["../mine"], "'../mine'"),
        (["zoo"], "'zoo'"),
        (["zoo-"], "'zoo-'"),
        (["3d"], "'3d'"),
        (["zoo-3d"], "'zoo-3d'"),
        (["zoo-none"], "None"),
        (["spatiotemporal-zoo"], "spatiotemporal-zoo"),
        (["zoo-" + "a" * 300], "a" * 300),
        (["zoo-convlstm"], "'convlstm'"),
        (["zoo-mslstm"], "'mslstm'"),
        (["zoo-ms"], "'ms'"),
        (["zoo-mine", "-o", "there"], "there"),
        (["zoo-mine", "-o", "no/where"], "no"),
    ],
)
def test_a_project_that_cannot_be_made(here, arguments, said):
    (here / "there").mkdir()
    ran = run("new", *arguments)
    assert ran.exit_code == 2
    assert said in ran.output
    assert ran.output.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["there"]
