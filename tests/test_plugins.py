"""Plugins as installed distributions: working ones, broken ones, and two that disagree."""

import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import CELL

import zoo
from zoo.cli import find_command
from zoo.convert import convert
from zoo.data import find_dataset, open_dataset
from zoo.errors import PluginError, ZooError
from zoo.hub import builtin_folder, find_pretrained
from zoo.metrics import FrameMetrics
from zoo.plugins import HOOKS, KINDS, builtin, find, forget, load_plugins, names
from zoo.registry import architectures, find_cell, find_head, find_topology
from zoo.scores import create_metric
from zoo.testing import CellContract
from zoo.train.objective import Objective
from zoo.train.recipe import LossRecipe

TOPOLOGY = """
import zoo

def hourglass(layers):
    scales = (1,) + (2,) * (layers - 2) + (1,)
    return zoo.Topology(scales, ((), *((j,) for j in range(layers - 1))))

@zoo.hookimpl
def zoo_topologies():
    return {"hourglass": hourglass}
"""

HEAD = """
import zoo

class Still(zoo.Head):
    def forward(self, features, frame):
        return frame

@zoo.hookimpl
def zoo_heads():
    return {"still": Still}
"""

LOSS = """
import zoo

class Quartic(zoo.Loss):
    power: int = 4

    def __call__(self, forecast, truth, known, *, data, progress):
        error = (forecast - truth).where(known, 0)
        return error.pow(self.power).sum(dim=(2, 3, 4)).mean(dim=1)

@zoo.hookimpl
def zoo_losses():
    return {"quartic": Quartic}
"""

METRIC = """
import torch, zoo

class Share(zoo.Metric):
    definition = "share of the pixels with an error of at most 0.1"
    higher_is_better = True
    best = 1.0

    def __call__(self, forecast, truth, known, *, data):
        hits = ((forecast - truth).abs() <= 0.1) & known
        pixels = known.sum(dim=(1, 2, 3)).double()
        return hits.sum(dim=(1, 2, 3)) / pixels.masked_fill(pixels == 0, torch.nan)

@zoo.hookimpl
def zoo_metrics():
    return {"share": Share}
"""

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

MARK = "import os, pathlib\npathlib.Path(os.environ['MARKS'], __name__).touch()\n"


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Return a function that lists the imported modules whose source begins with MARK."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("MARKS", str(marks))
    return lambda: sorted(path.name for path in marks.iterdir())


def plugin_rows(cli):
    """What `zoo plugins` shows, by distribution and entry point."""
    rows = json.loads(cli.succeed("plugins", "--json"))
    return {(row["distribution"], row["name"]): row for row in rows}


# Each kind, from a third party


@pytest.fixture
def mean(install_plugin):
    """The cell above, installed; returns the path of its module."""
    return install_plugin("zoo-mean", CELL)


@pytest.mark.usefixtures("mean")
class TestThirdParty(CellContract):
    cell = "mean"


@pytest.mark.usefixtures("mean")
def test_third_party_cell_gets_both_architectures():
    assert zoo.list_models("*mean", pretrained=False) == ["mean", "ms-mean"]
    model = zoo.create("ms-mean", rate=0.25)
    assert model.network.topology.scales == (1, 2, 4, 4, 2, 1)
    assert model.config.options == {"rate": 0.25}
    assert model.config.plugin.model_dump() == {"distribution": "zoo-mean", "version": "1.0"}


def test_third_party_topology_works_with_every_cell(install_plugin):
    install_plugin("zoo-hourglass", TOPOLOGY)
    model = zoo.create("hourglass-predrnn", hidden=4, layers=4)
    assert model.network.topology.scales == (1, 2, 2, 1)
    assert model.config.architecture == "hourglass-predrnn"
    with pytest.raises(ZooError, match="halvings"):
        zoo.create("hourglass-predrnn", layers=4, halvings=1)
    with pytest.raises(ZooError, match=r"'hourglas-predrnn'.*hourglass-predrnn"):
        zoo.create("hourglas-predrnn")


def test_third_party_head(install_plugin):
    install_plugin("zoo-still", HEAD)
    model = zoo.create("convlstm", hidden=2, layers=2, head="still")
    frames = torch.rand(1, 3, 1, 8, 8)
    assert torch.equal(model(frames, horizon=1)[:, -1], frames[:, -1])
    assert model.config.head_plugin.distribution == "zoo-still"


def test_third_party_loss_keeps_the_contract_and_trains(install_plugin, cli):
    install_plugin("zoo-quartic", LOSS)
    report = json.loads(cli.succeed("check", "quartic", "--json"))
    assert (report["loss"], report["passed"]) == ("quartic", True)
    recipe = LossRecipe(terms={"quartic": {"weight": 0.5, "power": 2}})
    model = zoo.create("convlstm", hidden=2, layers=2)
    sequences, fed = torch.rand(2, 3, 1, 8, 8), torch.ones(2, 2, dtype=torch.bool)
    squared = Objective(model, LossRecipe(l1=0))(sequences, fed)
    torch.testing.assert_close(Objective(model, recipe)(sequences, fed), 0.5 * squared)
    with pytest.raises(ZooError, match="power"):
        Objective(model, LossRecipe(terms={"quartic": {"power": "two"}}))
    assert plugin_rows(cli)["zoo-quartic", "it"]["losses"] == ["quartic"]


def test_broken_loss_fails_and_the_law_is_named(install_plugin, cli):
    install_plugin("zoo-quartic", LOSS.replace(".where(known, 0)", ""))
    result = cli("check", "quartic")
    assert result.exit_code == 1, result.output
    assert "FAILS   The forecast of a missing pixel changes neither" in result.output
    assert "passes  Gradients in float64" in result.output


def test_third_party_metric_keeps_the_contract(install_plugin, cli):
    install_plugin("zoo-share", METRIC)
    report = json.loads(cli.succeed("check", "share", "--json"))
    assert (report["metric"], report["passed"]) == ("share", True)
    metrics = FrameMetrics(metrics={"share": create_metric("share")})
    metrics.update(torch.zeros(1, 2, 1, 8, 8), torch.full((1, 2, 1, 8, 8), 0.05))
    assert metrics.compute()["share"] == 1
    assert plugin_rows(cli)["zoo-share", "it"]["metrics"] == ["share"]


@pytest.mark.parametrize(("source", "kind"), [(LOSS, "losses"), (METRIC, "metrics")])
def test_offer_of_another_class_is_reported(install_plugin, cli, source, kind):
    install_plugin("zoo-odd", source.replace("(zoo.Loss)", "").replace("(zoo.Metric)", ""))
    assert f"{kind} " in plugin_rows(cli)["zoo-odd", "it"]["error"]


def test_third_party_dialect_converts(install_plugin, tmp_path):
    install_plugin("zoo-mine", DIALECT)
    model = zoo.create("convlstm", hidden=2, layers=2)
    torch.save(model.network.state_dict(), tmp_path / "theirs.pth")
    convert("mine", tmp_path / "theirs.pth", tmp_path / "ours", arch="convlstm")
    frames = torch.rand(1, 3, 1, 8, 8)
    assert torch.equal(zoo.load(f"local-dir:{tmp_path / 'ours'}")(frames, 2), model(frames, 2))
    with pytest.raises(ZooError, match=r"'mina'.*mine"):
        convert("mina", tmp_path / "theirs.pth", tmp_path / "other", arch="convlstm")


def test_third_party_command(install_plugin, cli):
    install_plugin("zoo-greet", COMMAND)
    assert cli.succeed("greet", "you") == "hello you\n"
    assert cli.fail("greet", "nobody") == "got nobody, expected somebody"
    unknown = cli("great", "you")
    assert unknown.exit_code == 2
    assert "'great'" in unknown.output
    assert plugin_rows(cli)["zoo-greet", "it"]["commands"] == ["greet"]


def test_third_party_dataset(install_plugin, tmp_path):
    install_plugin("zoo-ramps", DATASET)
    dataset = open_dataset("ramps", "test", root=tmp_path, frames=5, slope=0.5)
    assert (dataset.name, dataset.split) == ("ramps", "test")
    assert dataset[0].shape == (5, 1, 8, 8)
    assert dataset[0].max() == 0.5
    with pytest.raises(ZooError, match=r"'ramp'.*ramps"):
        open_dataset("ramp", "test")


def test_third_party_weights_by_name(install_plugin, tmp_path):
    torch.manual_seed(0)
    model = zoo.create("ms-convlstm", hidden=2, layers=2)
    folder = zoo.save(model, tmp_path / "theirs")
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    install_plugin("zoo-mine", PRETRAINED.replace("FOLDER", str(folder)).replace("SHA256", sha256))
    assert zoo.pull("ms-convlstm-mine") == folder
    assert zoo.pull("ms-convlstm", "mine") == folder
    assert "ms-convlstm-mine" in zoo.list_models("ms-convlstm", pretrained=True)
    frames = torch.rand(1, 2, 1, 8, 8)
    assert torch.equal(zoo.load("ms-convlstm-mine")(frames, 2), model(frames, 2))
    zoo.save(zoo.create("ms-convlstm", hidden=2, layers=2), folder)  # other weights
    with pytest.raises(ZooError, match=rf"ms-convlstm-mine.*zoo-mine 1\.0.*{sha256[:12]}"):
        zoo.load("ms-convlstm-mine")


def test_offer_named_by_a_string_is_imported_on_demand(install_plugin, imported):
    greet = no_hooks(COMMAND)
    install_plugin("zoo-greet-impl", MARK + greet, entry="implementation")
    lazy = 'import zoo\n@zoo.hookimpl\ndef zoo_commands(): return {"greet": "TARGET"}'
    install_plugin("zoo-greet", lazy.replace("TARGET", "zoo_greet_impl:greet"), entry="greet")
    assert "greet" in builtin_and("commands")
    assert find_command("greet")[0].name == "greet"
    assert imported() == ["zoo_greet_impl"]


def builtin_and(kind):
    """All names of a kind, without importing what they name."""
    (plugin,) = (p for p in load_plugins() if p.name == "greet")
    return {*builtin().offers(kind), *plugin.offers(kind)}


@pytest.mark.parametrize("target", ["no_such_module:greet", "zoo:no_such_attribute"])
def test_string_that_names_nothing_is_an_error(install_plugin, target):
    source = f'import zoo\n@zoo.hookimpl\ndef zoo_commands(): return {{"greet": "{target}"}}'
    install_plugin("zoo-greet", source)
    with pytest.raises(PluginError, match=r"zoo-greet 1\.0.*'greet'"):
        find_command("greet")


# Entry points that name one object


def no_hooks(source):
    """The source of a plugin without its hook."""
    return source.split("@zoo.hookimpl")[0]


@pytest.mark.parametrize(
    ("kind", "source", "name", "attribute"),
    [
        ("cells", CELL, "mean", "Mean"),
        ("topologies", TOPOLOGY, "hourglass", "hourglass"),
        ("heads", HEAD, "still", "Still"),
        ("dialects", DIALECT, "mine", "mine"),
        ("commands", COMMAND, "greet", "greet"),
        ("datasets", DATASET, "ramps", "Ramps"),
        ("pretrained", "import zoo\nmine = zoo.Pretrained('local-dir:x', '')", "x-mine", "mine"),
    ],
)
def test_entry_point_names_an_object(install_plugin, imported, kind, source, name, attribute):
    """It is listed without an import, and imported when it is used."""
    source = MARK + no_hooks(source)
    install_plugin("zoo-one", source, entry=name, group=f"zoo.{kind}", attribute=attribute)
    assert name in names(kind)
    assert imported() == []
    value, plugin = find(kind, name, lambda value: True)
    assert value is getattr(sys.modules["zoo_one"], attribute)
    assert plugin.distribution == "zoo-one"
    assert imported() == ["zoo_one"]


def test_cell_of_an_entry_point_gets_both_architectures(install_plugin):
    install_plugin("zoo-mean", no_hooks(CELL), entry="mean", group="zoo.cells", attribute="Mean")
    assert zoo.list_models("*mean", pretrained=False) == ["mean", "ms-mean"]
    model = zoo.create("ms-mean", hidden=2, rate=0.25)
    assert model.config.plugin.model_dump() == {"distribution": "zoo-mean", "version": "1.0"}


@pytest.mark.parametrize("attribute", ["Median", ""])
def test_entry_point_that_names_no_cell_is_an_error(install_plugin, cli, attribute):
    install_plugin("zoo-mean", CELL, entry="mean", group="zoo.cells", attribute=attribute)
    with pytest.raises(PluginError, match=r"zoo-mean 1\.0.*'mean'"):
        zoo.create("mean")
    zoo.create("convlstm", hidden=2, layers=2)
    assert "'mean'" in plugin_rows(cli)["zoo-mean", "mean"]["error"]


def test_entry_point_in_an_unknown_group_is_left_out(install_plugin):
    install_plugin("zoo-mean", CELL, entry="mean", group="zoo.cell", attribute="Mean")
    with pytest.warns(UserWarning, match=r"zoo-mean 1\.0.*'zoo\.cell'.*mean cells\?"):
        assert "mean" not in architectures()


def test_entry_point_with_an_invalid_name_is_left_out(install_plugin):
    install_plugin("zoo-mean", CELL, entry="ms-mean", group="zoo.cells", attribute="Mean")
    with pytest.warns(UserWarning, match=r"zoo-mean 1\.0.*'ms-mean'"):
        assert "ms-mean" not in architectures()


# Broken plugins


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import pytest\npytest.skip('not here', allow_module_level=True)", "Skipped: not here"),
        ("class Odd(BaseException): pass\nraise Odd('[/x]')", "Odd: [/x]"),
        ("def zoo_cells(): return {}", "zoo_cells"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_celks(): return {}", "zoo_celks"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cells(more): return {}", "more"),
        (HOOK + "1 / 0", "ZeroDivisionError"),
        (HOOK + "['mean']", "zoo_cells() returned a list"),
        (HOOK + "None", "zoo_cells() returned a NoneType"),
        (HOOK + "{'ms-mean': zoo.RecurrentCell}", "'ms-mean'"),
        (HOOK + "{'Mean': zoo.RecurrentCell}", "'Mean'"),
        (HOOK + "{3: zoo.RecurrentCell}", "3"),
        (PRETRAINED.replace("zoo.Pretrained", "str"), "TypeError"),
        (CELL.replace("x, state", "x, memory"), "memory"),
        (CELL.replace("(self, x, state)", "(self, x, state, past)"), "past"),
    ],
)
def test_broken_plugin_is_reported_once_and_left_out(install_plugin, cli, source, expected):
    install_plugin("zoo-broken", source)
    with pytest.warns(UserWarning, match=re.escape(expected)) as caught:
        architectures()
    assert len(caught) == 1
    assert "plugin 'it' of distribution zoo-broken 1.0" in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {"convlstm", "mklstm", "predrnn"} <= set(architectures())
        zoo.create("ms-convlstm", hidden=2)
    (broken,) = (plugin for plugin in load_plugins() if plugin.error)
    assert broken.distribution == "zoo-broken"
    assert not broken.provides
    assert expected in plugin_rows(cli)["zoo-broken", "it"]["error"]


@pytest.mark.parametrize(
    ("source", "lookup", "name", "expected"),
    [
        (TOPOLOGY.replace(": hourglass}", ": 3}"), find_topology, "hourglass", "function"),
        (HEAD.replace(": Still}", ": zoo.ZooError}"), find_head, "still", "Head"),
        (DIALECT.replace(": mine}", ": 3}"), lambda name: find("dialects", name), "mine", "func"),
        (COMMAND.replace(": greet}", ": 3}"), find_command, "greet", "Command"),
        (DATASET.replace(": Ramps}", ": 3}"), find_dataset, "ramps", "function"),
        (PRETRAINED, find_pretrained, "ms-convlstm-mine", "64"),
        (
            PRETRAINED.replace("zoo.Pretrained", "lambda *_: "),
            find_pretrained,
            "ms-convlstm-mine",
            "Pretrained",
        ),
        (HOOK + "{'mean': 3}", find_cell, "mean", "RecurrentCell"),
        (HOOK + "{'mean': zoo.ZooError}", find_cell, "mean", "RecurrentCell"),
    ],
)
def test_offer_of_a_wrong_type_is_rejected(install_plugin, cli, source, lookup, name, expected):
    """It is an error to ask for it; everything else works."""
    install_plugin("zoo-broken", source)
    with pytest.raises(PluginError, match=rf"zoo-broken 1\.0.*'{name}'.*{expected}") as caught:
        lookup(name)
    assert "\n" not in str(caught.value)
    zoo.list_models()
    zoo.create("ms-convlstm", hidden=2)
    assert f"'{name}'" in plugin_rows(cli)["zoo-broken", "it"]["error"]


def test_broken_plugin_does_not_affect_another(install_plugin):
    broken = "import zoo\n@zoo.hookimpl\ndef zoo_celks(): return {}"
    install_plugin("zoo-broken", broken, entry="a")
    install_plugin("zoo-mean", CELL, entry="b")
    with pytest.warns(UserWarning, match="zoo-broken"):
        assert "mean" in architectures()


def test_interrupted_plugin_is_loaded_again(install_plugin):
    path = install_plugin("zoo-mean", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()
    path.write_text(CELL + "# fixed")
    assert "mean" in names("cells")


def test_plugin_without_hooks_is_reported(install_plugin, cli):
    install_plugin("zoo-empty", "import zoo", entry="empty")
    output = cli.succeed("plugins")
    (row,) = (line for line in output.splitlines() if "zoo-empty" in line)
    assert row.split()[-2:] == ["provides", "nothing"]
    assert output.count("provides nothing") == 1


def test_plugin_for_other_hooks_is_left_out(install_plugin):
    install_plugin("zoo-mean", "ZOO_HOOKS = 99\n" + CELL)
    with pytest.warns(UserWarning, match="99"):
        assert "mean" not in architectures()
    install_plugin("zoo-other", f"ZOO_HOOKS = {HOOKS}\n" + CELL, entry="other")
    with pytest.warns(UserWarning, match="99"):
        assert "mean" in architectures()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [("rate", "'rate'|rate"), ("rate=object()", "options"), ("rate=float('nan')", "options")],
)
def test_option_that_no_config_can_hold_is_an_error(install_plugin, parameters, expected):
    install_plugin("zoo-mean", CELL.replace("rate: float = 0.5", parameters))
    with pytest.raises(ZooError, match=expected):
        zoo.create("mean", hidden=2)


def test_broken_plugin_is_reported_when_its_name_is_asked_for(install_plugin):
    install_plugin("zoo-broken", "1 / 0", entry="mean")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.create("convlstm", hidden=2, layers=2)
    with (
        pytest.warns(UserWarning, match=r"zoo-broken 1\.0.*ZeroDivisionError"),
        pytest.raises(ZooError, match="'mean'"),
    ):
        zoo.create("mean")


def test_strict_makes_a_broken_plugin_fatal(install_plugin, monkeypatch):
    install_plugin("zoo-broken", "1 / 0", entry="broken")
    monkeypatch.setenv("ZOO_STRICT", "1")
    with pytest.raises(PluginError, match=r"zoo-broken 1\.0.*ZeroDivisionError.*ZOO_STRICT"):
        architectures()
    zoo.create("convlstm", hidden=2, layers=2)  # needs nothing of the broken one
    monkeypatch.setenv("ZOO_STRICT", "0")
    with pytest.warns(UserWarning, match="zoo-broken"):
        architectures()


def test_output_of_a_plugin_goes_to_standard_error(install_plugin, cli):
    shout = HOOK.replace("return ", "print('in the hook'); return ") + "{}"
    install_plugin("zoo-shout", "print('at import')\n" + shout)
    result = cli("list", "--json")
    assert any(row["name"] == "convlstm" for row in json.loads(result.stdout))
    assert result.stderr.splitlines() == ["at import", "in the hook"]


# Two that claim one name


def test_two_plugins_that_claim_one_cell(install_plugin):
    install_plugin("zoo-mean", CELL)
    install_plugin("zoo-other", CELL)
    for ask in (lambda: zoo.create("mean"), lambda: zoo.create("ms-mean")):
        with pytest.raises(PluginError, match=r"'mean'.*zoo-mean.*zoo-other"):
            ask()
    assert {"mean", "convlstm"} <= set(architectures())
    assert zoo.create("convlstm", hidden=2).config.cell == "convlstm"


def test_two_plugins_that_claim_one_topology(install_plugin):
    install_plugin("zoo-hourglass", TOPOLOGY)
    install_plugin("zoo-other", TOPOLOGY, entry="other")
    with pytest.raises(PluginError, match=r"zoo-hourglass.*zoo-other"):
        zoo.create("hourglass-predrnn")


def test_two_plugins_that_claim_one_command(install_plugin, cli):
    install_plugin("zoo-greet", COMMAND)
    install_plugin("zoo-greet-too", COMMAND, entry="too")
    message = cli.fail("greet", "you")
    for name in ("'greet'", "zoo_greet", "zoo_greet_too", "commands"):
        assert name in message
    assert "zoo-greet" in plugin_rows(cli)["zoo-greet-too", "too"]["error"]


def test_names_resolve_the_same_way_regardless_of_import_order(install_plugin):
    install_plugin("zoo-mean", CELL, entry="mean")
    install_plugin("zoo-other", CELL, entry="other")
    install_plugin("zoo-one", CELL.replace('"mean"', '"median"'), entry="one")
    install_plugin("zoo-two", CELL.replace('"mean"', '"median"'), entry="two")
    for imported in (False, True):
        if imported:
            load_plugins()
        assert find_cell("mean")[1].distribution == "zoo-mean"
        with pytest.raises(PluginError, match=r"'median'.*zoo-one.*zoo-two"):
            find_cell("median")
    assert {"mean", "median"} <= set(names("cells"))


def test_two_distributions_may_use_one_entry_point_name(install_plugin):
    install_plugin("zoo-mean", CELL, entry="convlstm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {"mean", "convlstm"} <= set(architectures())


CLAIMS = {
    "cells": (CELL.replace('"mean"', '"convlstm"'), find_cell, "convlstm"),
    "topologies": (TOPOLOGY.replace('{"hourglass"', '{"mirror"'), find_topology, "mirror"),
    "heads": (HEAD.replace('"still":', '"frame":'), find_head, "frame"),
    "dialects": (
        DIALECT.replace('{"mine"', '{"openstl"'),
        lambda name: find("dialects", name),
        "openstl",
    ),
    "commands": (COMMAND.replace('"greet":', '"pull":'), find_command, "pull"),
    "datasets": (
        DATASET.replace('"ramps":', '"mmnist":'),
        lambda name: find("datasets", name),
        "mmnist",
    ),
}


@pytest.mark.parametrize("kind", CLAIMS)
@pytest.mark.parametrize("named_for_it", [False, True])
def test_own_names_cannot_be_taken(install_plugin, cli, kind, named_for_it):
    """The plugin is reported as shadowed, and breaks nothing for others."""
    source, lookup, name = CLAIMS[kind]
    install_plugin("zoo-clash", source, entry=name if named_for_it else "it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lookup(name)[1].distribution == "spatiotemporal-zoo"
        assert names(kind).count(name) == 1
        cli.succeed("list")
        cli.succeed("info", "convlstm")
    row = plugin_rows(cli)["zoo-clash", name if named_for_it else "it"]
    assert f"'{name}'" in row["error"]
    assert "spatiotemporal-zoo" in row["error"]
    assert name in cli.succeed("plugins")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (CELL.replace('"mean"', '"mslstm"'), "mslstm"),
        (TOPOLOGY.replace('{"hourglass"', '{"ms"'), "ms"),
        (PRETRAINED.replace("ms-convlstm-mine", "mslstm-mmnist"), "mslstm-mmnist"),
    ],
)
def test_reserved_names_cannot_be_taken(install_plugin, cli, source, name):
    """Aliases, the prefix of multi-scale architectures, and the zoo's own pretrained models."""
    install_plugin("zoo-clash", source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not {name, f"ms-{name}"} & set(architectures())
        assert zoo.create("mslstm", hidden=2, layers=2).config.cell == "mklstm"
        assert zoo.pull("mslstm-mmnist").name == "mslstm-mmnist"
        cli.succeed("list")
    assert f"'{name}'" in plugin_rows(cli)["zoo-clash", "it"]["error"]


# The built-in plugin


def test_every_kind_is_a_hook():
    assert set(KINDS) == {
        "cells", "topologies", "heads", "datasets", "losses", "metrics", "dialects", "commands",
        "pretrained",
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["topologies", "heads", "datasets", "losses", "metrics", "dialects", "commands"]
)
def test_everything_builtin_is_found(kind):
    assert builtin().offers(kind)
    for name in builtin().offers(kind):
        value, plugin = find(kind, name)
        assert callable(value)
        assert plugin is builtin()


def test_own_plugins_are_named_for_what_they_provide():
    """So that a name of the zoo's is found before any third party's plugin is imported."""
    for plugin in load_plugins():
        if plugin.distribution == "spatiotemporal-zoo" and not plugin.is_builtin:
            offers = {name for offers in plugin.provides.values() for name in offers}
            assert offers == {plugin.name}


# Plugins are imported on demand


def test_plugin_is_imported_for_its_own_name_only(install_plugin, imported):
    install_plugin("zoo-mean", MARK + CELL, entry="mean")
    install_plugin("zoo-other", MARK + CELL.replace('"mean"', '"other"'), entry="other")
    zoo.create("ms-convlstm", hidden=2, layers=2)
    assert imported() == []
    zoo.create("ms-mean", hidden=2, layers=2)
    assert imported() == ["zoo_mean"]
    architectures()
    assert imported() == ["zoo_mean", "zoo_other"]


def test_name_that_no_entry_point_has_is_searched_in_all_plugins(install_plugin, imported):
    install_plugin("zoo-mean", MARK + CELL, entry="it")
    zoo.create("mean", hidden=2, layers=2)
    assert imported() == ["zoo_mean"]


def loaded_modules(code, **environment):
    """The modules that Python code has imported at its end, in a process of its own."""
    script = f"import atexit, sys\natexit.register(lambda: print(*sys.modules))\n{code}"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


def test_version_is_that_of_the_distribution():
    assert zoo.__version__ == importlib.metadata.version("spatiotemporal-zoo")
    assert "__version__" in dir(zoo)


def test_names_need_no_torch():
    assert not {"torch", "numpy"} & loaded_modules("import zoo, zoo.config, zoo.registry, zoo.hub")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from zoo.cli import find_command; find_command('pull')", {"zoo.cli.pull"}),
        ("from zoo.plugins import find; find('datasets', 'mmnist')", {"zoo.data.mmnist"}),
        ("from zoo.plugins import find; find('dialects', 'msrnn')", {"zoo.convert.msrnn"}),
    ],
)
def test_finding_a_builtin_name_imports_only_its_module(code, expected):
    siblings = {
        reference.partition(":")[0]
        for kind in ("commands", "datasets", "dialects")
        for reference in builtin().offers(kind).values()
    }
    assert loaded_modules(code) & siblings == expected


@pytest.mark.slow
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
def test_command_that_needs_no_plugin_and_no_torch(install_plugin, imported, tmp_path, arguments):
    path = install_plugin("zoo-mean", MARK + CELL, entry="pull")
    folder = shutil.copytree(zoo.pull("mslstm-mmnist"), tmp_path / "model")
    argv = ["zoo", *(argument.format(folder=folder) for argument in arguments)]
    code = f"from zoo.cli import main\nsys.argv = {argv}\nmain()"
    modules = loaded_modules(code, PYTHONPATH=str(path.parent))
    assert not {"torch", "timm"} & modules
    assert imported() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--pretrained"],
        ["plugins"],
        ["info", "mslstm-mmnist"],
        ["search", "--hub", str(builtin_folder())],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_command_that_lists_names_imports_no_torch(arguments):
    modules = loaded_modules(f"from zoo.cli import zoo\nzoo({arguments})")
    assert "zoo.cli.common" in modules
    assert "torch" not in modules


@pytest.mark.slow
def test_forecasts_and_scores_need_few_libraries():
    heavy = {"accelerate", "matplotlib", "pandas", "scipy", "timm", "torchvision", "xarray"}
    code = "import zoo.evaluate, zoo.inspect.pictures\nzoo.load('mslstm-mmnist')"
    assert not heavy & loaded_modules(code)


# Weights whose plugin is missing


def test_weights_of_a_broken_plugin_report_its_error(mean, tmp_path):
    folder = zoo.save(zoo.create("mean", hidden=2, layers=2), tmp_path / "model")
    mean.write_text("1 / 0")
    sys.modules.pop("zoo_mean")
    forget()
    expected = r"'mean'.*zoo-mean 1\.0.*ZeroDivisionError.*zoo-mean==1\.0"
    with pytest.warns(UserWarning, match="zoo-mean"), pytest.raises(PluginError, match=expected):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize("absent", ["mean", "hourglass"])
def test_weights_of_a_missing_plugin_report_what_to_install(mean, install_plugin, tmp_path, absent):
    install_plugin("zoo-hourglass", TOPOLOGY)
    model = zoo.create("hourglass-mean", hidden=2, layers=4)
    folder = zoo.save(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["plugin"] == {"distribution": "zoo-mean", "version": "1.0"}
    assert config["topology_plugin"] == {"distribution": "zoo-hourglass", "version": "1.0"}
    shutil.rmtree(mean.parent / f"zoo_{absent}-1.0.dist-info")
    forget()
    expected = rf"'{absent}' .*not installed.*pip install zoo-{absent}==1\.0"
    with pytest.raises(PluginError, match=expected):
        zoo.load(f"local-dir:{folder}")


def test_weights_of_an_excluded_plugin_report_zoo_plugins(mean, tmp_path, monkeypatch):
    folder = zoo.save(zoo.create("mean", hidden=2, layers=2), tmp_path / "model")
    monkeypatch.setenv("ZOO_PLUGINS", "spatiotemporal-zoo")
    forget()
    with pytest.raises(PluginError, match=r"ZOO_PLUGINS.*pip install zoo-mean==1\.0"):
        zoo.load(f"local-dir:{folder}")


def test_weights_of_a_cell_that_a_plugin_no_longer_has(mean, tmp_path):
    folder = zoo.save(zoo.create("mean", hidden=2, layers=2), tmp_path / "model")
    mean.write_text(CELL.replace('"mean"', '"median"'))
    sys.modules.pop("zoo_mean")
    importlib.invalidate_caches()
    os.utime(mean, (0, 0))
    forget()
    with pytest.raises(PluginError, match=r"'mean'.*1\.0.*pip install zoo-mean==1\.0"):
        zoo.load(f"local-dir:{folder}")


# ZOO_PLUGINS


@pytest.mark.parametrize("selected", ["it", "zoo-mean", "Zoo_Mean", " convlstm , zoo.mean,"])
def test_zoo_plugins_selects_plugins(mean, install_plugin, monkeypatch, selected):
    install_plugin("zoo-other", CELL.replace('"mean"', '"other"'), entry="other")
    monkeypatch.setenv("ZOO_PLUGINS", selected)
    forget()
    cells = {"mean", "convlstm"} if "convlstm" in selected else {"mean"}
    assert set(names("cells")) == cells
    assert zoo.list_models("*other", pretrained=False) == []


def test_zoo_plugins_keeps_what_is_builtin(mean, monkeypatch, cli):
    monkeypatch.setenv("ZOO_PLUGINS", "zoo-mean")
    forget()
    assert zoo.create("ms-mean", hidden=2).config.head == "frame"
    assert names("heads") == ["frame"]
    assert {"stack", "mirror"} <= set(names("topologies"))
    assert "mmnist" in names("datasets")
    assert "openstl" in names("dialects")
    assert plugin_rows(cli).keys() == {("spatiotemporal-zoo", "zoo"), ("zoo-mean", "it")}


def test_zoo_plugins_that_names_no_plugin_is_an_error(mean, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "zoo-meen")
    forget()
    with pytest.raises(PluginError, match=r"'zoo-meen'.*zoo-mean"):
        zoo.create("mean")


# Weights whose plugin is another

ANOTHER = [
    ("mean", "mean", {}, CELL, "plugin"),
    ("hourglass", "hourglass-convlstm", {"layers": 4}, TOPOLOGY, "topology_plugin"),
    ("still", "convlstm", {"head": "still"}, HEAD, "head_plugin"),
]


def saved(folder, architecture, options):
    return zoo.save(zoo.create(architecture, **{"hidden": 2, "layers": 2} | options), folder)


def uninstall(module):
    shutil.rmtree(module.parent / f"{module.stem}-1.0.dist-info")
    forget()


@pytest.mark.parametrize(("part", "architecture", "options", "source", "field"), ANOTHER)
def test_part_of_another_distribution_is_refused_unless_allowed(
    install_plugin, tmp_path, part, architecture, options, source, field
):
    one = install_plugin("zoo-one", source)
    folder = saved(tmp_path / "model", architecture, options)
    uninstall(one)
    install_plugin("zoo-other", source, version="2.0")
    with pytest.raises(PluginError, match=rf"'{part}' .*zoo-one 1\.0.*zoo-other 2\.0") as caught:
        zoo.load(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=r"zoo-one 1\.0.*zoo-other 2\.0") as warned:
        model = zoo.load(f"local-dir:{folder}", any_plugin=True)
    assert len(warned) == 1
    assert getattr(model.config, field).distribution == "zoo-other"


@pytest.mark.parametrize(("part", "architecture", "options", "source", "field"), ANOTHER)
def test_another_version_of_the_distribution_is_a_warning(
    install_plugin, tmp_path, part, architecture, options, source, field
):
    one = install_plugin("zoo-one", source)
    folder = saved(tmp_path / "model", architecture, options)
    uninstall(one)
    install_plugin("zoo-one", source, version="1.1")
    with pytest.warns(UserWarning, match=rf"'{part}' .*zoo-one 1\.0.*zoo-one 1\.1") as warned:
        model = zoo.load(f"local-dir:{folder}")
    assert len(warned) == 1
    assert getattr(model.config, field).version == "1.1"


def test_name_of_a_distribution_may_be_spelled_in_several_ways(mean, tmp_path):
    folder = saved(tmp_path / "model", "mean", {})
    path = folder / "config.json"
    path.write_text(path.read_text().replace("zoo-mean", "Zoo_Mean"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.load(f"local-dir:{folder}")


def test_config_without_plugins_loads(mean, tmp_path):
    folder = saved(tmp_path / "model", "mean", {})
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if not key.endswith("plugin")}
    (folder / "config.json").write_text(json.dumps(kept))
    assert zoo.load(f"local-dir:{folder}").config.plugin.distribution == "zoo-mean"


def test_commands_refuse_the_cell_of_another_distribution(install_plugin, tmp_path, cli):
    one = install_plugin("zoo-one", CELL)
    folder = saved(tmp_path / "model", "mean", {})
    uninstall(one)
    install_plugin("zoo-other", CELL)
    model = f"local-dir:{folder}"
    np.save(tmp_path / "in.npy", np.zeros((3, 8, 8), dtype="float32"))
    predict = ("predict", model, tmp_path / "in.npy", "-o", tmp_path / "out.npy")
    for command in (predict, ("demo", model), ("eval", model), ("cost", model)):
        assert re.search(r"zoo-one 1\.0.*zoo-other 1\.0", cli.fail(*command))
    assert not (tmp_path / "out.npy").exists()
    result = cli(*predict, "--any-plugin")
    assert result.exit_code == 0
    assert "zoo-one" in result.stderr
    assert (tmp_path / "out.npy").exists()


# Plugins that exit, and hooks that return anything


@pytest.mark.parametrize(
    "source",
    [
        "raise SystemExit(7)",
        "import sys\nsys.exit()",
        "raise BaseException('odd')",
        "raise RecursionError",
        "syntax error",
        HOOK.replace("return ", "raise SystemExit(7)"),
        HOOK + "None",
        HOOK + "['mean']",
        HOOK + "{'Mean': None}",
        HOOK + "{'mean': None}",
        HOOK + "{'mean': 'no_such:thing'}",
        "class E(Exception):\n    def __str__(self): raise self\n\nraise E",
        "class Odd:\n    def __repr__(self): raise SystemExit(7)\n\n" + HOOK + "{'mean': Odd()}",
        HOOK + "{'mean': ''}",
        HOOK + "{'mean': '\\n\\x1b[31m'}",
        HOOK + "{'convlstm': None, 'stack': 3}",
        "class Odd:\n    def __getattr__(self, name): raise SystemExit(7)\n\n"
        "import sys\nsys.modules[__name__] = Odd()",
    ],
)
def test_commands_survive_a_plugin_that_does_anything(install_plugin, cli, source):
    install_plugin("zoo-broken", source)
    listed = json.loads(cli.succeed("list", "--json"))
    assert {"convlstm", "ms-convlstm"} <= {row["name"] for row in listed}
    assert json.loads(cli.succeed("info", "convlstm", "--json"))["name"] == "convlstm"
    assert plugin_rows(cli)["zoo-broken", "it"]["error"]
    assert cli("plugins").exit_code == 0


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("METADATA", None),
        ("METADATA", ""),
        ("METADATA", "Metadata-Version: 2.1\nName: zoo-mean\n"),
        ("METADATA", "Metadata-Version: 2.1\nVersion: 1.0\n"),
        ("entry_points.txt", "[zoo]\nit\n"),
        ("entry_points.txt", "[zoo]\nit = \n"),
        ("entry_points.txt", "[zoo]\nit = ../x:y:z [\n"),
        ("entry_points.txt", "[zoo]\n\x1b[2J = zoo_mean\n"),
    ],
)
def test_damaged_distribution_does_not_affect_others(mean, install_plugin, cli, file, text):
    path = mean.parent / "zoo_mean-1.0.dist-info" / file
    path.unlink() if text is None else path.write_text(text)
    install_plugin("zoo-other", CELL.replace('"mean"', '"other"'), entry="other")
    listed = json.loads(cli.succeed("list", "--json"))
    assert {"convlstm", "other", "ms-other"} <= {row["name"] for row in listed}
    assert json.loads(cli.succeed("info", "other", "--json"))["name"] == "other"
    assert ("zoo-other", "other") in plugin_rows(cli)
    assert cli("plugins").exit_code == 0
