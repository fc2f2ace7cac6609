"""zoo cost: what a model takes to run and to train."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.common import (
    as_json,
    device_option,
    echo,
    parse_size,
    print_json,
    print_table,
    set_option,
)
from zoo.published import TABLES, Task


@click.command()
@click.argument("name", required=False)
@click.option("--size", help="Frame size, HEIGHTxWIDTH.  [default: the model's, or 64x64]")
@click.option(
    "--input",
    "input_frames",
    type=click.IntRange(min=1),
    help="Number of input frames.  [default: the model's, or 10]",
)
@click.option(
    "--horizon",
    type=click.IntRange(min=1),
    help="Number of frames to forecast.  [default: the model's, or 10]",
)
@set_option("Option of the architecture, such as hidden=64 or layers=4.")
@click.option("--table", type=click.Choice(list(TABLES)), help="All models of a published table.")
@click.option("--measure", is_flag=True, help="Measure the peak memory of one training step.")
@click.option("--save", is_flag=True, help="Save the counts in the metrics.json of NAME.")
@device_option
@as_json
def cost(
    name: str | None,
    size: str | None,
    input_frames: int | None,
    horizon: int | None,
    settings: tuple[tuple[str, Any], ...],
    table: str | None,
    measure: bool,
    save: bool,
    device: str,
    as_json: bool,
) -> None:
    """Count the parameters, multiply-accumulates and memory of NAME, part by part.

    NAME is an architecture or a pretrained model. Published figures are printed next to the
    counts, with the reason for any difference. --table does so for all models and the frame size
    of a published table: Moving MNIST, TaxiBJ, KTH or the radar of Germany (dwd).
    """
    from zoo.bench.cost import default_task, find_config, report, reports, summary

    device_measured = device if measure else None
    if table is not None:
        if name or size or input_frames or horizon or settings or save:
            raise click.UsageError("--table takes no NAME and no other option but --measure")
        table_reports = reports(table, device_measured)
        if as_json:
            print_json(table_reports)
        else:
            _print_table(table, table_reports, device_measured)
        return
    if name is None:
        raise click.UsageError("expected NAME or --table")
    config = find_config(name, dict(settings))
    usual = default_task(config)
    task = Task(
        parse_size(size) or usual.size, input_frames or usual.input_frames, horizon or usual.horizon
    )
    counted = report(name, config, task, device_measured)
    if save:
        from zoo.hub import pull
        from zoo.model_folder import update_metrics

        update_metrics(pull(name), cost=summary(counted))
    if as_json:
        print_json(counted)
    else:
        _print_model(counted, task, device_measured)


def _print_model(counted: dict[str, Any], task: Task, device: str | None) -> None:
    echo(f"{counted['name']}, {_describe(task)}")
    rows = [
        [part["name"], *_counts(part), _with_prefix(part["memory_model_bytes"], "B")]
        for part in (*counted["parts"], counted | {"name": "total"})
    ]
    if row := counted["published"]:
        printed = [f"{row['parameters']} M", f"{row['macs']} G", "", ""]
        rows.append([f"published: {row['name']}", *printed, f"{row['memory']} GB"])
    print_table(["", "parameters", *_kinds(), "memory model"], rows)
    macs, flops = _with_prefix(counted["macs"]["total"]), _with_prefix(counted["flops"])
    click.echo(f"{macs} MACs, {flops} FLOPs per forecast")
    if device:
        peak = _with_prefix(counted["peak_bytes"], "B")
        click.echo(f"{peak} peak memory of a training step on {device}")
    if counted["differs"]:
        click.echo(f"Differs from the publication: {counted['differs']}.")
    _print_conventions()


def _print_table(table: str, counted: list[dict[str, Any]], device: str | None) -> None:
    click.echo(f"{TABLES[table].title}, {_describe(TABLES[table].task)}")
    peak = [f"peak on {device}"] if device else []
    columns = ["", "parameters", "published", "convolution", "published", *_kinds()[1:]]
    rows = []
    for model in counted:
        row = model["published"]
        _, _, *others = _counts(model)
        rows.append(
            [
                f"{model['name']} ({row['name']})" if row else model["name"],
                f"{model['parameters'] / 1e6:.3f} M",
                f"{row['parameters']} M" if row else "",
                f"{model['macs']['convolution'] / 1e9:.2f} G",
                f"{row['macs']} G" if row else "",
                *others,
                _with_prefix(model["memory_model_bytes"], "B"),
                *(_with_prefix(model["peak_bytes"], "B") for _ in peak),
                f"{row['memory']} GB" if row else "",
            ]
        )
    print_table([*columns, "memory model", *peak, "published"], rows)
    for model in counted:
        if model["differs"]:
            click.echo(f"{model['name']}: {model['differs']}.")
    _print_conventions()


def _describe(task: Task) -> str:
    height, width = task.size
    return (
        f"{task.input_frames} input and {task.horizon} forecast frames of {height}×{width} "
        f"({task.steps} steps)"
    )


def _kinds() -> list[str]:
    from zoo.bench.cost import KINDS

    return list(KINDS)


def _counts(part: dict[str, Any]) -> list[str]:
    """Parameters, and multiply-accumulates by kind."""
    return [
        _with_prefix(part["parameters"]),
        *(_with_prefix(part["macs"][kind]) for kind in _kinds()),
    ]


def _with_prefix(number: int, unit: str = "") -> str:
    """A number such as "1.50 G"; "" for 0."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.2f} {prefix}{unit}"
    return f"{number} {unit}".rstrip() if number else ""


def _print_conventions() -> None:
    from zoo.bench.cost import CONVENTION, MEMORY_MODEL

    click.echo(f"\n{CONVENTION}\n{MEMORY_MODEL}")
    click.echo(
        'Published: arXiv 2304.07724. Its "FLOPs" are the MACs of the convolutions only; its '
        "memory is what an A100 allocated in training."
    )
