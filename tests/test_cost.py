"""Costs: counted by hand, beside the published figures, and measured."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import zoo
from zoo.bench.cost import (
    Cost,
    count,
    explain,
    find_config,
    measure_peak,
    published,
    reports,
)
from zoo.cli import zoo as command
from zoo.errors import ZooError
from zoo.published import DIFFERENCES, TABLES, Task

#: Exact convolution MACs (10⁹) of the published networks, in the order of TABLES.
EXACT = {
    "convlstm": "34.43 3.17 137.73 100.34",
    "trajgru": "38.56 3.55 154.22 112.36",
    "predrnn": "69.81 6.43 279.26 203.46",
    "predrnnpp": "94.68 8.72 378.72 275.92",
    "preciplstm": "136.76 12.60 547.02 398.54",
    "cmslstm": "117.15 10.79 468.6 341.4",
    "mklstm": "147.28 13.56 589.10 429.20",
    "ms-convlstm": "15.07 1.39 60.27 43.91",
    "ms-mklstm": "64.44 5.93 257.74 187.78",
    # Of these the zoo computes less:
    "predrnnv2": "70.77 6.52 283.09 206.25",
    "mim": "142.97 13.17 571.89 416.66",
    "motionrnn": "144.77 13.33 579.06 421.89",
    "modernn": "232.86 21.45 931.46 678.63",
}


@functools.cache
def counted(name: str, dataset: str = "mmnist") -> Cost:
    return count(find_config(name), TABLES[dataset].task)


def missing(name: str, task: Task) -> float:
    """MACs of the published network that the zoo's does not have, counted by hand."""
    height, width = task.size
    pixels = height * width
    kernels = 9 * 32 * 32  # weights of a 3×3 convolution, 32 to 32 channels
    if name == "predrnnv2":  # the adapter, 1×1, of two maps in six layers
        weights = 6 * 2 * 32 * 32
    elif name == "modernn":  # the 3×3 and the 5×5 kernels, five times in six layers
        weights = 6 * 5 * (9 + 25) * 32 * 32
    elif name in ("mim", "motionrnn"):
        # N (6 + 2 kernels) and S (8 + 1) of layer 0, a forget gate (2) of the five above it
        weights = (6 + 2 + 8 + 1 + 5 * 2) * kernels
        if name == "motionrnn":  # the last MotionGRU: at full size its gate, the rest at half
            weights += 2 * 32 * 32
            half = 4 * 32 * 8 + 26 * 36 + 26 * 18 + 8 * 9 + 72 * 8 + 16 * 8 * 32
            weights += half / 4
    else:
        weights = 0
    return weights * pixels * task.steps


def test_a_network_counted_by_hand() -> None:
    """Two layers of two channels on 4×4 pixels, three steps."""
    config = find_config("convlstm", {"hidden": 2, "layers": 2})
    cost = count(config, Task((4, 4), 2, 2))
    parts = {part.name: part for part in cost.parts}
    assert list(parts) == ["embed", "layer 0", "layer 1", "head"]
    macs = {name: part.macs["convolution"] for name, part in parts.items()}
    layer = 3 * 16 * (2 + 2) * 8 * 9
    assert macs == {"embed": 3 * 16 * 2, "layer 0": layer, "layer 1": layer, "head": 3 * 16 * 2}
    parameters = [part.parameters for part in cost.parts]
    assert parameters == [2 + 2, 4 * 8 * 9 + 8, 4 * 8 * 9 + 8, 2 + 1]
    assert parts["embed"].outputs == 3 * 16 * 2 * 4
    assert parts["embed"].memory_model == 4 * (4 * 4) + 2 * 3 * 16 * 2 * 4
    assert cost.total.parameters == sum(parameters)
    assert cost.total.macs == {"convolution": sum(macs.values()), "attention": 0, "warp": 0}
    assert cost.total.outputs == sum(part.outputs for part in cost.parts)
    assert cost.total.as_dict()["flops"] == 2 * sum(macs.values())


def test_the_check_of_the_papers_convention() -> None:
    macs = counted("convlstm").total.macs["convolution"]
    layers = 6 * 19 * 64 * 64 * 73_728
    assert macs == layers + 19 * 64 * 64 * (32 + 32)
    assert round(macs / 1e9, 1) == 34.4


@pytest.mark.parametrize("dataset", TABLES)
@pytest.mark.parametrize("name", EXACT)
def test_convolutions_are_those_of_the_published_network(name: str, dataset: str) -> None:
    """With what it computes and does not use added to ours, to the last printed digit."""
    exact = EXACT[name].split()[list(TABLES).index(dataset)]
    macs = counted(name, dataset).total.macs["convolution"]
    macs += missing(name, TABLES[dataset].task)
    digits = len(exact.partition(".")[2])
    assert f"{macs / 1e9:.{digits}f}" == exact
    assert (missing(name, TABLES[dataset].task) > 0) <= (name in DIFFERENCES)


@pytest.mark.parametrize("dataset", TABLES)
def test_every_published_row_agrees_or_is_explained(dataset: str) -> None:
    for row in TABLES[dataset].rows:
        total = counted(row.architecture, dataset).total
        config = find_config(row.architecture)
        assert published(config, TABLES[dataset].task) == row
        why = explain(row, config, total)
        same = round(total.macs["convolution"] / 1e9, 1) == row.macs
        assert bool(why) != (same and round(total.parameters / 1e6, 1) == row.parameters), row
        assert "\n" not in why


def test_the_explanations_give_the_published_figures() -> None:
    """The habits of the published counter, added to exact counts, give what it printed."""
    ms, steps = counted("ms-mklstm").total.macs["convolution"], 19
    assert round((ms + steps * 11 * 32 * (32**2 + 64**2)) / 1e9, 1) == 64.5
    motion = counted("motionrnn").total.macs["convolution"]
    motion += missing("motionrnn", TABLES["mmnist"].task)
    transposed = steps * 6 * 32**2 * 16 * 8 * 32
    assert round((motion + 3 * transposed) / 1e9, 1) == 146.2
    task = Task((212, 212), 4, 4)
    large = count(find_config("ms-mklstm"), task).total.macs["convolution"]
    assert round((large + 7 * 11 * 32 * (106**2 + 212**2)) / 1e9, 1) == 260.6


def test_warps_and_attention_count() -> None:
    assert counted("trajgru").total.macs["warp"] == 19 * 6 * 4 * 10 * 32 * 64 * 64
    # Five layers of nine fields of eight channels, at half size.
    assert counted("motionrnn").total.macs["warp"] == 19 * 5 * 4 * 9 * 8 * 32 * 32
    positions = 2 * 64 * 64
    products = sum(2 * 32 * positions**2 // scale**2 for scale in (1, 2, 4))
    assert counted("cmslstm").total.macs["attention"] == 19 * 6 * products
    # A tile computes more than the windows of its pixels.
    windows = 19 * 6 * 64 * 64 * 2 * 32 * 30**2
    assert counted("preciplstm").total.macs["attention"] >= windows


def test_attention_holds_no_scores() -> None:
    scores = 19 * 6 * 4 * (2 * 64 * 64) ** 2
    assert counted("cmslstm").total.outputs < scores / 2


def test_the_theory_of_the_multi_scale_network() -> None:
    """The parameters of the plain one, and 0.4375 of what its layers compute and make."""
    plain, mirror = counted("convlstm"), counted("ms-convlstm")
    assert plain.total.parameters == mirror.total.parameters

    def of_layers(cost: Cost) -> tuple[int, int]:
        layers = [part for part in cost.parts if part.name.startswith("layer")]
        return sum(x.macs["convolution"] for x in layers), sum(x.outputs for x in layers)

    for ours, theirs in zip(of_layers(mirror), of_layers(plain), strict=True):
        assert ours == 0.4375 * theirs
    between = mirror.parts[-1]
    assert (between.name, between.macs["convolution"]) == ("between layers", 0)
    assert between.outputs > 0


def test_what_layers_share_is_no_ones() -> None:
    cost = count(find_config("ms-predrnnv2", {"hidden": 4, "down": "conv"}), Task((16, 16), 1, 2))
    parts = {part.name: part for part in cost.parts}
    assert parts["shared"].parameters == 4 * 4 + 4
    assert parts["between layers"].macs["convolution"] > 0
    for kind in ("parameters", "outputs"):
        assert sum(getattr(p, kind) for p in cost.parts) == getattr(cost.total, kind)


def test_another_network_has_no_published_figures() -> None:
    task = TABLES["mmnist"].task
    assert published(find_config("mim", {"hidden": 64}), task) is None
    assert published(find_config("mim"), Task((64, 64), 10, 20)) is None
    assert published(find_config("ms-mim"), task) is None
    assert explain(None, find_config("ms-mim"), counted("mim").total) == DIFFERENCES["mim"]


def test_reports_of_a_table() -> None:
    told = {one["name"]: one for one in reports("taxibj")}
    assert list(told)[:2] == ["convlstm", "trajgru"]
    assert {"modernn", "preciplstm", "mklstm"} <= told.keys()
    assert told["ms-mklstm"]["published"]["macs"] == 5.9
    assert told["ms-mklstm"]["differs"] is None
    assert "softmax" in told["cmslstm"]["differs"]
    assert told["modernn"]["published"] is None


def test_a_training_step_is_measured() -> None:
    config = find_config("predrnnv2", {"hidden": 16, "layers": 2})
    task = Task((64, 64), 4, 4)
    model = count(config, task).total.memory_model
    assert model / 8 < measure_peak(config, task) < 2 * model


def test_a_device_that_does_not_do() -> None:
    task = Task((8, 8), 1, 1)
    with pytest.raises(ZooError, match="'mps' cannot be measured"):
        measure_peak(find_config("convlstm"), task, "mps")
    with pytest.raises(ZooError, match="no training step on 'cuda:77'"):
        measure_peak(find_config("convlstm"), task, "cuda:77")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["cost", *map(str, arguments)])


def as_json(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_command() -> None:
    told = as_json("mslstm", "--size", "64x64", "--input", 10, "--horizon", 10)
    assert (told["architecture"], told["steps"]) == ("ms-mklstm", 19)
    assert told["parameters"] == 1_894_561
    assert told["macs"]["total"] == sum(part["macs"]["total"] for part in told["parts"])
    assert told["published"]["name"] == "MS-LSTM"
    assert told["peak_bytes"] is None
    shown = run("mslstm").stdout
    assert "64.44 G" in shown
    assert "published: MS-LSTM" in shown
    assert "bilinear upsampling" in shown


def test_command_with_options() -> None:
    told = as_json("convlstm", "--set", "hidden=2", "--set", "layers=2", "--size", "4x4")
    assert (told["parameters"], told["published"]) == (599, None)
    assert [part["name"] for part in told["parts"]] == ["embed", "layer 0", "layer 1", "head"]


def test_command_for_a_table() -> None:
    shown = run("--table", "taxibj").stdout
    assert "TaxiBJ, frames of 32×32, 4 read and 4 forecast (7 steps)" in shown
    assert "mim: the published network computes the N and S memories" in shown
    assert len(as_json("--table", "taxibj")) == len(EXACT)


def test_command_for_a_model(tmp_path: Path) -> None:
    data = {"size": (16, 24), "input_frames": 3, "horizon": 2}
    folder = zoo.save(zoo.create("trajgru", hidden=4, layers=2, data=data), tmp_path / "model")
    told = as_json(f"local-dir:{folder}")
    assert (told["size"], told["steps"]) == ([16, 24], 4)
    assert told["macs"]["warp"] == 4 * 2 * 4 * 10 * 4 * 16 * 24
    refused = run(f"local-dir:{folder}", "--set", "hidden=8")
    assert refused.exit_code == 2
    assert "is a trained model" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convlst"], "did you mean convlstm"),
        (["local-dir:nowhere"], "there is no folder nowhere"),
        (["convlstm", "--set", "hiden=3"], "did you mean hidden?"),
        (["convlstm", "--set", "hidden"], "is no OPTION=VALUE"),
        (["convlstm", "--size", "64"], "is no HEIGHTxWIDTH"),
        (["convlstm", "--horizon", "0"], "0 is not in the range"),
        (["convlstm", "--table", "kth"], "leave the others out"),
        (["--table", "imagenet"], "is not one of"),
        ([], "Give its NAME, or --table"),
    ],
)
def test_command_with_bad_input(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
