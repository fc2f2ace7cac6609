"""Costs: compared with hand calculation and published figures, and measured."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
from zoo.errors import ConfigError
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
    # The zoo computes less than these:
    "predrnnv2": "70.77 6.52 283.09 206.25",
    "mim": "142.97 13.17 571.89 416.66",
    "motionrnn": "144.77 13.33 579.06 421.89",
    "modernn": "232.86 21.45 931.46 678.63",
}


@functools.cache
def counted(name: str, dataset: str = "mmnist") -> Cost:
    return count(find_config(name), TABLES[dataset].task)


def missing(name: str, task: Task) -> float:
    """MACs that the published network has and the zoo's does not, counted by hand."""
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


def test_count_matches_hand_calculation() -> None:
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


def test_convention_matches_the_paper() -> None:
    macs = counted("convlstm").total.macs["convolution"]
    layers = 6 * 19 * 64 * 64 * 73_728
    assert macs == layers + 19 * 64 * 64 * (32 + 32)
    assert round(macs / 1e9, 1) == 34.4


@pytest.mark.slow
@pytest.mark.parametrize("dataset", TABLES)
@pytest.mark.parametrize("name", EXACT)
def test_convolutions_match_the_published_network(name: str, dataset: str) -> None:
    """What the published network computes but does not use is added to ours."""
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


@pytest.mark.slow
def test_explanations_reproduce_the_published_figures() -> None:
    """The conventions of the published counter, added to exact counts, give its figures."""
    ms, steps = counted("ms-mklstm").total.macs["convolution"], 19
    assert round((ms + steps * 11 * 32 * (32**2 + 64**2)) / 1e9, 1) == 64.5
    motion = counted("motionrnn").total.macs["convolution"]
    motion += missing("motionrnn", TABLES["mmnist"].task)
    transposed = steps * 6 * 32**2 * 16 * 8 * 32
    assert round((motion + 3 * transposed) / 1e9, 1) == 146.2
    task = Task((212, 212), 4, 4)
    large = count(find_config("ms-mklstm"), task).total.macs["convolution"]
    assert round((large + 7 * 11 * 32 * (106**2 + 212**2)) / 1e9, 1) == 260.6


def test_warps_and_attention_are_counted() -> None:
    assert counted("trajgru").total.macs["warp"] == 19 * 6 * 4 * 10 * 32 * 64 * 64
    # Five layers of nine fields of eight channels, at half size.
    assert counted("motionrnn").total.macs["warp"] == 19 * 5 * 4 * 9 * 8 * 32 * 32
    positions = 2 * 64 * 64
    products = sum(2 * 32 * positions**2 // scale**2 for scale in (1, 2, 4))
    assert counted("cmslstm").total.macs["attention"] == 19 * 6 * products
    # A tile computes more than the windows of its pixels.
    windows = 19 * 6 * 64 * 64 * 2 * 32 * 30**2
    assert counted("preciplstm").total.macs["attention"] >= windows


def test_memory_model_has_no_attention_scores() -> None:
    scores = 19 * 6 * 4 * (2 * 64 * 64) ** 2
    assert counted("cmslstm").total.outputs < scores / 2


def test_multi_scale_network_costs_what_theory_says() -> None:
    """It has all parameters of the plain network, but 0.4375 of the MACs and outputs in layers."""
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


def test_shared_module_is_a_part_of_its_own() -> None:
    cost = count(find_config("ms-predrnnv2", {"hidden": 4, "down": "conv"}), Task((16, 16), 1, 2))
    parts = {part.name: part for part in cost.parts}
    assert parts["shared"].parameters == 4 * 4 + 4
    assert parts["between layers"].macs["convolution"] > 0
    for kind in ("parameters", "outputs"):
        assert sum(getattr(p, kind) for p in cost.parts) == getattr(cost.total, kind)


def test_other_options_and_tasks_have_no_published_row() -> None:
    task = TABLES["mmnist"].task
    assert published(find_config("mim", {"hidden": 64}), task) is None
    assert published(find_config("mim"), Task((64, 64), 10, 20)) is None
    assert published(find_config("ms-mim"), task) is None
    assert explain(None, find_config("ms-mim"), counted("mim").total) == DIFFERENCES["mim"]


@pytest.mark.slow
def test_reports_cover_all_models_of_a_table() -> None:
    models = {model["name"]: model for model in reports("taxibj")}
    assert list(models)[:2] == ["convlstm", "trajgru"]
    assert {"modernn", "preciplstm", "mklstm"} <= models.keys()
    assert models["ms-mklstm"]["published"]["macs"] == 5.9
    assert models["ms-mklstm"]["differs"] is None
    assert "softmax" in models["cmslstm"]["differs"]
    assert models["modernn"]["published"] is None


@pytest.mark.slow
def test_peak_memory_is_near_the_memory_model() -> None:
    config = find_config("predrnnv2", {"hidden": 16, "layers": 2})
    task = Task((64, 64), 4, 4)
    model = count(config, task).total.memory_model
    assert model / 8 < measure_peak(config, task) < 2 * model


@pytest.mark.parametrize("device", ["mps", "cuda:77"])
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=device):
        measure_peak(find_config("convlstm"), Task((8, 8), 1, 1), device)


@pytest.fixture
def cost_json(cli: Any) -> Callable[..., Any]:
    return lambda *arguments: json.loads(cli.succeed("cost", *arguments, "--json"))


def test_command_counts_an_architecture(cli: Any, cost_json: Callable[..., Any]) -> None:
    counted = cost_json("mslstm", "--size", "64x64", "--input", 10, "--horizon", 10)
    assert (counted["architecture"], counted["steps"]) == ("ms-mklstm", 19)
    assert counted["parameters"] == 1_894_561
    assert counted["macs"]["total"] == sum(part["macs"]["total"] for part in counted["parts"])
    assert counted["published"]["name"] == "MS-LSTM"
    assert counted["peak_bytes"] is None
    printed = cli.succeed("cost", "mslstm")
    assert "64.44 G" in printed
    assert "published: MS-LSTM" in printed
    assert "bilinear upsampling" in printed


def test_command_takes_options_of_the_architecture(cost_json: Callable[..., Any]) -> None:
    counted = cost_json("convlstm", "--set", "hidden=2", "--set", "layers=2", "--size", "4x4")
    assert (counted["parameters"], counted["published"]) == (599, None)
    assert [part["name"] for part in counted["parts"]] == ["embed", "layer 0", "layer 1", "head"]


@pytest.mark.slow
def test_command_prints_a_published_table(cli: Any, cost_json: Callable[..., Any]) -> None:
    printed = cli.succeed("cost", "--table", "taxibj")
    for text in ("TaxiBJ", "4 input and 4 forecast", "32×32", "7 steps"):
        assert text in printed
    assert f"mim: {DIFFERENCES['mim']}" in printed
    assert len(cost_json("--table", "taxibj")) == len(EXACT)


def test_command_uses_the_frames_of_a_trained_model(
    tmp_path: Path, cli: Any, cost_json: Callable[..., Any]
) -> None:
    data = {"size": (16, 24), "input_frames": 3, "horizon": 2}
    folder = zoo.save(zoo.create("trajgru", hidden=4, layers=2, data=data), tmp_path / "model")
    counted = cost_json(f"local-dir:{folder}")
    assert (counted["size"], counted["steps"]) == ([16, 24], 4)
    assert counted["macs"]["warp"] == 4 * 2 * 4 * 10 * 4 * 16 * 24
    assert "hidden" in cli.fail("cost", f"local-dir:{folder}", "--set", "hidden=8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convlst"], "convlstm"),
        (["local-dir:nowhere"], "nowhere"),
        (["convlstm", "--set", "hiden=3"], "hidden"),
        (["convlstm", "--set", "hidden"], "OPTION=VALUE"),
        (["convlstm", "--size", "64"], "HEIGHTxWIDTH"),
        (["convlstm", "--horizon", "0"], "--horizon"),
        (["convlstm", "--table", "kth"], "--table"),
        (["--table", "imagenet"], "imagenet"),
        ([], "NAME or --table"),
    ],
)
def test_command_refuses_invalid_arguments(cli: Any, arguments: list[str], message: str) -> None:
    result = cli("cost", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
