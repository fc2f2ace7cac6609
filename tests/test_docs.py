"""Tutorials and guides run as they are printed, with less training; the reference is complete."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import snippets
import torch
from safetensors.torch import load_file

import zoo
from zoo.cli import zoo as command
from zoo.data.clips import handwritten_digits
from zoo.hub.card import UNWRITTEN
from zoo.plugins import forget
from zoo.train import recipe
from zoo.train.model import resolve
from zoo.train.objective import Objective

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise_root: Path) -> Iterator[Path]:
    """An empty working folder; the digits of the data set are noise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(noise_root))
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("zoo_convgru")]:
        del sys.modules[name]
    forget()


@pytest.mark.slow
def test_first_forecast(folder: Path) -> None:
    names = snippets.run_page(TUTORIALS / "first-forecast.md")
    assert names["forecast"].dtype == np.uint8
    assert names["longer"].shape == (15, 1, 64, 128)
    assert names["mse"](names["forecast"]) < names["mse"](names["baseline"])
    assert (folder / "future.gif").is_file()


@pytest.mark.slow
def test_see_inside(folder: Path) -> None:
    names = snippets.run_page(TUTORIALS / "see-inside.md")
    assert names["outputs"]["layer0"].shape == (1, 14, *names["outputs"]["layer0"].shape[2:])
    assert names["fields"][-1].theoretical > (7, 7)
    assert abs(names["error"]) < 0.1
    for figure in ("layers", "field", "gates", "attribution"):
        assert (folder / f"{figure}.png").is_file()


@pytest.mark.slow
def test_own_data(folder: Path) -> None:
    fewer = {"steps = 300": "steps = 2", "hidden = 16": "hidden = 4"}
    names = snippets.run_page(TUTORIALS / "own-data.md", replace=fewer)
    assert names["future"].shape == (6, 16, 16)
    assert names["future"].attrs["units"] == "mm/h"
    after = names["future"].time.values[0] - names["rain"].time.values[-1]
    assert after == np.timedelta64(5, "m")
    assert (folder / "report" / "report.json").is_file()
    assert (folder / "future.nc").is_file()


@pytest.mark.slow
def test_train_and_resume(folder: Path) -> None:
    fewer = {
        "steps = 400": "steps = 3",
        "steps = 200": "steps = 1",
        "hidden = 16": "hidden = 4",
        "checkpoint_every = 100": "checkpoint_every = 1",
    }

    def few_sequences(arguments: list[str]) -> list[str]:
        return [{"100": "4"}.get(argument, argument) for argument in arguments]

    page = TUTORIALS / "train-and-resume.md"
    snippets.run_page(page, replace=fewer, before=few_sequences)
    assert (folder / "runs" / "finetuned" / "model.safetensors").is_file()


@pytest.mark.slow
def test_own_cell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(arguments: list[str]) -> list[str]:
        if arguments[0] == "train":
            path = Path(arguments[1])
            text = path.read_text(encoding="utf-8")
            for old, new in (("steps = 4000", "steps = 2"), ("warmup_steps = 200", "")):
                assert old in text
                text = text.replace(old, new)
            path.write_text(text.replace("hidden = 32", "hidden = 4"), encoding="utf-8")
            arguments = [*arguments, "--card-sequences", "4"]
        if arguments[0] == "publish":
            card = Path(arguments[1]) / "README.md"
            text = card.read_text(encoding="utf-8")
            card.write_text(text.replace(UNWRITTEN, "Described."), encoding="utf-8")
        return arguments

    names = snippets.run_page(TUTORIALS / "own-cell.md", before=prepare)
    assert names["pyramid"].config.options == {"kernel_size": 5}
    assert (folder / "shared" / "ms-convgru-mmnist" / "model.safetensors").is_file()


def test_hubs(folder: Path) -> None:
    (folder / "cards").symlink_to(ROOT / "cards")
    snippets.run_page(ROOT / "docs" / "hubs.md")
    assert (folder / "shared" / "mslstm-ours" / "model.safetensors").is_file()


def test_convert(folder: Path) -> None:
    published = load_file(ROOT / "tests" / "golden" / "MS-PredRNN.safetensors")
    weights = {name: tensor for name, tensor in published.items() if not name.startswith("__")}
    torch.save(weights, folder / "checkpoint.pth")
    np.save(folder / "clip.npy", handwritten_digits()[:10])
    snippets.run_page(ROOT / "docs" / "convert.md")
    assert (folder / "converted.gif").is_file()


def test_inputs(folder: Path) -> None:
    names = snippets.run_page(ROOT / "docs" / "inputs.md")
    assert names["future"].shape == (6, 1, 10, 20)
    assert names["frame"].shape == (10, 20)
    blocks = [
        text for kind, text in snippets.read_blocks(ROOT / "docs/inputs.md") if kind == "toml"
    ]
    for block, channels in zip(blocks, (5, 1), strict=True):
        (folder / "recipe.toml").write_text(block)
        model = resolve(recipe.read_recipe(folder / "recipe.toml")).model
        assert zoo.create(**model).config.read_channels == channels


def test_ensembles(folder: Path) -> None:
    page = ROOT / "docs" / "ensembles.md"
    names = snippets.run_page(page)
    assert names["members"].shape == (20, 6, 1, 10, 20)
    (block,) = [text for kind, text in snippets.read_blocks(page) if kind == "toml"]
    (folder / "recipe.toml").write_text(block)
    resolved = resolve(recipe.read_recipe(folder / "recipe.toml"))
    assert Objective(zoo.create(**resolved.model), resolved.loss).members == 2


def test_losses_and_metrics_of_the_guide_keep_their_contracts() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"^```python\n(# zoo_.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(block, names)
    forecast, truth = torch.rand(2, 2, 3, 1, 8, 8)
    known = torch.ones_like(truth, dtype=torch.bool)
    huber = names["Huber"](delta=0.2)
    loss = huber(forecast, truth, known, data=zoo.Data(), progress=0.0)
    assert loss.shape == (2,)
    assert not huber(truth, truth, known, data=zoo.Data(), progress=0.0).any()
    share = names["Within"]()(truth[0].double(), truth[0].double(), known[0], data=zoo.Data())
    assert share.tolist() == [1, 1, 1]


def test_pages_are_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    entries = {
        line
        for source in re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL)
        for line in source.splitlines()
        if line and not line.startswith(":")
    }
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
    }
    assert entries == pages - {"index"}


def test_relative_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"


def test_reference_has_every_public_name() -> None:
    api = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\.\. (?:auto|py:)\w+:: zoo\.(\w+)$", api, re.MULTILINE)) - {
        "errors",
        "testing",
    } == set(zoo.__all__)


def test_reference_has_every_recipe_table() -> None:
    recipes = (ROOT / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. autoclass:: (\w+)", recipes, re.MULTILINE)
    assert set(documented) == {name for name in recipe.__all__ if name[0].isupper()}
    for table in re.findall(r"^\[(\w+)\]", recipes, re.MULTILINE):
        assert table in recipe.Recipe.model_fields


def test_reference_has_every_command() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    table = page.partition("`--help`")[0]
    assert set(re.findall(r"`zoo ([a-z]+)`", table)) == set(
        command.list_commands(click.Context(command))
    )
