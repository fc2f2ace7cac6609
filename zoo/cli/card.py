"""zoo card: write a model card."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import print_path


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--license",
    help="License, such as apache-2.0 or mit (default: unchanged).",
)
@click.option("--repository", metavar="ORG/NAME", help="Repository on the Hub to load it from.")
def card(folder: Path, license: str | None, repository: str | None) -> None:
    """Write README.md in a model FOLDER from its config, recipe and metrics.

    Text outside the generated blocks is preserved.
    """
    from zoo.hub.card import write_card

    print_path(write_card(folder, license, repository))
