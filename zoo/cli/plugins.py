"""zoo plugins: what is installed, what it provides, what is wrong with it."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import click

from zoo.cli.common import as_json, print_json, print_table


@click.command()
@as_json
def plugins(as_json: bool) -> None:
    """List the plugins that are installed, and what is wrong with those that fail."""
    from zoo.plugins import load_plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table says what the warnings would
        found = load_plugins()
    claims = Counter(cell for plugin in found for cell in plugin.cells)
    rows: list[dict[str, Any]] = []
    for plugin in found:
        clashes = [cell for cell in plugin.cells if claims[cell] > 1]
        clash = f"another plugin provides {', '.join(clashes)}, too" if clashes else ""
        rows.append(
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "module": plugin.module,
                "cells": sorted(plugin.cells),
                "error": plugin.error or clash or None,
            }
        )
    if as_json:
        print_json(rows)
        return
    print_table(
        ["plugin", "distribution", "cells", ""],
        [
            [
                str(row["name"]),
                f"{row['distribution']} {row['version']}",
                ", ".join(row["cells"]),
                str(row["error"] or "ok"),
            ]
            for row in rows
        ],
    )
