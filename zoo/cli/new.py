"""zoo new: start a plugin project."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import echo, plain


@click.command()
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Output folder (default: NAME)."
)
def new(name: str, output: Path | None) -> None:
    """Create a plugin project NAME, such as zoo-mycell, for your own cell.

    The project is complete and working: the cell mycell, its tests, a recipe, a card to fill in,
    and a workflow that publishes it.
    """
    from zoo.scaffold import new_project

    folder, cell = new_project(name, output)
    echo(f"{folder}: a plugin with the cell {cell}, in zoo_{cell}.py. Next:")
    click.echo(f"  cd {plain(folder)} && pip install -e '.[test]'\n  zoo check {cell}")
