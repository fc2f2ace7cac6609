"""A new plugin project, complete and working, for somebody to change.

The files under ``template`` are such a project, for a cell named ``mycell``; only names are
replaced in them.
"""

from __future__ import annotations

import keyword
import os
import re
from importlib.metadata import version
from pathlib import Path

from zoo.atomic import atomic_folder
from zoo.errors import ZooError
from zoo.plugins import DISTRIBUTION, installed
from zoo.registry import ALIASES

__all__ = ["new_project"]

TEMPLATE = Path(__file__).parent / "template"


def new_project(name: str, folder: Path | None = None) -> tuple[Path, str]:
    """Write a plugin project and return its folder and the name of its cell.

    Args:
        name: of the distribution, such as "zoo-mycell"; the cell is called "mycell".
        folder: a new one; by default the name.

    Raises ZooError for a name that cannot be used or is taken, and a folder that exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or name == "zoo":
        raise ZooError(
            f"{name!r} is no name for a plugin: small letters and digits, words joined by '-', "
            "such as zoo-mycell"
        )
    taken = {plugin.name: plugin.distribution for plugin in installed()}
    if name in {DISTRIBUTION, *taken.values()}:
        raise ZooError(f"the distribution {name} is installed; choose another name")
    cell = name.removeprefix("zoo-").replace("-", "_")
    cell_class = "".join(word.capitalize() for word in cell.split("_"))
    if not cell_class.isidentifier() or keyword.iskeyword(cell_class):
        raise ZooError(
            f"{name!r} gives the cell a class {cell_class}, which Python does not take; "
            f"choose another, such as zoo-my{cell}"
        )
    if cell in {*taken, *ALIASES} or cell == "ms":
        who = taken.get(cell, DISTRIBUTION)
        raise ZooError(f"the name {cell!r} is taken, by {who}; choose another")
    folder = folder or Path(name)
    if os.path.exists(folder):
        raise ZooError(f"{folder} exists already; choose another folder: zoo new {name} -o FOLDER")
    names = {
        "zoo-mycell": name,
        "mycell": cell,
        "MyCell": cell_class,
        ">=0.0.0": f">={version(DISTRIBUTION)}",
    }
    with atomic_folder(folder) as temporary:
        for source in sorted(TEMPLATE.rglob("*")):
            if source.is_dir() or "__pycache__" in source.parts:  # which installing has made
                continue
            place = _renamed(source.relative_to(TEMPLATE).as_posix(), names)
            place = re.sub(r"^git(?=hub/|ignore$)", ".git", place)
            target = temporary / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_renamed(source.read_text("utf-8"), names), encoding="utf-8")
        _write_card(temporary / "cards" / f"ms-{cell}-mmnist" / "README.md")
    return folder, cell


def _renamed(text: str, names: dict[str, str]) -> str:
    """All names replaced at once, the longest first."""
    return re.sub("|".join(sorted(names, key=len, reverse=True)), lambda m: names[m[0]], text)


def _write_card(path: Path) -> None:
    from zoo.hub.card import TEMPLATE as CARD

    path.write_text(f"---\nlicense: apache-2.0\n---\n{CARD}", encoding="utf-8")
