"""zoo train: train a model from a recipe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from zoo.cli.common import as_json, data_option, echo, print_json, set_option


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the run. Default: runs/NAME, where NAME is that of RECIPE or, for a "
    "recipe.toml, of its folder.",
)
@set_option(
    "Override a key of the recipe, such as train.lr=1e-4. May be repeated. With --resume, the "
    "change applies from the last checkpoint on.",
    metavar="KEY=VALUE",
)
@click.option("--show", is_flag=True, help="Print the recipe with all defaults and exit.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint.")
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0),
    help="Stop after N minutes and save a checkpoint.",
    metavar="N",
)
@click.option(
    "--card",
    is_flag=True,
    help="After training, evaluate the model on the test set and write its card, as zoo eval "
    "--save, zoo cost --save and zoo card do. The text of a README.md next to RECIPE is included.",
)
@click.option(
    "--card-sequences",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --card, evaluate only the first N sequences. Default: the whole test set.",
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
    card_sequences: int | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Train a model from RECIPE, a TOML file such as cards/mslstm-mmnist/recipe.toml.

    Ctrl-C and SIGTERM stop with a checkpoint; --resume continues from it. Use torchrun or
    accelerate launch for several devices or machines: docs/training.md.
    """
    if card_sequences is not None and not card:
        raise click.UsageError("--card-sequences needs --card")
    if show:
        _show(recipe, settings, as_json)
        return
    from zoo.train.engine import train as train_model

    path = recipe.resolve()
    name = path.parent.name if path.name == "recipe.toml" else path.stem
    run = output or Path("runs") / name
    outcome = train_model(
        recipe,
        run,
        resume=resume,
        max_minutes=max_minutes,
        data_root=data_dir,
        settings=settings,
    )
    if card and outcome.finished:
        _write_card(recipe, run, data_dir, card_sequences)
    if not _is_main_process():
        return
    if as_json:
        values = asdict(outcome)
        del values["unlogged"]
        print_json({"run": str(run), "finished": outcome.finished, **values})
    elif outcome.finished:
        status = "already trained" if outcome.already else "trained"
        hint = f"card: {run / 'README.md'}" if card else f"evaluate it: zoo eval local-dir:{run}"
        echo(f"{status}: {run}; {hint}", err=True)
    else:
        echo(
            f"stopped after step {outcome.step} of {outcome.steps}; to continue, repeat the "
            "command with --resume",
            err=True,
        )


def _show(path: Path, settings: tuple[tuple[str, Any], ...], as_json: bool) -> None:
    from zoo.train.model import resolve
    from zoo.train.recipe import read_recipe, write_recipe

    recipe = resolve(read_recipe(path, settings))
    if as_json:
        print_json(recipe.model_dump(mode="json"))
    else:
        click.echo(write_recipe(recipe), nl=False)


def _write_card(recipe: Path, run: Path, data_dir: Path | None, sequences: int | None) -> None:
    """Evaluate the model of a run, count its operations, and write its card."""
    import torch

    from zoo.bench.cost import default_task, report, summary
    from zoo.evaluate import evaluate
    from zoo.hub import load
    from zoo.hub.card import write_card
    from zoo.model_folder import read_text, update_metrics, writable_part

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    model = load(f"local-dir:{run}", device=str(device))
    options = model.config.data.options  # those of the recipe, which is the user's
    # Shared by all processes.
    metrics = evaluate(model, options=options, sequences=sequences, root=data_dir)
    if not _is_main_process():
        return
    counted = report(run.name, model.config, default_task(model.config))
    update_metrics(run, **metrics, cost=summary(counted))
    written, path = recipe.with_name("README.md"), writable_part(run, "README.md")
    if written.is_file() and not path.exists():
        path.write_text(read_text(written), encoding="utf-8")
    write_card(run)


def _is_main_process() -> bool:
    from zoo.evaluate import process_rank

    return process_rank()[0] == 0
