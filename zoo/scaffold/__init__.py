"""New plugin projects, complete and working, as a starting point.

The files in ``template`` are a project with a cell named ``mycell``; only names are replaced.
"""

from __future__ import annotations

import keyword
import os
import re
from importlib.metadata import version
from pathlib import Path

from zoo.atomic import atomic_folder
from zoo.errors import ConfigError
from zoo.plugins import DISTRIBUTION, installed
from zoo.registry import ALIASES, MULTISCALE

__all__ = ["new_project"]

TEMPLATE = Path(__file__).parent / "template"


def new_project(name: str, folder: Path | None = None) -> tuple[Path, str]:
    """Write a plugin project and return its folder and the name of its cell.

    Args:
        name: the name of the distribution, such as "zoo-mycell"; the cell is called "mycell".
        folder: a new folder; by default the name.

    Raises:
        ConfigError: if the name is invalid or taken, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or name == "zoo":
        raise ConfigError(
            f"{name!r} is not a valid plugin name; use lower-case letters and digits, with '-' "
            "between words, such as zoo-mycell"
        )
    taken = {plugin.name: plugin.distribution for plugin in installed()}
    if name in {DISTRIBUTION, *taken.values()}:
        raise ConfigError(f"the distribution {name} is already installed; choose another name")
    cell = name.removeprefix("zoo-").replace("-", "_")
    cell_class = "".join(word.capitalize() for word in cell.split("_"))
    if not cell_class.isidentifier() or keyword.iskeyword(cell_class):
        raise ConfigError(
            f"{name!r} makes {cell_class} the class of the cell, which is not a valid Python name; "
            f"choose another name, such as zoo-my{cell}"
        )
    if cell in {*taken, *ALIASES, MULTISCALE}:
        owner = taken.get(cell, DISTRIBUTION)
        raise ConfigError(f"the name {cell!r} is taken by {owner}; choose another")
    folder = folder or Path(name)
    if os.path.exists(folder):
        raise ConfigError(f"{folder} exists; choose another folder: zoo new {name} -o FOLDER")
    names = {
        "zoo-mycell": name,
        "mycell": cell,
        "MyCell": cell_class,
        ">=0.0.0": f">={version(DISTRIBUTION)}",
    }
    with atomic_folder(folder) as temporary:
        for source in sorted(TEMPLATE.rglob("*")):
            if source.is_dir() or "__pycache__" in source.parts:  # from an installation
                continue
            target = _renamed(source.relative_to(TEMPLATE).as_posix(), names)
            path = temporary / re.sub(r"^git(?=hub/|ignore$)", ".git", target)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_renamed(source.read_text("utf-8"), names), encoding="utf-8")
        _write_card(temporary / "cards" / f"ms-{cell}-mmnist" / "README.md")
    return folder, cell


def _renamed(text: str, names: dict[str, str]) -> str:
    """The text with all names replaced at once, the longest first."""
    return re.sub("|".join(sorted(names, key=len, reverse=True)), lambda m: names[m[0]], text)


def _write_card(path: Path) -> None:
    from zoo.hub.card import TEMPLATE as CARD

    path.write_text(f"---\nlicense: apache-2.0\n---\n{CARD}", encoding="utf-8")
