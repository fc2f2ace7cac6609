"""zoo pull: download a pretrained model."""

from __future__ import annotations

import click

from zoo.cli.common import hub_option, print_path


@click.command()
@click.argument("model")
@hub_option
def pull(model: str, hub: tuple[str, ...]) -> None:
    """Download MODEL, weights and card, and print its folder.

    Checkpoints of other projects, which zoo list --pretrained names, are converted. A broken
    download continues where it stopped.
    """
    from zoo.hub import pull as pull_model

    print_path(pull_model(model, hub=hub))
