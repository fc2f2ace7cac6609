"""zoo list: the available models, and which have weights."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import click

from zoo.cli.common import as_json, hub_option, print_json, print_table


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--pretrained", is_flag=True, help="List only models with weights.")
@hub_option
@as_json
def list_(pattern: str, pretrained: bool, hub: tuple[str, ...], as_json: bool) -> None:
    """List the models whose names match PATTERN, such as 'ms-*'.

    With --hub, list only the models of these hubs.
    """
    from zoo.hub import list_models, pretrained_models
    from zoo.hub.places import open_hub
    from zoo.registry import ALIASES

    if hub:
        models = {model.name: model for place in hub for model in open_hub(place).models()}
        names = sorted(name for name in models if fnmatchcase(name, pattern))
    else:
        models = pretrained_models()
        names = list_models(pattern, pretrained=True if pretrained else None)
    rows: list[dict[str, Any]] = []
    for name in names:
        model = models.get(name)
        rows.append(
            {
                "name": name,
                "aliases": [alias for alias, target in ALIASES.items() if target == name],
                "architecture": model.architecture if model else name,
                "pretrained": model is not None,
                "data": (model.data or None) if model else None,
                "hub": model.hub if model else None,
                "published": (model.published or None) if model else None,
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
                    _weights(row),
                ]
                for row in rows
            ],
        )


def _weights(row: dict[str, Any]) -> str:
    if not row["pretrained"]:
        return ""
    trained = f"trained on {row['data'] or '?'}"
    return f"{trained}; {row['published']}" if row["published"] else trained
