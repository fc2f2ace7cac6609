"""Untrusted cards: any content of a model folder gives a clear error or a card."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from test_untrusted_runs import HOSTILE_RECIPES, HOSTILE_TEXTS, METRICS, OFTEN, VALUES, no_hang

from zoo.errors import HubError, ZooError
from zoo.hub.card import read_card, write_card
from zoo.hub.publish import publish

CARDS = Path(__file__).parents[1] / "cards"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(CARDS / "convlstm-mmnist", tmp_path / "models" / "mine")


def attempt(folder: Path) -> None:
    """Write and publish the card; errors have one line."""
    with no_hang():
        for command in (write_card, lambda it: publish(it, "name", hub=str(it.parents[1] / "hub"))):
            try:
                command(folder)
            except ZooError as error:
                assert str(error).isprintable()  # noqa: PT017
                assert len(str(error)) < 2000  # noqa: PT017


METADATA = {
    "nothing": "",
    "text": "x",
    "list": "[1]",
    "unclosed": "[" * 60_000,
    "long": "x: " + "y" * 1_000_000,
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "code": "license: !!python/object/apply:os.system ['touch executed']",
    "key that is a list": "? [a]\n: b",
    "key that is a number": "1: 2",
    "own argument": "self: 1",
    "date": "x: 2020-99-99",
    "long number": f"x: {'9' * 5_000}",
    "tags": "tags: [1, [2], {a: b}]\nlicense: [mit]\ndatasets: 3",
    "tag": "tags: 5",
    "model-index": "model-index: 7",
    "eval_results": "eval_results: [1]",
    "value": "model-index:\n- name: x\n  results:\n  - task: {type: a}\n    dataset: {type: b, "
    "name: c}\n    metrics:\n    - {type: x, value: [1]}",
    "half a character": 'license: "\\ud800"',
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_hostile_metadata_are_an_error_or_written_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "README.md").write_text(f"---\n{metadata}\n---\nMine.\n")
    attempt(folder)
    assert "Mine." in (folder / "README.md").read_text()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("metadata", ["aliases", "long", "list", "code"])
def test_unusable_metadata_are_refused(folder: Path, metadata: str) -> None:
    (folder / "README.md").write_text(f"---\n{METADATA[metadata]}\n---\nMine.\n")
    with pytest.raises(HubError, match="metadata"):
        read_card(folder)


@pytest.mark.parametrize(
    "unit",
    ["<!-- summary -->", "---\n", "---\n---x\n", "\n", "- - -", "\n## ", "<!-- /cost -->", "```"],
)
def test_card_of_a_repeated_mark_takes_time_in_proportion_to_its_size(
    folder: Path, unit: str
) -> None:
    """A search that begins at every mark and never ends would take hours for four megabytes."""
    size = 4_000_000 // len(unit)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n" + unit * size)
    attempt(folder)


def test_text_around_unclosed_marks_is_preserved(folder: Path) -> None:
    text = "before <!-- results --> between <!-- summary --> after"
    (folder / "README.md").write_text(text)
    write_card(folder, "mit")
    written = (folder / "README.md").read_text()
    assert text in written
    assert read_card(folder).data.license == "mit"
    write_card(folder)
    assert (folder / "README.md").read_text() == written


def test_block_that_would_end_itself_is_refused(folder: Path) -> None:
    (folder / "recipe.toml").write_text("# <!-- /training -->\na = 1\n")
    with pytest.raises(HubError, match="training"):
        write_card(folder)


@pytest.mark.parametrize("kind", sorted(HOSTILE_RECIPES.keys() - {"list"}))  # [1] is a table
def test_hostile_recipe_gets_no_card(folder: Path, kind: str) -> None:
    (folder / "recipe.toml").write_bytes(HOSTILE_RECIPES[kind])
    with no_hang(), pytest.raises(HubError, match=r"recipe\.toml"):
        write_card(folder)


@pytest.mark.parametrize("content", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
def test_hostile_metrics_get_no_card(folder: Path, content: bytes) -> None:
    (folder / "metrics.json").write_bytes(content)
    with no_hang(), pytest.raises(HubError, match=r"metrics\.json"):
        write_card(folder)


@pytest.mark.parametrize("key", ["training", "data", "forecast", "all-steps"])
@pytest.mark.parametrize("change", ["missing", "null"])
def test_incomplete_metrics_are_an_error(folder: Path, cli: Cli, key: str, change: str) -> None:
    metrics = dict(METRICS)
    if change == "missing":
        del metrics[key]
    else:
        metrics[key] = None
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert key in cli.fail("card", folder)
    cli.fail("publish", folder, "name", "--hub", folder.parent / "hub")


@pytest.mark.parametrize(
    "change",
    [
        {"forecast": {"model": {"mse": [1]}, "persistence": {}}},
        {"forecast": {**METRICS["forecast"], "other": {"mse": 1.0}}},
        {"per_frame": {"model": {"mse": [1.0]}}},
        {"per_frame": {"model": 1}},
        {"data": METRICS["data"] | {"horizon": 0}},
        {"training": METRICS["training"] | {"steps": 10**400}},
        {"training": METRICS["training"] | {"minutes": "1e999"}},
        {"cost": {"macs": -1, "parameters": 1, "size": [1], "input_frames": 1, "horizon": 1}},
    ],
    ids=str,
)
def test_invalid_metrics_get_no_card(folder: Path, cli: Cli, change: dict[str, Any]) -> None:
    (folder / "metrics.json").write_text(json.dumps(METRICS | change).replace('"1e999"', "1e999"))
    assert "metrics.json" in cli.fail("card", folder)


@OFTEN
@given(data=st.data())
def test_any_value_in_metrics_gives_an_error_or_a_card(tmp_path: Path, data: Any) -> None:
    folder = tmp_path / "models" / "mine"
    shutil.rmtree(tmp_path / "models", ignore_errors=True)
    shutil.copytree(CARDS / "convlstm-mmnist", folder)
    values = json.loads((folder / "metrics.json").read_text())
    holder = values
    while inner := [value for value in holder.values() if isinstance(value, dict) and value]:
        if not data.draw(st.booleans(), "deeper"):
            break
        holder = data.draw(st.sampled_from(inner), "table")
    key = data.draw(st.sampled_from(sorted(holder)) | st.text(max_size=5), "key")
    holder[key] = data.draw(VALUES, "value")
    (folder / "metrics.json").write_text(json.dumps(values))
    attempt(folder)


@pytest.mark.parametrize("name", ["\x1b[31m", "a\nb", os.fsdecode(b"\xff")])
def test_name_that_cannot_be_printed_gets_no_card(folder: Path, cli: Cli, name: str) -> None:
    folder = folder.rename(folder.with_name(name))
    assert cli.fail("card", folder).isprintable()


def test_names_of_foreign_metrics_stay_in_their_cells(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    for protocol in ("forecast", "all-steps"):
        metrics[protocol]["a | b\n## c"] = {"mse": 1.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert r"a \| b ## c" in text
    assert "\n## c" not in text
