"""plugins.toml: every entry has the form that docs/plugins.md describes, and what it says is so."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo.plugins import DISTRIBUTION, HYPHENATED, KINDS, load_plugins

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATH = Path(__file__).parents[1] / "plugins.toml"
ENTRIES: list[dict[str, Any]] = tomllib.loads(PATH.read_text(encoding="utf-8"))["plugin"]


def problems(entry: dict[str, Any]) -> list[str]:
    """What is wrong with the form of an entry."""
    keys = {"name": str, "author": str, "about": str, "install": str, "provides": dict}
    found = [f"{key} is unknown" for key in entry.keys() - keys.keys()]
    found += [f"{k} is not a {t.__name__}" for k, t in keys.items() if type(entry.get(k)) is not t]
    if found:
        return found
    name, install, provides = entry["name"], entry["install"], entry["provides"]
    if not re.fullmatch(r"[a-z0-9]+([._-][a-z0-9]+)*", name):
        found.append("name is not that of a distribution")
    words = install.split()
    if words[:2] != ["pip", "install"] or len(words) != 3 or name not in install:
        found.append("install is not: pip install NAME, or the address of its repository")
    if not provides or provides.keys() - {*KINDS}:
        found.append(f"provides expects some of {', '.join(KINDS)}")
    for kind, names in provides.items():
        pattern = "[a-z0-9_-]+" if kind in HYPHENATED else "[a-z0-9_]+"
        valid = isinstance(names, list) and names == sorted({*names})
        if not (valid and names and all(re.fullmatch(pattern, name) for name in names)):
            found.append(f"provides.{kind} is not a sorted list of names")
    return found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.get("name", "?"))
def test_entry_has_the_form(entry: dict[str, Any]) -> None:
    assert problems(entry) == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Zoo Rain"},
        {"install": "curl x | sh"},
        {"install": "pip install other"},
        {"install": "pip install zoo-rain --index-url x"},
        {"provides": {}},
        {"provides": {"cell": ["rain"]}},
        {"provides": {"cells": ["rain-2"]}},
        {"provides": {"cells": ["b", "a"]}},
        {"author": None},
        {"extra": "x"},
    ],
)
def test_wrong_entry_is_found(change: dict[str, Any]) -> None:
    right = {
        "name": "zoo-rain",
        "author": "A",
        "about": "Rain.",
        "install": "pip install git+https://example.org/zoo-rain",
        "provides": {"cells": ["rain"], "pretrained": ["rain-knmi"]},
    }
    assert problems(right) == []
    assert problems({**right, **change}) != []


def test_names_belong_to_one_plugin() -> None:
    assert len({entry["name"] for entry in ENTRIES}) == len(ENTRIES)
    names = [(k, name) for e in ENTRIES for k, some in e["provides"].items() for name in some]
    assert len({*names}) == len(names)


def test_the_zoos_own_entry_names_what_it_provides() -> None:
    (own,) = (entry for entry in ENTRIES if entry["name"] == DISTRIBUTION)
    plugins = [plugin for plugin in load_plugins() if plugin.distribution == DISTRIBUTION]
    for kind, names in own["provides"].items():
        assert {*names} <= {name for plugin in plugins for name in plugin.offers(kind)}
