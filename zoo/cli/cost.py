"""zoo cost: what a model takes to run and to train."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.common import (
    as_json,
    device_option,
    echo,
    parse_setting,
    parse_size,
    print_json,
    print_table,
)
from zoo.published import TABLES, Task


@click.command()
@click.argument("name", required=False)
@click.option("--size", help="Of the frames, HEIGHTxWIDTH; by default the model's, or 64x64.")
@click.option("--input", "given", type=click.IntRange(min=1), help="Frames read; likewise, or 10.")
@click.option("--horizon", type=click.IntRange(min=1), help="Frames forecast; likewise, or 10.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="OPTION=VALUE",
    help="An option of the architecture, such as hidden=64 or layers=4.",
)
@click.option("--table", type=click.Choice(list(TABLES)), help="All models of a published table.")
@click.option("--measure", is_flag=True, help="Take one training step and tell its peak memory.")
@click.option("--save", is_flag=True, help="Write the figures into the metrics.json of NAME.")
@device_option
@as_json
def cost(
    name: str | None,
    size: str | None,
    given: int | None,
    horizon: int | None,
    settings: tuple[str, ...],
    table: str | None,
    measure: bool,
    save: bool,
    device: str,
    as_json: bool,
) -> None:
    """Count the parameters, multiply-accumulates and memory of NAME, part by part.

    NAME is an architecture or a pretrained model. Where there are published figures of it they
    stand beside, with the reason if they differ. --table does so for every model and the frames
    of a published table: Moving MNIST, TaxiBJ, KTH, the radar of Germany (dwd).
    """
    from zoo.bench.cost import default_task, find_config, kept, report, reports

    measured_on = device if measure else None
    if table is not None:
        if name or size or given or horizon or settings or save:
            raise click.UsageError("--table says which models and frames; leave the others out")
        all_of = reports(table, measured_on)
        if as_json:
            print_json(all_of)
        else:
            _print_table(table, all_of, measured_on)
        return
    if name is None:
        raise click.UsageError("which model? Give its NAME, or --table")
    config = find_config(name, dict(parse_setting(setting) for setting in settings))
    usual = default_task(config)
    task = Task(
        parse_size(size) or usual.size, given or usual.input_frames, horizon or usual.horizon
    )
    told = report(name, config, task, measured_on)
    if save:
        from zoo.hub import pull
        from zoo.model_folder import update_metrics

        update_metrics(pull(name), cost=kept(told))
    if as_json:
        print_json(told)
    else:
        _print_model(told, task, measured_on)


def _print_model(told: dict[str, Any], task: Task, device: str | None) -> None:
    echo(f"{told['name']}, {_about(task)}")
    rows = [
        [part["name"], *_counted(part), _big(part["memory_model_bytes"], "B")]
        for part in (*told["parts"], told | {"name": "total"})
    ]
    if row := told["published"]:
        printed = [f"{row['parameters']} M", f"{row['macs']} G", "", ""]
        rows.append([f"published: {row['name']}", *printed, f"{row['memory']} GB"])
    print_table(["", "parameters", *_kinds(), "memory model"], rows)
    click.echo(f"{_big(told['macs']['total'])} MACs, {_big(told['flops'])} FLOPs a forecast")
    if device:
        click.echo(f"{_big(told['peak_bytes'], 'B')} at the peak of a training step on {device}")
    if told["differs"]:
        click.echo(f"Differs from the publication: {told['differs']}.")
    _print_conventions()


def _print_table(table: str, all_of: list[dict[str, Any]], device: str | None) -> None:
    click.echo(f"{TABLES[table].title}, {_about(TABLES[table].task)}")
    peak = [f"peak on {device}"] if device else []
    columns = ["", "parameters", "published", "convolution", "published", *_kinds()[1:]]
    rows = []
    for told in all_of:
        row = told["published"]
        _, _, *others = _counted(told)
        rows.append(
            [
                f"{told['name']} ({row['name']})" if row else told["name"],
                f"{told['parameters'] / 1e6:.3f} M",
                f"{row['parameters']} M" if row else "",
                f"{told['macs']['convolution'] / 1e9:.2f} G",
                f"{row['macs']} G" if row else "",
                *others,
                _big(told["memory_model_bytes"], "B"),
                *(_big(told["peak_bytes"], "B") for _ in peak),
                f"{row['memory']} GB" if row else "",
            ]
        )
    print_table([*columns, "memory model", *peak, "published"], rows)
    for told in all_of:
        if told["differs"]:
            click.echo(f"{told['name']}: {told['differs']}.")
    _print_conventions()


def _about(task: Task) -> str:
    height, width = task.size
    return (
        f"frames of {height}×{width}, {task.input_frames} read and {task.horizon} forecast "
        f"({task.steps} steps)"
    )


def _kinds() -> list[str]:
    from zoo.bench.cost import KINDS

    return list(KINDS)


def _counted(part: dict[str, Any]) -> list[str]:
    """Parameters and multiply-accumulates by kind."""
    return [_big(part["parameters"]), *(_big(part["macs"][kind]) for kind in _kinds())]


def _big(n: int, unit: str = "") -> str:
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= scale:
            return f"{n / scale:.2f} {prefix}{unit}"
    return f"{n} {unit}".rstrip() if n else ""


def _print_conventions() -> None:
    from zoo.bench.cost import CONVENTION, MEMORY_MODEL

    click.echo(f"\n{CONVENTION}\n{MEMORY_MODEL}")
    click.echo(
        'Published: arXiv 2304.07724; its "FLOPs" are the MACs of the convolutions alone, its '
        "memory all that an A100 held in training."
    )
