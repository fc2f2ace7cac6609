"""zoo plugins: installed plugins, what they provide, and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.common import as_json, print_json, print_table

if TYPE_CHECKING:
    from zoo.plugins import Plugin


@click.command()
@as_json
def plugins(as_json: bool) -> None:
    """List installed plugins, what they provide, and their errors.

    ZOO_PLUGINS=a,b loads only these; with ZOO_STRICT=1 the command exits with 2 if one fails.
    """
    from zoo.plugins import load_plugins, strict

    rows: list[dict[str, Any]] = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "module": plugin.entry.value,
            **{kind: sorted(offers) for kind, offers in plugin.provides.items()},
            "error": plugin.error or "; ".join(_problems(plugin)) or None,
        }
        for plugin in load_plugins()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ["plugin", "distribution", "provides", ""],
            [
                [
                    row["name"],
                    f"{row['distribution']} {row['version']}",
                    provided := _provided(row),
                    row["error"] or ("ok" if provided else "provides nothing"),
                ]
                for row in rows
            ],
        )
    if strict():
        click.get_current_context().exit(2 if any(row["error"] for row in rows) else 0)


def _provided(row: dict[str, Any]) -> str:
    from zoo.errors import shorten
    from zoo.plugins import KINDS

    provided = {kind: row[kind] for kind in KINDS if row.get(kind)}
    return "; ".join(
        f"{kind}: {shorten(names) if kind == 'pretrained' else ', '.join(names)}"
        for kind, names in provided.items()
    )


def _problems(plugin: Plugin) -> Iterator[str]:
    """What nobody finds, or nobody can use, of what a third party's plugin provides."""
    from zoo.cli import find_command
    from zoo.errors import PluginError
    from zoo.hub import find_pretrained
    from zoo.losses import find_loss
    from zoo.plugins import DISTRIBUTION, find
    from zoo.registry import find_cell, find_head, find_topology
    from zoo.scores import find_metric

    if plugin.distribution == DISTRIBUTION:
        return
    lookups: dict[str, Any] = {
        "cells": find_cell,
        "topologies": find_topology,
        "heads": find_head,
        "losses": find_loss,
        "metrics": find_metric,
        "commands": find_command,
        "pretrained": find_pretrained,
    }
    for kind, offers in plugin.provides.items():
        lookup = lookups.get(kind, partial(find, kind))
        for name in offers:
            try:
                found = lookup(name)
            except PluginError as error:
                yield str(error)
                continue
            if found is None:
                yield f"{kind} {name!r} is shadowed: the zoo reserves the name"
            elif found[1] is not plugin:
                yield f"{kind} {name!r} is shadowed by {found[1].distribution}"
