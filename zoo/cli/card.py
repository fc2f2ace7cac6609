"""zoo card: write a model's card."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def card(folder: Path) -> None:
    """Write README.md of a model's FOLDER from its config, recipe and metrics."""
    from zoo.hub.card import write_card

    click.echo(write_card(folder))
