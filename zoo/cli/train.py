"""zoo train: carry out a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import as_json, data_option, print_json


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The folder of the run; by default runs/ and the name of the recipe's folder.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--max-minutes", type=click.FloatRange(min=0), help="Stop then, with a checkpoint.")
@data_option
@as_json
def train(
    recipe: Path,
    output: Path | None,
    resume: bool,
    max_minutes: float | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Train a model by RECIPE, a TOML file such as cards/mslstm-mmnist/recipe.toml.

    Ctrl-C and SIGTERM stop with a checkpoint, from which --resume goes on.
    """
    from zoo.train.engine import train as carry_out

    run = output or Path("runs") / recipe.resolve().parent.name
    outcome = carry_out(recipe, run, resume=resume, max_minutes=max_minutes, data_root=data_dir)
    if as_json:
        print_json({"run": str(run), "finished": outcome.finished, **vars(outcome)})
    elif outcome.finished:
        click.echo(f"trained: {run}; measure it: zoo eval local-dir:{run}", err=True)
    else:
        click.echo(
            f"stopped after step {outcome.step} of {outcome.steps}; "
            f"go on: zoo train {recipe} -o {run} --resume",
            err=True,
        )
