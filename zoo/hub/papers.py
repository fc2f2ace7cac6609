"""Links to the papers of a model, from the docstrings of its parts."""

from __future__ import annotations

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.config import Config
from zoo.errors import ZooError
from zoo.plugins import offer

__all__ = ["paper_links"]


def paper_links(config: Config) -> str:
    """Return a line of links to the papers of a model's cell, topology and head, or "".

    A plugin names its paper in the first paragraph of the module's docstring, as "arXiv
    1506.04214". The Hugging Face Hub makes a tag ``arxiv:1506.04214`` of each link.
    """
    found: list[str] = []
    parts = {"cells": config.cell, "topologies": config.topology, "heads": config.head}
    for kind, name in parts.items():
        try:
            part = offer(kind, name)
        except ZooError:  # its plugin is broken; the card needs none of it
            continue
        texts = _read_texts(part) if isinstance(part, str) else _texts_of(part)
        first = " ".join(text.partition("\n\n")[0] for text in texts)
        found += re.findall(r"arXiv (\d{4}\.\d{4,5})", " ".join(first.split()))
    links = (f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in dict.fromkeys(found))
    return f"Papers: {', '.join(links)}." if found else ""


def _texts_of(part: Any) -> list[str]:
    """The docstrings of an object and, if it is a class, of its module."""
    texts = [getattr(part, "__doc__", None) or ""]
    if isinstance(part, type):
        texts.append(sys.modules[part.__module__].__doc__ or "")
    return texts


def _read_texts(place: str) -> list[str]:
    """The same for "module:attribute", read from the source: importing it would need torch."""
    module, _, attribute = place.partition(":")
    try:
        spec = find_spec(module)
        tree = ast.parse(Path(spec.origin).read_text("utf-8"))  # type: ignore[union-attr, arg-type]
    except (AttributeError, ImportError, OSError, SyntaxError, TypeError, ValueError):
        return []
    node = next((node for node in tree.body if getattr(node, "name", None) == attribute), None)
    if isinstance(node, ast.ClassDef):
        return [ast.get_docstring(node) or "", ast.get_docstring(tree) or ""]
    return [ast.get_docstring(node) or ""] if isinstance(node, ast.FunctionDef) else []
