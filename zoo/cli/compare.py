"""zoo compare: models next to each other on one page."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from zoo.cli.common import data_option, device_option, print_metrics
from zoo.cli.eval import baseline_names, dataset_options, load_models, test_set_options


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Output file, .html.",
)
@test_set_options
@click.option("--example", type=click.IntRange(min=0), help="Index of the sequence to show.")
@data_option
@device_option
def compare(
    models: tuple[str, ...],
    output: Path,
    settings: tuple[tuple[str, Any], ...],
    extrapolation: bool,
    optical_flow: bool,
    steps: bool,
    seasonal: tuple[str, ...],
    example: int | None,
    data_dir: Path | None,
    device: str,
    **data_options: Any,
) -> None:
    """Compare models on a test set: scores, curves, forecasts and costs, on one HTML page.

    The page loads nothing from elsewhere, so it can be sent and archived as it is. Times are
    medians of interleaved forecasts of one sequence on this machine.
    """
    from zoo.bench.cost import count
    from zoo.data.files import check_writable
    from zoo.errors import ConfigError
    from zoo.evaluate import evaluate, open_data
    from zoo.inspect.compare import Costs, measure_seconds, write_comparison
    from zoo.published import Task

    check_writable(output, (".html",))
    forecasters, _ = load_models(models, device)
    first = next(iter(forecasters.values()))
    options = dataset_options(dict(settings), data_options["dataset"], first)
    data_options |= {"options": options, "root": data_dir}
    evaluated = open_data(first, **data_options)
    if example is not None and example >= evaluated.sequences:
        raise ConfigError(f"--example is {example}; expected 0 to {evaluated.sequences - 1}")
    baselines = baseline_names(extrapolation, optical_flow, steps, seasonal)
    report = evaluate(forecasters, baselines=baselines, **data_options)
    frames = evaluated.dataset[0][None, : evaluated.input_frames]  # (1, T, C, H, W)
    seconds = measure_seconds(forecasters, frames.nan_to_num(nan=0.0), evaluated.horizon)
    height, width = frames.shape[-2:]
    task = Task((height, width), evaluated.input_frames, evaluated.horizon)
    costs = {}
    for name, model in forecasters.items():
        total = count(model.config, task).total
        macs = sum(total.macs.values())
        costs[name] = Costs(total.parameters, macs, total.memory_model, seconds[name])
    write_comparison(
        output,
        report,
        forecasters,
        baselines,
        evaluated,
        costs,
        command=_command_line(),
        example=example,
    )
    print_metrics({"forecast": report["forecast"]}, next(iter(forecasters)))
    click.echo(f"wrote {output}", err=True)


def _command_line() -> str:
    """This command with the options that were given."""
    context = click.get_current_context()
    words = ["zoo", "compare", *context.params["models"]]
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not given or name == "models":
            continue
        flag, value = option.opts[-1], context.params[name]
        if name == "settings":
            words += (word for key, it in value for word in (flag, f"{key}={json.dumps(it)}"))
        elif name == "seasonal":
            words += (word for period in value for word in (flag, period))
        else:
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)
