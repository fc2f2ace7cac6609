"""Plugins as installed distributions: sound ones, broken ones, and two that disagree."""

import re
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

import zoo
from zoo.convert import convert
from zoo.errors import ZooError
from zoo.plugins import forget, load_plugins
from zoo.registry import architectures
from zoo.testing import CellContract

CELL = """
import torch
import zoo

class Mean(zoo.RecurrentCell):
    def __init__(self, in_channels, channels, rate=0.5):
        super().__init__(in_channels, channels)
        self.mix = torch.nn.Conv2d(in_channels, channels, 1)
        self.rate = rate

    def init_state(self, x):
        return self.zeros(x)

    def forward(self, x, state):
        state = self.rate * state + self.mix(x)
        return zoo.Step(state, state)

@zoo.hookimpl
def zoo_cells():
    return {"mean": Mean}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one plugin module, for the time of a test."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def install(distribution, code, entry="it"):
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[zoo]\n{entry} = {module}\n")
        modules.append(module)
        forget()

    yield install
    for module in modules:
        sys.modules.pop(module, None)
    forget()


@pytest.fixture
def installed(install):
    """The cell above, installed."""
    install("zoo-mean", CELL)


@pytest.mark.usefixtures("installed")
class TestThirdParty(CellContract):
    cell = "mean"


@pytest.mark.usefixtures("installed")
def test_a_third_party_gets_both_architectures():
    assert zoo.list_models("*mean", pretrained=False) == ["mean", "ms-mean"]
    model = zoo.create("ms-mean", rate=0.25)
    assert model.network.topology.scales == (1, 2, 4, 4, 2, 1)
    assert model.config.options == {"rate": 0.25}
    assert model.config.plugin.model_dump() == {"distribution": "zoo-mean", "version": "1.0"}


TOPOLOGY = """
import zoo

def hourglass(layers):
    scales = (1,) + (2,) * (layers - 2) + (1,)
    return zoo.Topology(scales, ((), *((j,) for j in range(layers - 1))))

@zoo.hookimpl
def zoo_topologies():
    return {"hourglass": hourglass}
"""


def test_a_third_party_topology_serves_every_cell(install):
    install("zoo-hourglass", TOPOLOGY)
    model = zoo.create("hourglass-predrnn", hidden=4, layers=4)
    assert model.network.topology.scales == (1, 2, 2, 1)
    assert model.config.architecture == "hourglass-predrnn"
    with pytest.raises(ZooError, match="no halvings"):
        zoo.create("hourglass-predrnn", layers=4, halvings=1)
    with pytest.raises(ZooError, match=r"'hourglas-predrnn' \(did you mean hourglass-predrnn"):
        zoo.create("hourglas-predrnn")


DIALECT = """
import zoo
from zoo.convert.dialect import Converted

def mine(tensors, arch, topology, options):
    config = zoo.Config(cell=arch, hidden=2, layers=2)
    return Converted(config, dict(tensors), {})

@zoo.hookimpl
def zoo_dialects():
    return {"mine": mine}
"""


def test_a_third_party_dialect_converts(install, tmp_path):
    install("zoo-mine", DIALECT)
    model = zoo.create("convlstm", hidden=2, layers=2)
    torch.save(model.network.state_dict(), tmp_path / "theirs.pth")
    convert("mine", tmp_path / "theirs.pth", tmp_path / "ours", arch="convlstm")
    frames = torch.rand(1, 3, 1, 8, 8)
    assert torch.equal(zoo.load(f"local-dir:{tmp_path / 'ours'}")(frames, 2), model(frames, 2))
    with pytest.raises(ZooError, match=r"no dialect 'mina' \(did you mean mine"):
        convert("mina", tmp_path / "theirs.pth", tmp_path / "other", arch="convlstm")


def test_two_topologies_of_one_name(install):
    install("zoo-hourglass", TOPOLOGY)
    install("zoo-other", TOPOLOGY, entry="other")
    with pytest.raises(ZooError, match=r"zoo-hourglass .* and zoo-other .* pip uninstall"):
        zoo.create("hourglass-predrnn")


def test_a_cell_may_not_take_the_name_of_an_alias(install):
    install("zoo-clash", CELL.replace('"mean"', '"mslstm"'))
    with pytest.raises(ZooError, match=r"zoo-clash 1\.0 names a cell 'mslstm'"):
        architectures()


HOOK = "import zoo\n@zoo.hookimpl\ndef zoo_cells(): return "


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_celks(): return {}", "unknown hook 'zoo_celks'"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cells(more): return {}", "more"),
        (HOOK + "1 / 0", "ZeroDivisionError"),
        (TOPOLOGY.replace('{"hourglass"', '{"mirror"'), "a name of the zoo's own"),
        (TOPOLOGY.replace(": hourglass}", ": 3}"), "expected a function"),
        (DIALECT.replace('{"mine"', '{"openstl"'), "a name of the zoo's own"),
        (HOOK + "['mean']", "zoo_cells() returned a list"),
        (HOOK + "{'mean': 3}", "zoo_cells() offers 'mean' = 3; expected a RecurrentCell"),
        (HOOK + "{'mean': zoo.ZooError}", "expected a RecurrentCell"),
        (HOOK + "{'ms-mean': zoo.RecurrentCell}", "offers 'ms-mean'; names are of a-z"),
        (HOOK + "{'Mean': zoo.RecurrentCell}", "offers 'Mean'; names are of a-z"),
        (HOOK + "{3: zoo.RecurrentCell}", "offers 3; names are of a-z"),
        (CELL.replace("x, state", "x, memory"), "Mean.forward takes (x, memory)"),
        (CELL.replace("(self, x, state)", "(self, x, state, past)"), "past"),
    ],
)
def test_a_broken_plugin_is_told_once_and_left_out(install, code, said):
    install("zoo-broken", code)
    with pytest.warns(UserWarning, match=re.escape(said)) as told:
        architectures()
    assert len(told) == 1
    assert "plugin 'it' of distribution zoo-broken 1.0 is left out" in str(told[0].message)
    assert "\n" not in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {"convlstm", "mklstm", "predrnn"} <= set(architectures())
        zoo.create("ms-convlstm", hidden=2)
    broken = [plugin for plugin in load_plugins() if plugin.error]
    assert [plugin.distribution for plugin in broken] == ["zoo-broken"]
    assert not broken[0].provides


def test_a_broken_plugin_does_not_harm_another(install):
    install("zoo-broken", "import zoo\n@zoo.hookimpl\ndef zoo_celks(): return {}", entry="a")
    install("zoo-mean", CELL, entry="b")
    with pytest.warns(UserWarning, match="zoo-broken"):
        assert "mean" in architectures()


def test_two_plugins_that_claim_one_name(install):
    install("zoo-mean", CELL)
    install("zoo-other", CELL)
    said = r"'mean' is claimed by zoo-mean \(zoo_mean\) and zoo-other \(zoo_other\), .* uninstall"
    for ask in (architectures, lambda: zoo.create("mean"), lambda: zoo.create("ms-mean")):
        with pytest.raises(ZooError, match=said):
            ask()
    assert zoo.create("convlstm", hidden=2).config.cell == "convlstm"


def test_two_distributions_may_use_one_entry_point_name(install):
    install("zoo-mean", CELL, entry="convlstm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {"mean", "convlstm"} <= set(architectures())


@pytest.mark.parametrize(
    ("parameters", "said"),
    [("rate", "'rate'|rate"), ("rate=object()", "options"), ("rate=float('nan')", "options")],
)
def test_an_option_that_no_config_can_hold(install, parameters, said):
    install("zoo-mean", CELL.replace("rate=0.5", parameters))
    with pytest.raises(ZooError, match=said):
        zoo.create("mean", hidden=2)


def test_names_need_no_torch():
    """`import zoo` and the names of models are quick."""
    code = "import sys, zoo, zoo.config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
