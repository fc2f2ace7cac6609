"""CONTRIBUTING.md does what it says: every command in it, in its order, in one folder."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from zoo.cli import zoo as command
from zoo.hub.card import UNWRITTEN
from zoo.plugins import forget

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
README = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
#: Less work than is asked for, on noise for digits, where the text asks for a real run.
LITTLE = {"steps = 4000": "steps = 2", "warmup_steps = 200": "warmup_steps = 0"}


@pytest.fixture
def here(tmp_path, monkeypatch, noise_root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(noise_root))
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path
    forget()


def test_the_way_of_a_plugin_and_its_weights(here):
    ran = []
    for language, source in BLOCKS:
        if language == "console":
            for line in source.splitlines():
                arguments = shlex.split(line.removeprefix("$ "), comments=True)[1:]
                zoo(arguments)
                ran.append(arguments[0])
        elif language == "sh" and "zoo-rain" in source:
            shell(source, here)
        elif language == "python" and (file := re.match(r"# (zoo_(\w+))\.py\n", source)):
            plugin(here / "site", file[1], file[2], source)
    assert ran == [
        *("new", "check", "train", "eval", "cost", "demo", "card", "publish", "publish", "pull"),
        *("data", "data", "eval"),
    ]
    assert (here / "shared" / "ms-rain-mmnist" / "model.safetensors").is_file()


def test_the_four_commands_of_the_readme(here, monkeypatch):
    (source,) = (source for _, source in README if "zoo train cards/ms-mycell" in source)
    lines = [shlex.split(line, comments=True) for line in source.splitlines()]
    new, check, train, last = (line[1:] for line in lines if line[0] == "zoo")
    assert [new, check, train[0], last[0]] == [
        *(["new", "zoo-mycell"], ["check", "mycell"], "train", "publish"),
    ]
    zoo(new)  # what it writes is checked in test_wheel.py
    (here / "site").mkdir()
    plugin(here / "site", "zoo_mycell", "mycell", (here / "zoo-mycell/zoo_mycell.py").read_text())
    monkeypatch.chdir("zoo-mycell")
    zoo([*train, "--card-sequences", "4"])
    zoo([*last, "--dry-run"])
    zoo([*last[:2], "ms-mycell-mmnist", "--hub", "shared"])
    assert Path("shared/ms-mycell-mmnist/model.safetensors").is_file()


def test_what_becomes_a_model_of_the_zoos_own(tmp_path):
    """As much of a run as the models that are there have, and nothing of its author's machine."""
    model = ROOT / "cards" / "mslstm-mmnist"
    run = shutil.copytree(model, tmp_path / "runs" / "NAME")
    for name in ("run.json", "log.jsonl", "checkpoints/1.safetensors"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).touch()
    (tmp_path / "cards").mkdir()
    (source,) = (source for _, source in BLOCKS if "cards/NAME" in source)
    commands = source[: source.index("python")]  # what follows writes the README of the zoo
    subprocess.run(commands, shell=True, check=True, cwd=tmp_path)
    there = {path.name for path in (tmp_path / "cards" / "NAME").iterdir()}
    assert there == {path.name for path in model.iterdir()}
    assert (tmp_path / "cards" / "SHA256SUMS").read_text().endswith("NAME/model.safetensors\n")


def zoo(arguments):
    """Run a command; what a person would do before it is done."""
    if arguments[0] == "train":
        recipe = Path(arguments[1])
        text = recipe.read_text()
        for much, little in LITTLE.items():
            assert much in text
            text = text.replace(much, little)
        recipe.write_text(text)
    if arguments[0] == "eval":
        arguments = [*arguments, "--sequences", "4"]
    if arguments[0] == "publish":
        card = Path(arguments[1]) / "README.md"
        card.write_text(card.read_text().replace(UNWRITTEN, "A person says this."))
    ran = CliRunner().invoke(command, arguments)
    assert ran.exit_code == 0, f"zoo {shlex.join(arguments)}\n{ran.output}"


def plugin(site, module, name, source):
    """Install a module with its entry point, as pip would leave it."""
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo]\n{name} = {module}\n")
    forget()


def shell(source, here):
    """Run a line of shell; an installation goes where this process finds it."""
    if source.startswith("pip install"):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        to = ["--no-build-isolation", "--target", here / "site"]
        subprocess.run([*pip, *to, here / "zoo-rain"], check=True)
        forget()
    else:
        subprocess.run(source, shell=True, check=True)
