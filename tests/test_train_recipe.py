"""Recipes: validation, overrides, printing, and the recipes that ship with the zoo."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import RECIPE

import zoo
from zoo.errors import ConfigError
from zoo.registry import ALIASES, architectures
from zoo.train.engine import train
from zoo.train.model import create_optimizer, create_schedule, resolve
from zoo.train.recipe import (
    Curve,
    Recipe,
    SamplingRecipe,
    TrainRecipe,
    differences,
    read_recipe,
)
from zoo.train.sampling import fed_frames

CARDS = Path(__file__).parents[1] / "cards"
PAPERS = sorted(CARDS.glob("papers/*.toml"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_show_prints_every_key_and_can_be_read_again(path: Path, cli: Cli) -> None:
    shown = cli.succeed("train", path, "--show")
    again = path.with_name("again.toml")
    again.write_text(shown)
    assert read_recipe(again) == resolve(read_recipe(path))
    assert cli.succeed("train", again, "--show") == shown
    for name, table in Recipe.model_fields.items():
        keys = getattr(table.annotation, "model_fields", {})
        for key in [name, *keys]:
            assert f"\n{key} = " in shown or f"{key}: not set" in shown or f"[{key}]" in shown, key
    assert "kernel_size = 3" in shown  # of the cell
    assert 'up = "bilinear"' in shown  # of the network


def test_set_overrides_the_recipe(path: Path, cli: Cli) -> None:
    arguments = ["--set", "train.lr=1e-4", "--set", "model.hidden=[4, 4, 4]"]
    arguments += ["--set", "loss.l2=0", "--set", "train.optimizer=adamw"]
    whole = json.loads(cli.succeed("train", path, "--show", "--json", *arguments))
    assert whole["train"]["lr"] == 1e-4
    assert whole["train"]["optimizer"] == "adamw"
    assert whole["model"]["hidden"] == [4, 4, 4]
    assert whole["loss"]["l2"] == 0
    assert whole["train"]["steps"] == 12


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lrr=1", r"'train\.lrr'.*train\.lr\b"),
        ("trian.lr=1", r"'trian'.*train\b"),
        ("train.lr=-1", r"train\.lr\b.*-1"),
        ("train.steps.x=1", r"--set train\.steps\.x: 'steps'"),
        ("train.lr.x=1", r"train\.lr: .*number"),
        ("train.lr", r"'train\.lr'.*=VALUE"),
        ("model.hiden=3", r"hiden"),
        ("loss.weights=[1, 2]", r"0 thresholds.* 1 .*2"),
        ("loss.thresholds=[2, 1]", r"thresholds"),
        ("loss.terms.fakl={}", r"'fakl'.*facl"),
        ("loss.terms.facl.alfa=1", r"the loss facl.*'alfa'.*alpha"),
        ("loss.terms.facl.alpha=3", r"the loss facl.*alpha.*3"),
        ("loss.terms.facl.weight=0", r"loss\.terms.*weight of facl is 0"),
        ('loss.terms.facl.weight="much"', r"loss\.terms.*weight of facl is 'much'"),
        ("evaluation.metric=msse", r"'msse'"),
        ("sampling.forecast={}", r"sampling\.forecast\.start"),
        ("evaluation.select=best", r'select = "best".*every'),
        ("model.data={}", r"\[model\].*data"),
        (".a=3", r"--set \.a: "),
        ("train..lr=3", r"--set train\.\.lr: "),
        ("train.seed=5000000000", r"train\.seed: .*4294967296"),
        ("data.seed=4294967296", r"data\.seed: .*4294967296"),
        (f"train.steps={10**30}", r"train\.steps: .*1000000000\b"),
        ('data.options={"frames": 3}', r"frames.*data\.input_frames.*data\.horizon"),
        ('data.options={"name": "kth"}', r"name.*data\.name"),
        ('data.options={"folder": 3}', r"folder"),
        ('data.options={"root": 3}', r"root.*--data-dir"),
        ('evaluation.options={"split": 3}', r"evaluation\.options.*split.*evaluation\.split"),
        ('evaluation.options={"frames": 2}', r"evaluation\.options.*frames"),
    ],
)
def test_invalid_settings_are_refused(path: Path, setting: str, message: str, cli: Cli) -> None:
    result = cli("train", path, "--show", "--set", setting)
    assert result.exit_code == 2
    assert re.search(message, result.stderr)
    assert "Traceback" not in result.stderr


def test_settings_are_saved_with_the_run(
    path: Path, noise_root: Path, tmp_path: Path, cli: Cli
) -> None:
    run = tmp_path / "run"
    arguments = ["train", path, "-o", run, "--data-dir", noise_root]
    setting = ["--set", "train.steps=2"]
    cli.succeed(*arguments, *setting)
    assert read_recipe(run / "recipe.toml").train.steps == 2
    # Without the setting the recipe differs from that of the run.
    assert "train.steps" in cli.fail(*arguments, "--resume")
    cli.succeed(*arguments, "--resume", *setting)


def test_differences_lists_keys_with_both_values(path: Path) -> None:
    one = read_recipe(path)
    other = read_recipe(path, [("train.lr", 1.0), ("data.options", {"size": 32})])
    assert differences(one, one) == {}
    pairs = differences(one, other)
    assert pairs["train.lr"] == (3e-4, 1.0)
    assert pairs["data.options.size"] == (None, 32)


def test_defaults_are_those_of_the_paper(path: Path) -> None:
    settings = TrainRecipe(steps=10)
    assert (settings.batch_size, settings.optimizer, settings.lr) == (4, "adam", 3e-4)
    assert (settings.schedule, settings.clip_norm, settings.precision) == ("constant", None, "fp32")
    loss = resolve(read_recipe(path)).loss
    assert (loss.l1, loss.l2, loss.auxiliary) == (1, 1, 1)
    _, forecast = SamplingRecipe().curves(10)
    assert [forecast.at(step, 10) for step in (0, 5, 10, 11)] == [1, 0.5, 0, 0]
    _, sooner = SamplingRecipe().curves(10, fall=4)
    assert [sooner.at(step, 10) for step in (0, 1, 4, 9)] == [1, 0.75, 0, 0]
    _, never = SamplingRecipe().curves(10, fall=0)
    assert never.at(0, 10) == 0


def test_reverse_scheduled_sampling() -> None:
    """In thirds of the run, as in PredRNN-V2."""
    inputs, forecast = SamplingRecipe(kind="reverse").curves(300)
    assert [inputs.at(step, 300) for step in (0, 99, 100)] == [0.5, 0.5, 0.5]
    assert inputs.at(120, 300) == pytest.approx(1 - 0.5 * torch.e**-1)
    assert [inputs.at(step, 300) for step in (200, 299)] == [1, 1]
    values = [forecast.at(step, 300) for step in (0, 100, 150, 200, 299)]
    assert values == [0.5, 0.5, pytest.approx(0.25), 0, 0]


@given(
    start=st.floats(0, 1),
    end=st.floats(0, 1),
    shape=st.sampled_from(["linear", "exponential"]),
    begin=st.integers(0, 50),
    length=st.integers(0, 50),
)
def test_curves_are_monotonic_from_start_to_end(
    start: float, end: float, shape: str, begin: int, length: int
) -> None:
    curve = Curve(start=start, end=end, shape=shape, begin=begin, until=begin + length)
    values = [curve.at(step, 200) for step in range(120)]
    assert values[:begin] == [start] * begin
    assert values[begin + length :] == [end] * (120 - begin - length)
    rising = sorted(values, reverse=start > end)
    assert values == pytest.approx(rising)
    assert all(0 <= value <= 1 for value in values)


def test_frames_are_fed_with_the_probability_of_their_curve(path: Path) -> None:
    sampling = {
        "inputs": {"start": 0.7, "end": 0.7},
        "forecast": {"start": 0.2, "end": 0.2},
    }
    settings = [("sampling", sampling), ("train.batch_size", 4000), ("data.input_frames", 3)]
    recipe = read_recipe(path, [*settings, ("data.horizon", 2)])
    fed = fed_frames(recipe, 5, 12)
    assert fed.shape == (4000, 4)
    assert fed.float().mean(dim=0).tolist() == pytest.approx([1, 0.7, 0.7, 0.2], abs=0.03)
    assert torch.equal(fed, fed_frames(recipe, 5, 12))
    assert not torch.equal(fed, fed_frames(recipe, 6, 12))
    other = read_recipe(path, [*settings, ("data.horizon", 2), ("train.seed", 1)])
    assert not torch.equal(fed, fed_frames(other, 5, 12))


def test_kinds_of_sampling(path: Path) -> None:
    def shares(kind: str, step: int) -> list[float]:
        settings = [("sampling.kind", kind), ("train.batch_size", 2000), ("train.steps", 300)]
        return fed_frames(read_recipe(path, settings), step, 300).float().mean(dim=0).tolist()

    assert shares("none", 0) == [1, 1, 0]
    assert shares("scheduled", 0) == [1, 1, 1]
    assert shares("scheduled", 299)[2] < 0.02
    assert shares("reverse", 0) == pytest.approx([1, 0.5, 0.5], abs=0.05)
    assert shares("reverse", 299) == [1, 1, 0]


@pytest.fixture
def network() -> torch.nn.Module:
    return zoo.create("ms-convlstm", hidden=4, layers=3).network


def test_optimizer_groups_by_learning_rate_and_frozen_weights(network: torch.nn.Module) -> None:
    settings = TrainRecipe(
        steps=10,
        lr=1e-2,
        schedule="cosine",
        lr_parts={"head.*": 1e-3, "layers.0.*": 5e-3},
        freeze=("embed.*", "layers.1.*"),
        optimizer="adamw",
        optimizer_options={"weight_decay": 0.1},
    )
    optimizer = create_optimizer(network, settings)
    names = {id(p): name for name, p in network.named_parameters()}
    for step in (0, 4, 9):
        create_schedule(optimizer, settings, 10).step_update(step)
        base = 1e-2 * (1 + torch.cos(torch.tensor(torch.pi * step / 10)).item()) / 2
        rates = {
            names[id(p)]: (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for p in group["params"]
        }
        assert rates["head.weight"] == (pytest.approx(base / 10), 0.1)
        assert rates["head.bias"] == (pytest.approx(base / 10), 0)
        assert rates["layers.0.gates.weight"][0] == pytest.approx(base / 2)
        assert rates["layers.2.gates.weight"][0] == pytest.approx(base)
        assert not any(n.startswith(("embed.", "layers.1.")) for n in rates)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "nadam", "rmsprop"])
def test_optimizers_by_name(network: torch.nn.Module, name: str) -> None:
    optimizer = create_optimizer(network, TrainRecipe(steps=1, optimizer=name, lr=0.5))
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name", ["constant", "cosine", "tanh", "step", "multistep", "poly"])
def test_schedules_by_name(network: torch.nn.Module, name: str) -> None:
    options = {"decay_rate": 0.5, "decay_epochs": 6, "decay_milestones": [6]}
    settings = TrainRecipe(
        steps=20, lr=0.5, schedule=name, schedule_options=options, warmup_steps=4
    )
    optimizer = create_optimizer(network, settings)
    schedule = create_schedule(optimizer, settings, 20)
    rates = []
    for step in range(20):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:5] == sorted(rates[:5])
    assert rates[4] > 0.4
    assert (rates[19] == 0.5) == (name == "constant")


@pytest.mark.parametrize("lr", [1e-7, 1e-5, 3e-4])
def test_warmup_rises_to_the_learning_rate(network: torch.nn.Module, lr: float) -> None:
    settings = TrainRecipe(steps=20, lr=lr, warmup_steps=4)
    optimizer = create_optimizer(network, settings)
    schedule, rates = create_schedule(optimizer, settings, 20), []
    for step in range(6):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == min(1e-5, lr / 10)  # timm starts at 1e-5
    assert rates[:5] == sorted(set(rates[:5]))
    assert rates[4:] == [lr, lr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamm"}, r"'adamm'.*adam"),
        ({"optimizer": "fusedadam"}, r"fusedadam"),
        ({"optimizer_options": {"betas": [0.9]}}, r"train\.optimizer_options: .*adam"),
        (
            {"optimizer": "sgd", "optimizer_options": {"weight_decay": "x"}},
            r"train\.optimizer_options: .*sgd",
        ),
        ({"optimizer": "adahessian"}, r"train\.optimizer_options: .*adahessian"),
        ({"optimizer_options": {"betass": [0, 0]}}, r"train\.optimizer_options: .*adam.*betass"),
        ({"schedule": "step", "schedule_options": {"decay_epochs": 0}}, r"schedule_options: "),
        ({"schedule": "multistep", "schedule_options": {"decay_milestones": [2, "a"]}}, "'str'"),
        ({"schedule": "cosine", "schedule_options": {"cycle_mul": 0}}, r"schedule_options: "),
        ({"schedule_options": {"decay_rat": 1}}, r"train\.schedule_options: .*'decay_rat'"),
        ({"schedule_options": {"warmup_epochs": 1}}, r"train\.schedule_options: .*warmup_epochs"),
        ({"freeze": ("*",)}, r"train\.freeze"),
        ({"freeze": ("layer.*",)}, r"'layer\.\*'"),
        ({"lr_parts": {"heads.*": 1.0}}, r"'heads\.\*'"),
    ],
)
def test_invalid_optimizers_and_schedules_are_refused(
    network: torch.nn.Module, changes: dict, message: str
) -> None:
    settings = TrainRecipe(steps=10, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        create_schedule(create_optimizer(network, settings), settings, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted(CARDS.glob("*/recipe*.toml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_recipes_of_the_cards_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    if recipe.init is not None:  # a later stage
        before = recipe.init.removeprefix(f"local-dir:runs/{path.parent.name}-")
        assert path.with_name(f"recipe-{before}.toml").is_file()
        return
    assert path.parent.name.startswith(str(recipe.model["name"]))
    assert resolve(recipe).train == recipe.train


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_recipes_of_the_papers_are_valid(path: Path) -> None:
    recipe = resolve(read_recipe(path))
    name, data = path.stem.rsplit("-", 1)
    assert recipe.model["name"] == ALIASES.get(name, name)
    assert (recipe.model["layers"], recipe.model["hidden"], recipe.model["patch"]) == (6, 32, 1)
    assert recipe.data.name == data
    assert recipe.data.input_frames == (10 if data in ("mmnist", "kth") else 4)
    assert (recipe.sampling.kind == "reverse") == ("predrnnv2" in name)
    assert len(path.read_text().splitlines()) < 20


def test_recipes_in_the_documentation_are_valid(tmp_path: Path) -> None:
    text = (CARDS.parent / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 12
    for block in blocks:
        path = tmp_path / "recipe.toml"
        rest = "" if "[train]" in block else RECIPE[RECIPE.index("[train]") :]
        model = "" if "init =" in block or "[model]" in block else '[model]\nname = "mslstm"\n'
        path.write_text(block + model + '[data]\nname = "mmnist"\n' + rest)
        assert resolve(read_recipe(path)).model["name"] == "ms-mklstm"


def test_every_cell_has_recipes_for_the_four_data_sets() -> None:
    own = {p.name for p in (CARDS.parent / "plugins").glob("*.py")}
    names = [n for n in architectures() if f"zoo_{n.removeprefix('ms-')}.py" in own]
    recipes = {path.stem for path in PAPERS}
    titles = {alias: name for name, alias in ALIASES.items() if name == "mslstm"}
    for name in names:
        if "openstl" not in name:  # exists for converted checkpoints only
            for data in ("mmnist", "kth", "taxibj", "dwd"):
                assert f"{titles.get(name, name)}-{data}" in recipes
    assert len(recipes) == 88


def test_every_key_is_documented() -> None:
    """The docstrings are the reference of recipe keys."""
    tables = [field.annotation for field in Recipe.model_fields.values()]
    for table in [Recipe, Curve, *(t for t in tables if hasattr(t, "model_fields"))]:
        for key in table.model_fields:
            assert re.search(rf"^\s+{key}: ", table.__doc__ or "", re.MULTILINE), key


@pytest.mark.parametrize(("head", "l1"), [("frame", 1), ("change", 0), ("gate", 0), ("advect", 0)])
def test_default_l1_depends_on_the_head(path: Path, head: str, l1: float) -> None:
    settings: list[tuple[str, Any]] = [("model.head", head)]
    assert read_recipe(path, settings).loss.l1 is None
    assert resolve(read_recipe(path, settings)).loss.l1 == l1
    assert resolve(read_recipe(path, [*settings, ("loss.l1", 0.3)])).loss.l1 == 0.3


def test_terms_replace_the_default_loss_and_are_saved_with_all_options(
    path: Path, noise_root: Path, tmp_path: Path
) -> None:
    settings: list[tuple[str, Any]] = [("loss.terms.facl", {"weight": 0.5})]
    loss = resolve(read_recipe(path, settings)).loss
    assert (loss.l1, loss.l2) == (0, 0)
    assert loss.terms == {"facl": {"weight": 0.5, "alpha": 0.1}}
    assert resolve(read_recipe(path, [*settings, ("loss.l2", 2)])).loss.l2 == 2
    run = tmp_path / "run"
    train(path, run, data_root=noise_root, settings=settings, max_minutes=0)
    saved = read_recipe(run / "recipe.toml")
    assert saved.loss == loss
    assert resolve(saved) == saved
    # A weight may change when the run is resumed.
    train(
        run / "recipe.toml",
        run,
        resume=True,
        data_root=noise_root,
        settings=[("loss.terms.facl.weight", 0.1)],
        max_minutes=0,
    )
    assert read_recipe(run / "recipe.toml").loss.terms["facl"]["weight"] == 0.1


def test_resolved_l1_is_saved_with_the_run(path: Path, noise_root: Path, tmp_path: Path) -> None:
    for l1, settings in ((0, []), (0.3, [("loss.l1", 0.3)])):
        run = tmp_path / str(l1)
        settings = [("model.head", "change"), *settings]
        train(path, run, data_root=noise_root, settings=settings, max_minutes=0)
        assert f"\nl1 = {l1:.1f}\n" in (run / "recipe.toml").read_text()
        assert read_recipe(run / "recipe.toml").loss.l1 == l1
