"""zoo card: write a model's card."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--license", help="As the Hub calls it: apache-2.0, mit; by default as it was.")
@click.option("--repository", metavar="ORG/NAME", help="Where on the Hub it will be loaded from.")
def card(folder: Path, license: str | None, repository: str | None) -> None:
    """Write README.md of a model's FOLDER from its config, recipe and metrics.

    What a person wrote into it, outside of the marked blocks, is kept.
    """
    from zoo.hub.card import write_card

    click.echo(write_card(folder, license, repository))
