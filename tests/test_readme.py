"""The README does what it says: its snippets run, its table is that of the cards.

`python tests/test_readme.py` writes the table anew.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from zoo.cli import zoo as command
from zoo.data import data_root
from zoo.errors import ZooError
from zoo.hub.card import models_table
from zoo.model_folder import read_metrics
from zoo.plugins import forget

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CARDS = ROOT / "cards"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
NEEDS_DATA = {"train", "eval"}


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all snippets, which build upon one another."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "cards").symlink_to(CARDS)
    published = load_file(ROOT / "tests" / "golden" / "MS-PredRNN.safetensors")
    weights = {name: tensor for name, tensor in published.items() if not name.startswith("__")}
    torch.save(weights, folder / "checkpoint.pth")
    yield folder
    forget()


def run(line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    if arguments[0] in NEEDS_DATA and not (data_root() / "mnist").is_dir():
        return
    if arguments[0] == "train":
        arguments += ["--max-minutes", "0"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.skipif(
    not (CARDS / "mslstm-mmnist" / "model.safetensors").is_file(),
    reason="the README's pretrained model is not in cards/",
)
def test_snippets(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATA", str(data_root().resolve()))
    monkeypatch.chdir(here)
    names: dict[str, object] = {"__name__": "readme"}
    for language, source in BLOCKS:
        if file := re.match(r"# (\S+\.\w+)\n", source):
            Path(file[1]).write_text(source, encoding="utf-8")
        elif language == "python":
            if "convgru" in source:
                install(here, monkeypatch)
            exec(compile(source, README, "exec"), names)
        elif language == "console":
            for line in source.splitlines():
                run(line.removeprefix("$ "))
    assert names["future"].shape == (20, 1, 64, 64)
    assert names["predictions"].shape == (1, 7, 2, 48, 40)
    assert names["pyramid"].config.options == {"kernel_size": 5}


def install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the plugin that the snippets before have written."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", here / "site", here], check=True)
    monkeypatch.syspath_prepend(here / "site")
    forget()


def test_table() -> None:
    assert written() == TEXT, "the cards have changed: python tests/test_readme.py"


def test_figures_of_different_data_are_not_set_side_by_side(tmp_path: Path) -> None:
    metrics = read_metrics(CARDS / "convlstm-mmnist")
    for name, sequences in (("a", 10_000), ("b", 10_000), ("c", 100)):
        (tmp_path / name).mkdir()
        metrics["data"]["sequences"] = sequences
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
        if name == "b":
            assert models_table(tmp_path).count("\n") == 4
    with pytest.raises(ZooError, match="measured on other data or frames"):
        models_table(tmp_path)


def written() -> str:
    """The README with the table as the cards have it."""
    if not any(CARDS.glob("*/metrics.json")):
        return TEXT
    parts = re.split(r"(<!-- /?models -->)", TEXT)
    assert [parts[1], parts[3]] == ["<!-- models -->", "<!-- /models -->"]
    parts[2] = f"\n{models_table(CARDS)}\n"
    return "".join(parts)


if __name__ == "__main__":
    README.write_text(written(), encoding="utf-8")
