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
@click.option(
    "--benchmark",
    metavar="ORG/NAME",
    help="Data set on the Hub with a leaderboard, for which to write .eval_results/*.yaml.",
)
def card(folder: Path, license: str | None, repository: str | None, benchmark: str | None) -> None:
    """Write README.md in a model FOLDER from its config, recipe and metrics.

    Text outside the generated blocks is preserved. Scores for leaderboards of the Hub are
    updated, too.
    """
    from zoo.hub.card import write_card
    from zoo.hub.eval_results import write_eval_results
    from zoo.model_folder import read_metrics

    written = [write_card(folder, license, repository)]
    written += write_eval_results(folder, read_metrics(folder), benchmark)
    for path in written:
        print_path(path)
