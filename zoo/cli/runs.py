"""zoo runs: list and compare training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo.cli.common import as_json, echo, print_json, print_table


@click.group(invoke_without_command=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder to search for runs.",
)
@as_json
@click.pass_context
def runs(context: click.Context, folder: Path, as_json: bool) -> None:
    """List training runs, or compare some of them."""
    if context.invoked_subcommand is not None:
        return
    from zoo.train.runs import find_runs

    runs, problems = find_runs(folder)
    for problem in [*problems, *(problem for run in runs for problem in run.problems)]:
        echo(f"Warning: {problem}", err=True)
    summaries = [run.summary() for run in runs]
    if as_json:
        print_json(summaries)
        return
    if not summaries:
        echo(f"no runs in {folder}; start one with: zoo train RECIPE", err=True)
        return
    columns = ["run", "model", "data", "state", "step", "loss", "best", "minutes"]
    print_table(columns, [[_cell(summary, column) for column in columns] for summary in summaries])


@runs.command()
@click.argument("folders", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@as_json
def compare(folders: tuple[Path, ...], as_json: bool) -> None:
    """Compare the recipes, learning curves and results of runs."""
    from zoo.train.runs import compare as compare_runs
    from zoo.train.runs import read_run

    if len(folders) < 2:
        raise click.UsageError("give at least two runs: zoo runs compare RUN RUN")
    comparison = compare_runs([read_run(folder) for folder in folders])
    if as_json:
        print_json(comparison)
        return
    names = comparison["runs"]
    _print_rows("recipe", names, comparison["recipe"])
    for name, curve in comparison["curves"].items():
        _print_rows(f"{name} at step", names, curve)
    _print_rows("result", names, comparison["results"])


def _print_rows(title: str, names: list[str], rows: dict[Any, list[Any]]) -> None:
    if rows:
        print_table([title, *names], [[str(key), *map(_number, row)] for key, row in rows.items()])


def _cell(summary: dict[str, Any], column: str) -> str:
    if column == "step":
        return f"{summary['step']} of {summary['steps'] or '?'}"
    if column == "best" and summary["best"] is not None:
        return f"{summary['metric']} {summary['best']:.4g} at {summary['best_step']}"
    return _number(summary[column])


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
