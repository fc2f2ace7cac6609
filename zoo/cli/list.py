"""zoo list: what there is, and what has weights."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.common import as_json, print_json, print_table


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--pretrained", is_flag=True, help="Only models that have weights.")
@as_json
def list_(pattern: str, pretrained: bool, as_json: bool) -> None:
    """List the models whose names match PATTERN, such as 'ms-*'."""
    from zoo.hub import pretrained_models
    from zoo.registry import ALIASES, list_models

    models = pretrained_models()
    rows: list[dict[str, Any]] = []
    for name in list_models(pattern, pretrained=True if pretrained else None):
        config = models.get(name)
        rows.append(
            {
                "name": name,
                "aliases": [alias for alias, target in ALIASES.items() if target == name],
                "architecture": config.architecture if config else name,
                "pretrained": config is not None,
                "data": config.data.name if config else None,
            }
        )
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(f"no model matches {pattern!r}", err=True)
    else:
        print_table(
            ["name", "also called", "architecture", "weights"],
            [
                [
                    str(row["name"]),
                    ", ".join(row["aliases"]),
                    str(row["architecture"]),
                    f"trained on {row['data']}" if row["pretrained"] else "",
                ]
                for row in rows
            ],
        )
