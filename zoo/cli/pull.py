"""zoo pull: bring a pretrained model here."""

from __future__ import annotations

import click


@click.command()
@click.argument("model")
def pull(model: str) -> None:
    """Bring MODEL here, weights and card, and print its folder."""
    from zoo.hub import pull as pull_model

    click.echo(pull_model(model))
