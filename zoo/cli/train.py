"""zoo train: carry out a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from zoo.cli.common import as_json, data_option, print_json, set_option


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The folder of the run; by default runs/ and the name of the recipe or, for a "
    "recipe.toml, of its folder.",
)
@set_option(
    "Override a value of the recipe, such as train.lr=1e-4. May be repeated. With --resume, it "
    "holds from there on.",
    metavar="KEY=VALUE",
)
@click.option("--show", is_flag=True, help="Print the recipe with all defaults, and train nothing.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--max-minutes", type=click.FloatRange(min=0), help="Stop then, with a checkpoint.")
@click.option(
    "--card",
    is_flag=True,
    help="In the end measure it on the whole test set and write its card, as zoo eval --save, "
    "zoo cost --save and zoo card do; what stands in a README.md beside RECIPE goes into it.",
)
@data_option
@as_json
def train(
    recipe: Path,
    output: Path | None,
    settings: tuple[tuple[str, Any], ...],
    show: bool,
    resume: bool,
    max_minutes: float | None,
    card: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Train a model by RECIPE, a TOML file such as cards/mslstm-mmnist/recipe.toml.

    Ctrl-C and SIGTERM stop with a checkpoint, from which --resume goes on. torchrun and
    accelerate launch start it on many devices and machines: docs/training.md.
    """
    if show:
        from zoo.train.model import resolve
        from zoo.train.recipe import read_recipe, write_recipe

        whole = resolve(read_recipe(recipe, settings))
        if as_json:
            print_json(whole.model_dump(mode="json"))
        else:
            click.echo(write_recipe(whole), nl=False)
        return
    from zoo.train.engine import train as carry_out

    named = recipe.resolve()
    name = named.parent.name if named.name == "recipe.toml" else named.stem
    run = output or Path("runs") / name
    outcome = carry_out(
        recipe,
        run,
        resume=resume,
        max_minutes=max_minutes,
        data_root=data_dir,
        settings=settings,
    )
    if card and outcome.finished:
        _write_card(recipe, run, data_dir)
    if os.environ.get("RANK", "0") != "0":  # one of several processes tells
        return
    if as_json:
        told = {name: value for name, value in vars(outcome).items() if name != "untold"}
        print_json({"run": str(run), "finished": outcome.finished, **told})
    elif outcome.finished:
        was = "was trained before" if outcome.already else "trained"
        then = f"its card: {run / 'README.md'}" if card else f"measure it: zoo eval local-dir:{run}"
        click.echo(f"{was}: {run}; {then}", err=True)
    else:
        click.echo(
            f"stopped after step {outcome.step} of {outcome.steps}; to go on, start it again as it "
            "was, with --resume",
            err=True,
        )


def _write_card(recipe: Path, run: Path, data_dir: Path | None) -> None:
    """Measure the model of a run, count what it costs, and write its card."""
    import torch

    from zoo.bench.cost import default_task, report, summary
    from zoo.evaluate import evaluate
    from zoo.hub import load, update_metrics
    from zoo.hub.card import write_card
    from zoo.parts import read_text, writable_part

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    model = load(f"local-dir:{run}", device=str(device))
    measured = evaluate(model, root=data_dir)  # by all processes, if there are several
    if os.environ.get("RANK", "0") != "0":
        return
    counted = report(run.name, model.config, default_task(model.config))
    update_metrics(run, **measured, cost=summary(counted))
    written, path = recipe.with_name("README.md"), writable_part(run, "README.md")
    if written.is_file() and not path.exists():
        path.write_text(read_text(written), encoding="utf-8")
    write_card(run)
