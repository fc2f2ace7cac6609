"""zoo bench: the reference gives the same numbers, and results are written, checked and drawn."""

import csv
import json
from dataclasses import replace

import pytest
import torch

import zoo
from zoo.bench.reference import plain
from zoo.bench.results import read_csv, slower
from zoo.bench.speed import MODES, Case, Ceiling, changed, compare, measure, measure_ceiling
from zoo.errors import ConfigError

SMALL = ("--set", "hidden=2", "--set", "layers=2", "--size", "8x8", "--input", 2, "--horizon", 1)
QUICK = ("--seconds", 0, "--no-peak", "--threads", 1)


@pytest.fixture
def small_case():
    options = {"hidden": 2, "layers": 2}
    return Case("convlstm", "rollout", (8, 8), 2, 1, options=options)


@pytest.mark.parametrize(
    "name",
    [
        "convlstm",
        "ms-predrnn",
        "ms-mim",
        "mim",
        "motionrnn",
        "ms-mklstm",
        "modernn",
        "cmslstm",
        "trajgru",
    ],
)
def test_reference_gives_the_same_numbers_and_gradients(name):
    torch.manual_seed(0)
    model = zoo.create(name, hidden=4).double()
    reference = plain(model)
    frames = torch.rand(2, 3, 1, 16, 16, dtype=torch.float64)
    results = []
    for m in (model, reference):
        prediction = m(frames, 3)
        prediction.square().sum().backward()
        results.append((prediction, m.network.embed.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["convlstm", "ms-mim", "mklstm", "modernn", "trajgru"])
def test_float32_agrees_with_the_reference(name):
    torch.manual_seed(0)
    model = zoo.create(name, hidden=8)
    frames = torch.rand(1, 4, 1, 16, 16)
    with torch.no_grad():
        ours, theirs = model(frames, 4), plain(model)(frames, 4)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("preciplstm", {}),
        ("convlstm", {"norm": True, "size": (8, 8)}),
        ("predrnn", {"forget_bias": 1.0}),
        ("mklstm", {"kernel_sizes": [3]}),
        ("motionrnn", {"published_order": True}),
    ],
)
def test_reference_has_no_options(name, options):
    with pytest.raises(ConfigError, match=next(iter(options), name)):
        plain(zoo.create(name, hidden=2, layers=2, **options))


@pytest.mark.parametrize("mode", MODES)
def test_measure_reports_times_and_operations(small_case, mode):
    case = replace(small_case, mode=mode, batch=3)
    row = measure(case, seconds=0, memory=False)
    assert row["runs"] == 3
    assert row["cpu_s"] > 0
    assert row["peak_bytes"] is None
    steps, factor = {"rollout": (2, 1), "train": (2, 3), "step": (1, 1)}[mode]
    layers = 2 * 64 * (2 + 2) * 8 * 9
    assert row["macs"] == 3 * factor * steps * (layers + 2 * 64 * 2)


def test_comparison_has_ratios_of_interleaved_pairs(small_case):
    row = measure(small_case, replace(small_case, reference=True), seconds=0, memory=False)
    assert row["ratio"] == pytest.approx(row["vs_cpu_s"] / row["cpu_s"], rel=3)
    assert row["ratio_bytes"] is None


def test_runs_take_turns():
    calls = []
    rounds = compare([lambda: calls.append("a"), lambda: calls.append("b")], "cpu", 0, least=3)
    assert "".join(calls) == "abbaab"
    assert [len(timings) for timings in rounds] == [2, 2, 2]


def test_training_with_every_setting_runs(small_case):
    case = replace(small_case, mode="train", precision="bf16", channels_last=True)
    assert measure(case, seconds=0, memory=False)["cpu_s"] > 0


@pytest.mark.slow
def test_peak_memory_grows_with_the_batch(small_case):
    rows = [
        measure(replace(small_case, mode="train", size=(64, 64), batch=n), seconds=0)
        for n in (1, 32)
    ]
    assert rows[1]["peak_bytes"] > 4 * rows[0]["peak_bytes"]


def test_settings_change_the_case_or_the_model(small_case):
    case = changed(small_case, {"batch": 4, "kernel_size": 5})
    assert (case.batch, case.options) == (4, {"hidden": 2, "layers": 2, "kernel_size": 5})


@pytest.mark.parametrize(
    "settings", [{"compile": "yes"}, {"precision": "fp8"}, {"mode": "sleep"}, {"batch": True}]
)
def test_invalid_settings_are_refused(small_case, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        changed(small_case, settings)


@pytest.mark.slow
def test_ceiling_is_what_a_machine_can_do():
    ceiling = measure_ceiling()
    assert 1e8 < ceiling.macs < 1e13
    assert 1e8 < ceiling.bytes < 1e13


@pytest.fixture
def ceiling(monkeypatch):
    """The ceiling of a slow machine, not measured."""
    monkeypatch.setattr("zoo.bench.speed.measure_ceiling", lambda *_: Ceiling(1e9, 1e9))


@pytest.mark.usefixtures("ceiling")
def test_command_writes_what_check_reads(tmp_path, cli):
    table, picture = tmp_path / "speed.csv", tmp_path / "speed.png"
    vs = ("--vs", "reference=true", "--csv", table, "--plot", picture, "--json")
    rows = json.loads(cli.succeed("bench", "convlstm", *SMALL, *QUICK, *vs))
    assert [row["mode"] for row in rows] == ["rollout", "train"]
    assert rows[0]["share"] == rows[0]["macs"] / rows[0]["cpu_s"] / 1e9
    assert rows[0]["sequences_per_s"] == rows[0]["batch"] / rows[0]["cpu_s"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    stored = read_csv(table)
    assert [(case.mode, vs) for case, vs, _ in stored] == [
        ("rollout", {"reference": True}),
        ("train", {"reference": True}),
    ]
    assert stored[0][0].options == {"hidden": 2, "layers": 2}
    assert stored[0][2] == rows[0]["ratio"]


@pytest.mark.usefixtures("ceiling")
def test_check_fails_if_a_ratio_is_lower_than_stored(tmp_path, cli):
    table = tmp_path / "speed.csv"
    vs = ("--mode", "step", "--vs", "reference=true", "--csv", table)
    cli.succeed("bench", "convlstm", *SMALL, *QUICK, *vs)
    lines = list(csv.reader(table.open()))
    for ratio, code in ((0.0001, 0), (1e6, 1)):
        lines[1][lines[0].index("ratio")] = str(ratio)
        with table.open("w", newline="") as file:
            csv.writer(file).writerows(lines)
        assert cli("bench", "--check", table, *QUICK).exit_code == code


def test_tolerance_is_a_share_of_the_stored_ratio():
    assert not slower(0.91, 1.0, 0.1)
    assert slower(0.89, 1.0, 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convlst"], "convlstm"),
        (["convlstm", "--size", "8"], "HEIGHTxWIDTH"),
        (["convlstm", "--set", "precision=fp8"], "fp8"),
        (["convlstm", "--vs", "reference"], "OPTION=VALUE"),
        (["preciplstm", "--vs", "reference=true", *SMALL], "motionrnn"),
        (["convlstm", "--check", __file__], "--check"),
        (["--check", __file__], "comparisons"),
    ],
)
def test_command_refuses_invalid_arguments(cli, arguments, message):
    result = cli("bench", *arguments, *QUICK)
    assert result.exit_code == 2
    assert message in result.stderr
