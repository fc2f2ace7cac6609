"""CONTRIBUTING.md does what it says: every command in it, in its order, in one folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from zoo.cli import zoo as command
from zoo.hub.card import UNWRITTEN
from zoo.plugins import forget

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
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
    assert ran == [
        *("new", "check", "train", "eval", "cost", "demo", "card", "publish", "publish", "pull")
    ]
    assert (here / "shared" / "ms-rain-mmnist" / "model.safetensors").is_file()


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


def shell(source, here):
    """Run a line of shell; an installation goes where this process finds it."""
    if source.startswith("pip install"):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        to = ["--no-build-isolation", "--target", here / "site"]
        subprocess.run([*pip, *to, here / "zoo-rain"], check=True)
        forget()
    else:
        subprocess.run(source, shell=True, check=True)
