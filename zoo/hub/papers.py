"""Links to the papers of a model, from the docstrings of its parts."""

from __future__ import annotations

import re
import sys
from typing import Any

from zoo.config import Config
from zoo.errors import ZooError
from zoo.registry import find_cell, find_head, find_topology

__all__ = ["paper_links"]


def paper_links(config: Config) -> str:
    """Return a line of links to the papers of a model's cell, topology and head, or "".

    A plugin names its paper in the first paragraph of the module's docstring, as "arXiv
    1506.04214". The Hugging Face Hub makes a tag ``arxiv:1506.04214`` of each link.
    """
    found: list[str] = []
    for find, name in (
        (find_cell, config.cell),
        (find_topology, config.topology),
        (find_head, config.head),
    ):
        try:
            part = find(name)
        except ZooError:  # its plugin is broken; the card needs none of it
            continue
        found += _ids(part[0]) if part else []
    links = (f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in dict.fromkeys(found))
    return f"Papers: {', '.join(links)}." if found else ""


def _ids(part: Any) -> list[str]:
    """The arXiv IDs in the first paragraphs of a part and of its module, if it is a class."""
    texts = [part.__doc__ or ""]
    if isinstance(part, type):
        texts.append(sys.modules[part.__module__].__doc__ or "")
    first = " ".join(text.partition("\n\n")[0] for text in texts)
    return re.findall(r"arXiv (\d{4}\.\d{4,5})", " ".join(first.split()))
