"""CONTRIBUTING.md does what it says: every command in it, in its order, in one folder."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import snippets

from zoo.hub.card import UNWRITTEN
from zoo.plugins import forget

ROOT = Path(__file__).parents[1]
BLOCKS = snippets.read_blocks(ROOT / "CONTRIBUTING.md")
README = snippets.read_blocks(ROOT / "README.md")
#: By name of a plugin in the text, the group and the line of its entry point.
ENTRIES = {
    name: (group, f"{name} = {value}")
    for name, value, group in re.findall(
        r'`(\w+) = "(\S+)"`\sunder\s`\[project\.entry-points\."(zoo\.\w+)"\]`',
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    )
}
#: Replacements in recipes, to train for two steps instead of thousands.
SHORTER = {"steps = 4000": "steps = 2", "warmup_steps = 200": "warmup_steps = 0"}


@pytest.fixture
def folder(tmp_path, monkeypatch, noise_root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(noise_root))
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path
    forget()


@pytest.mark.slow
def test_commands_take_a_plugin_to_published_weights(folder):
    ran = []
    for language, source in BLOCKS:
        if language == "console":
            for line in source.splitlines():
                arguments = shlex.split(line.removeprefix("$ "), comments=True)[1:]
                zoo(arguments)
                ran.append(arguments[0])
        elif language == "sh" and "zoo-rain" in source:
            shell(source)
        elif language == "python" and (file := re.match(r"# (zoo_(\w+))\.py\n", source)):
            plugin(folder / "site", file[1], *ENTRIES[file[2]], source)
        elif language == "python":
            names: dict[str, object] = {}
            exec(source, names)
            assert names["model"].config.head == "fade"
    assert ran == [
        *("new", "check", "train", "eval", "cost", "demo", "card", "publish", "publish", "pull"),
        *("data", "data", "eval"),
    ]
    assert (folder / "shared" / "ms-rain-mmnist" / "model.safetensors").is_file()


@pytest.mark.slow
def test_four_commands_of_the_readme(folder, monkeypatch):
    (source,) = (source for _, source in README if "zoo train cards/ms-mycell" in source)
    lines = [shlex.split(line, comments=True) for line in source.splitlines()]
    new, check, train, last = (line[1:] for line in lines if line[0] == "zoo")
    assert [new, check, train[0], last[0]] == [
        *(["new", "zoo-mycell"], ["check", "mycell"], "train", "publish"),
    ]
    zoo(new)  # what it writes is checked in test_wheel.py
    (folder / "site").mkdir()
    source = (folder / "zoo-mycell" / "zoo_mycell.py").read_text()
    plugin(folder / "site", "zoo_mycell", "zoo.cells", "mycell = zoo_mycell:Mycell", source)
    monkeypatch.chdir("zoo-mycell")
    zoo([*train, "--card-sequences", "4"])
    zoo([*last, "--dry-run"])
    zoo([*last[:2], "ms-mycell-mmnist", "--hub", "shared"])
    assert Path("shared/ms-mycell-mmnist/model.safetensors").is_file()


def test_copied_model_has_the_files_of_built_in_models(tmp_path):
    model = ROOT / "cards" / "mslstm-mmnist"
    run = shutil.copytree(model, tmp_path / "runs" / "NAME")
    for name in ("run.json", "log.jsonl", "checkpoints/1.safetensors"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).touch()
    (tmp_path / "cards").mkdir()
    (source,) = (source for _, source in BLOCKS if "cards/NAME" in source)
    commands = source[: source.index("python")]  # the last line updates the README
    subprocess.run(commands, shell=True, check=True, cwd=tmp_path)
    copied = {path.name for path in (tmp_path / "cards" / "NAME").iterdir()}
    assert copied == {path.name for path in model.iterdir()}
    assert (tmp_path / "cards" / "SHA256SUMS").read_text().endswith("NAME/model.safetensors\n")


def zoo(arguments):
    """Run a command, after the edits that a person would make, and with little work."""
    if arguments[0] == "train":
        recipe = Path(arguments[1])
        text = recipe.read_text()
        for old, new in SHORTER.items():
            assert old in text
            text = text.replace(old, new)
        recipe.write_text(text)
    if arguments[0] == "eval":
        arguments = [*arguments, "--sequences", "4"]
    if arguments[0] == "publish":
        card = Path(arguments[1]) / "README.md"
        card.write_text(card.read_text().replace(UNWRITTEN, "A person says this."))
    snippets.run_zoo(arguments)


def plugin(site, module, group, entry, source):
    """Install a module with its entry point, as pip would leave it."""
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    forget()


def shell(source):
    """Run a line of shell; an installation goes where this process finds it."""
    if source.startswith("pip install"):
        snippets.install(Path("zoo-rain"))
    else:
        subprocess.run(source, shell=True, check=True)
