"""zoo publish: publish a model folder to a hub."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import as_json, echo, print_json, print_table


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("destination")
@click.option(
    "--hub", metavar="PLACE", help="Hub for DESTINATION: a folder of models, or hf://org."
)
@click.option("--dry-run", is_flag=True, help="List the files without sending them.")
@as_json
def publish(folder: Path, destination: str, hub: str | None, dry_run: bool, as_json: bool) -> None:
    """Publish the model in FOLDER as DESTINATION, org/name on the Hugging Face Hub.

    The card must state the license, data, metrics, recipe and failure modes of the model. The
    Hugging Face Hub requires a token: hf auth login, or HF_TOKEN.

    \b
    zoo publish runs/mine me/mycell-mmnist
    zoo publish runs/mine mycell-mmnist --hub /srv/models
    """
    from zoo.hub.publish import publish as publish_model

    address, files = publish_model(folder, destination, hub=hub, dry_run=dry_run)
    sizes = {file.name: file.stat().st_size for file in files}
    if as_json:
        print_json({"address": address, "files": sizes, "published": not dry_run})
        return
    print_table(["file", "bytes"], [[name, f"{size:,}"] for name, size in sizes.items()])
    echo(f"{'would publish to' if dry_run else 'published:'} {address}")
