"""The README does what it says: its snippets run, and its table is that of the cards.

`python tests/test_readme.py` updates the table, and `cards/results.csv`.
"""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import snippets

from zoo.data import data_root
from zoo.errors import ZooError
from zoo.hub.results import models_tables, results_table
from zoo.model_folder import read_metrics
from zoo.plugins import forget

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CARDS = ROOT / "cards"
RESULTS = CARDS / "results.csv"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = snippets.read_blocks(README)
NEEDS_DATA = {"train", "eval"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One folder for all snippets, which build upon one another."""
    (tmp_path / "cards").symlink_to(CARDS)
    monkeypatch.setenv("ZOO_DATA", str(data_root().resolve()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path
    forget()


def limit_work(arguments: list[str]) -> list[str] | None:
    """Skip commands whose data are missing, and stop training at once."""
    if arguments[0] in NEEDS_DATA and not (data_root() / "mnist").is_dir():
        return None
    return [*arguments, "--max-minutes", "0"] if arguments[0] == "train" else arguments


def install_project(source: str) -> None:
    """Install the plugin that the snippets before have written, before it is used."""
    if "convgru" in source:
        snippets.install(Path())


@pytest.mark.slow
@pytest.mark.skipif(
    not (CARDS / "mslstm-mmnist" / "model.safetensors").is_file(),
    reason="the README's pretrained model is not in cards/",
)
def test_snippets(folder: Path) -> None:
    names = snippets.run_page(README, before=limit_work, before_python=install_project)
    assert names["future"].shape == (20, 1, 64, 64)
    assert names["predictions"].shape == (1, 7, 2, 48, 40)
    assert names["nowcast"].shape == (6, 64, 64)
    assert names["pyramid"].config.options == {"kernel_size": 5}


def test_second_command_is_the_one_that_ci_runs() -> None:
    """`.ci/run` installs and tests with the same words."""
    commands = [source.strip() for language, source in BLOCKS if language == "sh"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    tasks = dict(re.findall(r"^(\w+)\(\) \{ (.*); \}$", script, re.MULTILINE))
    assert commands[0] == "pip install . && zoo demo"
    assert commands[1] == f"{tasks['install']} && {tasks['test']}"
    assert script.endswith("\ninstall\nlint\ndocs\ntest\n")


def test_table_is_that_of_the_cards() -> None:
    assert written() == TEXT, "out of date: python tests/test_readme.py"


def test_results_are_those_of_the_cards() -> None:
    expected = results_table(CARDS)
    assert RESULTS.read_text(encoding="utf-8") == expected, "python tests/test_readme.py"


def test_scores_of_different_protocols_have_rows_of_their_own(tmp_path: Path) -> None:
    metrics = read_metrics(CARDS / "convlstm-mmnist")
    for name, protocol in (("a", "1" * 12), ("b", "2" * 12), ("c", None), ("d", "1" * 12)):
        shutil.copytree(CARDS / "convlstm-mmnist", tmp_path / name)
        if protocol:
            metrics["protocol"] = {"id": protocol}
        else:
            metrics.pop("protocol", None)
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    rows = [*csv.DictReader(results_table(tmp_path).splitlines())]
    forecasts = [row for row in rows if row["frames"] == "forecast"]
    assert len(rows) == 2 * len(forecasts) == 14
    protocols = {row["name"]: row["protocol"] for row in forecasts if row["architecture"]}
    assert protocols["a"] == protocols["d"] == "1" * 12
    assert protocols["b"] == "2" * 12
    assert protocols["c"].startswith("data-")
    baselines = [row["protocol"] for row in forecasts if not row["architecture"]]
    assert sorted(baselines) == sorted({*protocols.values()})  # persistence once for each
    first = next(row for row in forecasts if row["name"] == "a")
    assert float(first["mse"]) == pytest.approx(metrics["forecast"]["model"]["mse"], 1e-5)


def test_table_rejects_scores_of_different_data(tmp_path: Path) -> None:
    metrics = read_metrics(CARDS / "convlstm-mmnist")
    for name, sequences in (("a", 10_000), ("b", 10_000), ("c", 100)):
        (tmp_path / name).mkdir()
        metrics["data"]["sequences"] = sequences
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
        if name == "b":
            assert models_tables(tmp_path).count("\n| ") == 4  # the header, two models, persistence
    with pytest.raises(ZooError, match=r"\bc\b"):
        models_tables(tmp_path)


def test_data_with_different_titles_have_tables_of_their_own(tmp_path: Path) -> None:
    metrics = read_metrics(CARDS / "convlstm-mmnist")
    for title, sequences in (("Buses", 10), ("Trains", 20)):
        (tmp_path / title).mkdir()
        metrics["data"] |= {"name": "arrays", "title": title, "sequences": sequences}
        (tmp_path / title / "metrics.json").write_text(json.dumps(metrics))
    tables = models_tables(tmp_path).split("\n\n")
    assert tables[0] == "**Buses**, 10 test sequences:"
    assert tables[2] == "**Trains**, 20 test sequences:"
    assert "all steps" not in tables[1]  # published tables are of other data


def written() -> str:
    """The README with the table as the cards have it."""
    if not any(CARDS.glob("*/metrics.json")):
        return TEXT
    parts = re.split(r"(<!-- /?models -->)", TEXT)
    assert [parts[1], parts[3]] == ["<!-- models -->", "<!-- /models -->"]
    parts[2] = f"\n{models_tables(CARDS)}\n"
    return "".join(parts)


if __name__ == "__main__":
    README.write_text(written(), encoding="utf-8")
    RESULTS.write_text(results_table(CARDS), encoding="utf-8")
