"""Shared by the commands: options, and printing of text, tables and JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zoo.tables import format_score, metric_label, metrics_in

__all__ = [
    "any_plugin_option",
    "as_json",
    "data_option",
    "device_option",
    "echo",
    "hub_option",
    "model_name",
    "optimize_option",
    "parse_size",
    "plain",
    "print_json",
    "print_metrics",
    "print_path",
    "print_settings",
    "print_table",
    "set_option",
]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Device to run on, such as cuda or mps."
)
any_plugin_option = click.option(
    "--any-plugin",
    is_flag=True,
    help="Accept a cell, topology or head of the same name from another plugin than MODEL was "
    "saved with.",
)
hub_option = click.option(
    "--hub",
    multiple=True,
    metavar="PLACE",
    help="Where to look for models, after the built-in ones: a folder of models, or hf://org. "
    "May be repeated.  [default: ZOO_HUB, separated by commas]",
)
optimize_option = click.option(
    "--optimize",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="Whether to choose fast settings for the device, if forecasts stay the same.",
)
data_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder of the data sets.  [default: ZOO_DATA, or ./data]",
)


class _Setting(click.ParamType):
    """NAME=VALUE as a pair, with the value parsed as JSON if it is valid, or as text."""

    name = "setting"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, Any]:
        name, equals, text = value.partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not valid; expected {parameter and parameter.metavar}")
        try:
            return name, json.loads(text)
        except (ValueError, RecursionError):
            return name, text


def set_option(
    help: str, metavar: str = "OPTION=VALUE", *, names: tuple[str, str] = ("--set", "settings")
) -> Callable[[Any], Any]:
    """Return the option --set, which passes `settings`: pairs of a name and a value."""
    return click.option(*names, multiple=True, type=_Setting(), metavar=metavar, help=help)


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output."""
    click.echo(json.dumps(value, indent=2))


def plain(text: object) -> str:
    """Return a text on one line, without control characters.

    Names, options and messages may come from untrusted files and plugins, and terminals interpret
    control characters.
    """
    spaced = (" " if character.isspace() else character for character in str(text))
    return "".join(character for character in spaced if character.isprintable())


def echo(text: object, *, err: bool = False) -> None:
    """Print a line that may contain untrusted text to standard output, or standard error."""
    click.echo(plain(text), err=err)


def print_path(path: Path) -> None:
    """Print a path to standard output: to a terminal without control characters, else exactly."""
    if sys.stdout.isatty():
        echo(path)
    else:
        click.echo(os.fsencode(path))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output, with its texts taken literally, not as rich's markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(cell: str) -> Text:
        return Text(plain(cell))

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(text(column))
    for row in rows:
        table.add_row(*map(text, row))
    # Files and pipes have no width: do not cut cells.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def print_metrics(scores: dict[str, dict[str, dict[str, Any]]], model: str) -> None:
    """Print scores by frames and by forecast, in the structure of zoo.evaluate.

    Args:
        scores: For example ``{"forecast": {"model": {"mse": 1.0}, "persistence": …}}``.
        model: The name to print for "model".
    """
    metrics = metrics_in(next(iter(next(iter(scores.values())).values())), ("csi", "fss"))
    rows = [
        [
            frames,
            model if name == "model" else name,
            *(format_score(metric, values.get(metric)) for metric in metrics),
        ]
        for frames, by_forecast in scores.items()
        for name, values in by_forecast.items()
    ]
    print_table(["frames", "forecast", *map(metric_label, metrics)], rows)


def model_name(ref: str, folder: Path) -> str:
    """Return the name of a model: that of its folder, or `ref` if the folder is in the Hub's cache.

    Folders there have no names: models--org--name/snapshots/commit.
    """
    folder = folder.resolve()
    cached = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return ref if cached else folder.name


def print_settings(models: Mapping[str, Any]) -> None:
    """Print the fast settings of models, if any, to standard error."""
    for name, model in models.items():
        if model.optimized:
            echo(f"{name}: runs with {', '.join(model.optimized)}", err=True)


def parse_size(size: str | None) -> tuple[int, int] | None:
    """Parse HEIGHTxWIDTH."""
    if size is None:
        return None
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.BadParameter(
            f"{size!r} is not valid; expected HEIGHTxWIDTH, such as 64x64", param_hint="--size"
        )
    return int(height), int(width)
