"""zoo runs: the runs that were made, and how they compare."""

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
    help="Where to look for runs.",
)
@as_json
@click.pass_context
def runs(context: click.Context, folder: Path, as_json: bool) -> None:
    """List the runs of zoo train, or compare some of them."""
    if context.invoked_subcommand is not None:
        return
    from zoo.train.runs import find_runs

    found, problems = find_runs(folder)
    for problem in problems:
        echo(f"Warning: {problem}", err=True)
    summaries = [run.summary() for run in found]
    if as_json:
        print_json(summaries)
        return
    if not summaries:
        click.echo(f"no run in {folder}; make one: zoo train RECIPE", err=True)
        return
    columns = ["run", "model", "data", "state", "step", "loss", "best", "minutes"]
    print_table(columns, [[_cell(summary, column) for column in columns] for summary in summaries])


@runs.command()
@click.argument("folders", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@as_json
def compare(folders: tuple[Path, ...], as_json: bool) -> None:
    """Set the curves and the results of runs side by side, and what differs in their recipes."""
    from zoo.train.runs import compare as set_side_by_side
    from zoo.train.runs import read_run

    if len(folders) < 2:
        raise click.UsageError("give two runs or more: zoo runs compare runs/one runs/other")
    found = set_side_by_side([read_run(folder) for folder in folders])
    if as_json:
        print_json(found)
        return
    names = found["runs"]
    _print_side_by_side("recipe", names, found["recipe"])
    for name, curve in found["curves"].items():
        _print_side_by_side(f"{name} at step", names, curve)
    _print_side_by_side("result", names, found["results"])


def _print_side_by_side(what: str, names: list[str], rows: dict[Any, list[Any]]) -> None:
    if rows:
        print_table([what, *names], [[str(key), *map(_number, row)] for key, row in rows.items()])


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
