"""zoo plugins: what is installed, what it provides, what is wrong with it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from zoo.cli.common import as_json, print_json, print_table


@click.command()
@as_json
def plugins(as_json: bool) -> None:
    """List the plugins that are installed, and what is wrong with those that fail.

    ZOO_PLUGINS=a,b leaves out all but these; ZOO_STRICT=1 exits with 2 if one fails.
    """
    from zoo.plugins import load_plugins, strict

    found = load_plugins()
    claims = Counter(
        (kind, name) for plugin in found for kind in plugin.provides for name in plugin.offers(kind)
    )
    rows: list[dict[str, Any]] = []
    for plugin in found:
        clashes = [
            name
            for kind in plugin.provides
            for name in plugin.offers(kind)
            if claims[kind, name] > 1
        ]
        clash = f"another plugin provides {', '.join(clashes)}, too" if clashes else ""
        rows.append(
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "module": plugin.entry.value,
                **{kind: sorted(plugin.offers(kind)) for kind in plugin.provides},
                "error": plugin.error or clash or None,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(
            ["plugin", "distribution", "provides", ""],
            [
                [
                    plugin.name,
                    f"{plugin.distribution} {plugin.version}",
                    "; ".join(
                        f"{kind}: {', '.join(sorted(offered))}"
                        for kind, offered in plugin.provides.items()
                        if offered
                    ),
                    str(
                        row["error"]
                        or ("ok" if any(plugin.provides.values()) else "provides nothing")
                    ),
                ]
                for plugin, row in zip(found, rows, strict=True)
            ],
        )
    if strict():
        click.get_current_context().exit(2 if any(row["error"] for row in rows) else 0)
