"""Plugins as installed distributions: sound ones, broken ones, and two that disagree."""

import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from click.testing import CliRunner

import zoo
from zoo.cli import zoo as command
from zoo.convert import convert
from zoo.data import open_dataset
from zoo.errors import ZooError
from zoo.plugins import HOOKS, find_cell, forget, load_plugins, names
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


COMMAND = """
import click, zoo

@click.command()
@click.argument("word")
def greet(word):
    '''Greet.'''
    if word == "nobody":
        raise zoo.ZooError("got nobody, expected somebody")
    click.echo(f"hello {word}")

@zoo.hookimpl
def zoo_commands():
    return {"greet": greet}
"""

DATASET = """
import torch, zoo

class Ramps(torch.utils.data.Dataset):
    def __init__(self, folder, *, split, frames, slope=1.0, **options):
        self.name, self.split, self.frames, self.slope = folder.name, split, frames, slope

    def __len__(self):
        return 4

    def __getitem__(self, index):
        ramp = torch.linspace(0, self.slope, self.frames)
        return ramp.reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()

@zoo.hookimpl
def zoo_datasets():
    return {"ramps": Ramps}
"""

PRETRAINED = """
import pathlib, zoo

@zoo.hookimpl
def zoo_pretrained():
    return {"ms-convlstm-mine": zoo.Pretrained("local-dir:FOLDER", "SHA256")}
"""

HOOK = "import zoo\n@zoo.hookimpl\ndef zoo_cells(): return "


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import pytest\npytest.skip('not here', allow_module_level=True)", "Skipped: not here"),
        ("class Odd(BaseException): pass\nraise Odd('[/x]')", "Odd: [/x]"),
        ("def zoo_cells(): return {}", "zoo_cells is not marked as a hook; put @zoo.hookimpl"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_celks(): return {}", "unknown hook 'zoo_celks'"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cells(more): return {}", "more"),
        (HOOK + "1 / 0", "ZeroDivisionError"),
        (TOPOLOGY.replace('{"hourglass"', '{"mirror"'), "a name of the zoo's own"),
        (TOPOLOGY.replace(": hourglass}", ": 3}"), "expected a function"),
        (DIALECT.replace('{"mine"', '{"openstl"'), "a name of the zoo's own"),
        (COMMAND.replace('"greet":', '"pull":'), "offers 'pull', which is a name of the zoo's own"),
        (COMMAND.replace(": greet}", ": 3}"), "'greet' = 3; expected a click.Command"),
        (DATASET.replace('"ramps":', '"mmnist":'), "offers 'mmnist', which is a name of the zoo's"),
        (DATASET.replace(": Ramps}", ": 3}"), "'ramps' = 3; expected a function"),
        (PRETRAINED, "'ms-convlstm-mine' with sha256 = 'SHA256'; expected 64 hexadecimal digits"),
        (PRETRAINED.replace("zoo.Pretrained", "str"), "TypeError"),
        (
            PRETRAINED.replace("ms-convlstm-mine", "mslstm-mmnist"),
            "offers 'mslstm-mmnist', which is a name of the zoo's own",
        ),
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
    ran = CliRunner().invoke(command, ["plugins"])
    assert ran.exit_code == 0, ran.output
    assert said.split()[0] in ran.stdout


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


def test_what_was_imported_before_has_no_part_in_what_a_name_means(install):
    install("zoo-mean", CELL, entry="mean")
    install("zoo-other", CELL, entry="other")
    install("zoo-one", CELL.replace('"mean"', '"median"'), entry="one")
    install("zoo-two", CELL.replace('"mean"', '"median"'), entry="two")
    for imported in (False, True):
        if imported:
            load_plugins()
        assert find_cell("mean")[1].distribution == "zoo-mean"
        with pytest.raises(ZooError, match=r"'median' is claimed by zoo-one .* and zoo-two"):
            find_cell("median")
    with pytest.raises(ZooError, match=r"'mean' is claimed by zoo-mean .* and zoo-other"):
        names("cells")


def test_a_plugin_that_is_interrupted_is_not_taken_for_broken(install, tmp_path):
    install("zoo-mean", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()
    (tmp_path / "zoo_mean.py").write_text(CELL + "# mended")
    assert "mean" in names("cells")


def test_a_plugin_without_hooks_is_told(install):
    install("zoo-empty", "import zoo", entry="empty")
    ran = CliRunner().invoke(command, ["plugins"])
    (row,) = (line for line in ran.stdout.splitlines() if "zoo-empty" in line)
    assert row.split()[-2:] == ["provides", "nothing"]
    assert ran.stdout.count("provides nothing") == 1


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


# Only what is needed is imported


MARK = "import os, pathlib\npathlib.Path(os.environ['MARKS'], __name__).touch()\n"


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """The modules of plugins that begin with MARK and were imported so far."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("MARKS", str(marks))
    return lambda: sorted(path.name for path in marks.iterdir())


def test_a_plugin_is_imported_for_its_own_name_alone(install, imported):
    install("zoo-mean", MARK + CELL, entry="mean")
    install("zoo-other", MARK + CELL.replace('"mean"', '"other"'), entry="other")
    zoo.create("ms-convlstm", hidden=2, layers=2)
    assert imported() == []
    zoo.create("ms-mean", hidden=2, layers=2)
    assert imported() == ["zoo_mean"]
    architectures()
    assert imported() == ["zoo_mean", "zoo_other"]


def test_a_name_that_no_entry_point_bears_is_looked_for_in_all(install, imported):
    install("zoo-mean", MARK + CELL, entry="it")
    zoo.create("mean", hidden=2, layers=2)
    assert imported() == ["zoo_mean"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["pull", "mslstm-mmnist"],
        ["pull", "local-dir:{folder}"],
        ["card", "{folder}"],
        ["publish", "{folder}", "me/it", "--dry-run"],
        ["publish", "{folder}", "it", "--hub", "{folder}-hub"],
    ],
    ids=" ".join,
)
def test_a_command_that_needs_no_plugin_and_no_torch(install, imported, tmp_path, arguments):
    """Run in a process of its own, with what it imported told at its end."""
    install("zoo-mean", MARK + CELL, entry="pull")
    model = zoo.pull("mslstm-mmnist")
    folder = shutil.copytree(model, tmp_path / "model")
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sorted({'torch', 'timm'} & set(sys.modules)), 'END'))\n"
        "from zoo.cli import main\n"
        f"sys.argv = {['zoo', *(one.format(folder=folder) for one in arguments)]}\n"
        "main()"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].strip() == "END"
    assert imported() == []


# What fails is told when it is asked for


def test_a_broken_plugin_is_told_of_when_its_name_is_asked_for(install):
    install("zoo-broken", "1 / 0", entry="mean")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.create("convlstm", hidden=2, layers=2)
    with (
        pytest.warns(UserWarning, match="zoo-broken 1.0 is left out: ZeroDivisionError"),
        pytest.raises(ZooError, match="no model is named 'mean'"),
    ):
        zoo.create("mean")


def test_strict_makes_a_broken_plugin_fatal(install, monkeypatch):
    install("zoo-broken", "1 / 0", entry="broken")
    monkeypatch.setenv("ZOO_STRICT", "1")
    with pytest.raises(ZooError, match=r"zoo-broken 1\.0 fails: ZeroDivisionError.*unset ZOO_STR"):
        architectures()
    zoo.create("convlstm", hidden=2, layers=2)  # nothing of the broken one was asked for
    monkeypatch.setenv("ZOO_STRICT", "0")
    with pytest.warns(UserWarning, match="zoo-broken"):
        architectures()


def test_weights_of_a_broken_plugin_tell_what_is_wrong(install, tmp_path):
    install("zoo-mean", CELL)
    folder = zoo.save(zoo.create("mean", hidden=2, layers=2), tmp_path / "model")
    (tmp_path / "zoo_mean.py").write_text("1 / 0")
    sys.modules.pop("zoo_mean")
    forget()
    said = r"'mean' comes from zoo-mean 1\.0, which fails here: ZeroDivisionError.*zoo-mean==1\.0"
    with pytest.warns(UserWarning, match="zoo-mean"), pytest.raises(ZooError, match=said):
        zoo.load(f"local-dir:{folder}")


def test_weights_of_an_absent_plugin_tell_what_to_install(install, tmp_path, monkeypatch):
    install("zoo-mean", CELL)
    install("zoo-hourglass", TOPOLOGY)
    model = zoo.create("hourglass-mean", hidden=2, layers=4)
    folder = zoo.save(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["plugin"] == {"distribution": "zoo-mean", "version": "1.0"}
    assert config["topology_plugin"] == {"distribution": "zoo-hourglass", "version": "1.0"}
    for absent, said in (("mean", "the cell 'mean'"), ("hourglass", "the topology 'hourglass'")):
        aside = tmp_path / f"zoo_{absent}-1.0.dist-info"
        aside.rename(tmp_path / "aside")
        forget()
        said = f"{said} comes from zoo-{absent} 1.0, which is not installed; install it: "
        with pytest.raises(ZooError, match=f"{said}pip install zoo-{absent}==1.0"):
            zoo.load(f"local-dir:{folder}")
        (tmp_path / "aside").rename(aside)
    monkeypatch.setenv("ZOO_PLUGINS", "spatiotemporal-zoo")
    forget()
    with pytest.raises(
        ZooError, match=r"or left out by ZOO_PLUGINS\); install it: pip install zoo-m"
    ):
        zoo.load(f"local-dir:{folder}")


def test_a_version_that_no_longer_has_the_cell(install, tmp_path):
    install("zoo-mean", CELL)
    folder = zoo.save(zoo.create("mean", hidden=2, layers=2), tmp_path / "model")
    module = tmp_path / "zoo_mean.py"
    module.write_text(CELL.replace('"mean"', '"median"'))
    sys.modules.pop("zoo_mean")
    importlib.invalidate_caches()
    os.utime(module, (0, 0))
    forget()
    with pytest.raises(ZooError, match=r"which is 1\.0 here and does not provide it; pip install"):
        zoo.load(f"local-dir:{folder}")


# A choice of plugins


@pytest.mark.parametrize("chosen", ["it", "zoo-mean", "Zoo_Mean", " convlstm , zoo.mean,"])
def test_a_choice_of_plugins(install, monkeypatch, chosen):
    install("zoo-mean", CELL)
    install("zoo-other", CELL.replace('"mean"', '"other"'), entry="other")
    monkeypatch.setenv("ZOO_PLUGINS", chosen)
    forget()
    cells = {"mean", "convlstm"} if "convlstm" in chosen else {"mean"}
    assert set(names("cells")) == cells
    assert zoo.list_models("*other", pretrained=False) == []


def test_a_choice_of_a_plugin_that_is_not_there(install, monkeypatch):
    install("zoo-mean", CELL)
    monkeypatch.setenv("ZOO_PLUGINS", "zoo-meen")
    forget()
    with pytest.raises(ZooError, match=r"'zoo-meen', which is no plugin .*did you mean zoo-mean"):
        zoo.create("mean")


# The other hooks


def test_a_plugin_for_other_hooks_is_left_out(install):
    install("zoo-mean", "ZOO_HOOKS = 99\n" + CELL)
    with pytest.warns(UserWarning, match="written for version 99 of the hooks, this zoo has 1"):
        assert "mean" not in architectures()
    install("zoo-other", f"ZOO_HOOKS = {HOOKS}\n" + CELL, entry="other")
    with pytest.warns(UserWarning, match="99"):
        assert "mean" in architectures()


def test_a_third_party_command(install):
    install("zoo-greet", COMMAND)
    ran = CliRunner().invoke(command, ["greet", "you"])
    assert (ran.exit_code, ran.output) == (0, "hello you\n")
    ran = CliRunner().invoke(command, ["greet", "nobody"])
    assert (ran.exit_code, ran.output) == (2, "Error: got nobody, expected somebody\n")
    ran = CliRunner().invoke(command, ["great", "you"])
    assert ran.exit_code == 2
    assert "No such command 'great'" in ran.output
    rows = {
        row["name"]: row
        for row in json.loads(CliRunner().invoke(command, ["plugins", "--json"]).output)
    }
    assert rows["it"]["commands"] == ["greet"]


def test_a_third_party_data_set(install, tmp_path):
    install("zoo-ramps", DATASET)
    dataset = open_dataset("ramps", "test", root=tmp_path, frames=5, slope=0.5)
    assert (dataset.name, dataset.split) == ("ramps", "test")
    assert dataset[0].shape == (5, 1, 8, 8)
    assert dataset[0].max() == 0.5
    with pytest.raises(ZooError, match=r"no data set is named 'ramp' \(did you mean ramps\?\)"):
        open_dataset("ramp", "test")


def test_third_party_weights_by_name(install, tmp_path):
    torch.manual_seed(0)
    model = zoo.create("ms-convlstm", hidden=2, layers=2)
    folder = zoo.save(model, tmp_path / "theirs")
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    install("zoo-mine", PRETRAINED.replace("FOLDER", str(folder)).replace("SHA256", sha256))
    assert zoo.pull("ms-convlstm-mine") == folder
    assert zoo.pull("ms-convlstm", "mine") == folder
    assert "ms-convlstm-mine" in zoo.list_models("ms-convlstm", pretrained=True)
    frames = torch.rand(1, 2, 1, 8, 8)
    assert torch.equal(zoo.load("ms-convlstm-mine")(frames, 2), model(frames, 2))
    zoo.save(zoo.create("ms-convlstm", hidden=2, layers=2), folder)  # other weights
    with pytest.raises(
        ZooError, match=r"is not ms-convlstm-mine: it has sha256 .* zoo-mine 1\.0 says"
    ):
        zoo.load("ms-convlstm-mine")


def test_collisions_of_every_kind_name_both(install):
    install("zoo-greet", COMMAND)
    install("zoo-greet-too", COMMAND, entry="too")
    ran = CliRunner().invoke(command, ["greet", "you"])
    assert ran.exit_code == 2
    assert (
        "'greet' is claimed by zoo-greet (zoo_greet) and zoo-greet-too (zoo_greet_too)"
        in ran.output
    )
    assert "commands of its own" in ran.output
