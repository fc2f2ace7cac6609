"""What several commands share: printing text, a table or JSON, and options that mean the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

__all__ = [
    "as_json",
    "data_option",
    "device_option",
    "echo",
    "hub_option",
    "model_name",
    "parse_setting",
    "parse_size",
    "plain",
    "print_json",
    "print_metrics",
    "print_table",
]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
device_option = click.option("--device", default="cpu", help="Where to run: cpu, cuda, mps.")
hub_option = click.option(
    "--hub",
    multiple=True,
    metavar="PLACE",
    help="Where to look for names: a folder of models, or hf://org; several in their order, after "
    "the built-in models. By default those of ZOO_HUB, separated by commas.",
)
data_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="The folder of the data sets; by default that of ZOO_DATA, or ./data.",
)


def print_json(value: Any) -> None:
    """Print a value as JSON on the output stream."""
    click.echo(json.dumps(value, indent=2))


def plain(text: object) -> str:
    """A text on one line, without the control characters by which it could steer a terminal.

    Names, options and messages may come from other people's files and plugins.
    """
    spaced = (" " if character.isspace() else character for character in str(text))
    return "".join(character for character in spaced if character.isprintable())


def echo(text: object, *, err: bool = False) -> None:
    """Print a line in which other people's text may stand, on the output or error stream."""
    click.echo(plain(text), err=err)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on the output stream, its texts as they are: none is rich's markup."""
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
    # A file or a pipe has no width to fit into: let no cell be cut there.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def print_metrics(scores: dict[str, dict[str, dict[str, Any]]], name: str) -> None:
    """Print metrics by frames and by whose forecast it is, as zoo.evaluate has them."""
    there = next(iter(next(iter(scores.values())).values()))
    metrics = [metric for metric in DIGITS if metric in there]
    metrics += [metric for metric in there if metric.startswith(("csi@", "fss@"))]
    rows = [
        [
            protocol,
            name if who == "model" else who,
            *(
                "–" if (mean := means.get(metric)) is None else f"{mean:.{DIGITS.get(metric, 3)}f}"
                for metric in metrics
            ),
        ]
        for protocol, by_whom in scores.items()
        for who, means in by_whom.items()
    ]
    heads = [metric.upper().replace("_UNIT", " in units") for metric in metrics]
    print_table(["frames", "forecast by", *heads], rows)


def model_name(ref: str, folder: Path) -> str:
    """What a model is called: as its folder, or as it was asked for where that has no name.

    None has one in the cache of the Hub: models--org--name/snapshots/commit.
    """
    folder = folder.resolve()
    cached = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return ref if cached else folder.name


DIGITS = {"mse": 2, "mae": 2, "ssim": 3, "psnr": 2, "rmse_unit": 3, "lpips": 3}


def parse_size(size: str | None) -> tuple[int, int] | None:
    """HEIGHTxWIDTH as two numbers."""
    if size is None:
        return None
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.BadParameter(f"{size!r} is no HEIGHTxWIDTH, such as 64x64", param_hint="--size")
    return int(height), int(width)


def parse_setting(setting: str) -> tuple[str, Any]:
    """OPTION=VALUE, the value as JSON or as it stands."""
    name, equals, value = setting.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"{setting!r} is no OPTION=VALUE", param_hint="--set")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value
