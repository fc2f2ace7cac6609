"""zoo data: what data sets there are, and whether files are sound; makes them quick to read."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import click

from zoo.cli.common import as_json, echo, print_json, print_table, set_option

frames_option = click.option(
    "--frames", type=click.IntRange(min=1), default=20, show_default=True, help="Of a sequence."
)
folder_argument = click.argument("folder", type=click.Path(path_type=Path))


@click.group()
def data() -> None:
    """Look at, check, prepare and fetch data sets."""


@data.command()
@click.argument("name", required=False)
@as_json
def info(name: str | None, as_json: bool) -> None:
    """What a data set is, its licence, layout, source, counts and options; or all their names."""
    from zoo.data import dataset_names, find_dataset

    if name is None:
        rows = {each: getattr(find_dataset(each), "title", "") for each in dataset_names()}
        if as_json:
            print_json(rows)
        else:
            print_table(["name", "data set"], [list(row) for row in rows.items()])
        return
    kind = find_dataset(name)
    text = "\n\n".join(_explained(kind))
    facts = {
        "title": getattr(kind, "title", ""),
        "folder": getattr(kind, "folder", "") or name,
        "layout": getattr(kind, "layout", ""),
        "licence": getattr(kind, "licence", ""),
        "source": getattr(kind, "source", ""),
        "counts": getattr(kind, "counts", ""),
    }
    if as_json:
        print_json({"name": name, **facts, "description": text})
        return
    click.echo(f"{name}: {facts.pop('title')}\n")
    for label, value in facts.items():
        if value:
            click.echo(f"{label:8} {value}")
    click.echo(f"\n{text}")


@data.command()
@click.argument("name")
@folder_argument
@frames_option
@set_option("Option of the data set.")
@as_json
def check(
    name: str, folder: Path, frames: int, settings: tuple[tuple[str, Any], ...], as_json: bool
) -> None:
    """Read all of FOLDER as the data set NAME: is it whole, and what is in it?"""
    from zoo.progress import progress_bar

    opened = _open(name, folder, frames, dict(settings))
    with progress_bar("reading", 0) as bar:
        for done, total in opened.scan():
            bar(done, "", total=total)
    facts = opened.describe()
    if (missing := getattr(opened, "missing", None)) is not None:
        facts["missing"] = f"{missing:.1%} of the values"
    if as_json:
        print_json({"name": name, "folder": str(folder), **facts})
        return
    for label, value in facts.items():
        echo(f"{label:14} {value}")
    click.echo("sound: every frame was read", err=True)


@data.command()
@click.argument("name")
@folder_argument
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where to.")
@frames_option
@set_option("Option of the data set.")
def prepare(
    name: str, folder: Path, output: Path, frames: int, settings: tuple[tuple[str, Any], ...]
) -> None:
    """Write FOLDER, as the data set NAME reads it, into a folder that is quicker to read.

    It is read by the same name: as --data-dir, or as the option folder of a recipe. Only options
    that change the frames are told here; those of the parts and the scale when training.
    """
    from zoo.atomic import atomic_folder
    from zoo.data import find_dataset
    from zoo.errors import ZooError
    from zoo.progress import progress_bar

    if os.path.exists(output):
        raise ZooError(f"{output} is there already; choose a new name")
    options = dict(settings)
    later = getattr(find_dataset(name), "later", ())
    if wrong := [option for option in options if option in later]:
        raise ZooError(
            f"{wrong[0]} changes no frame, so it is not prepared; tell it when training, in "
            "[data.options] of the recipe (as low, high, stride and all that says how to split)"
        )
    if later:  # the frames are written as they are, so nothing need be read to find their range
        options |= {"low": 0.0, "high": 1.0}
    opened = _open(name, folder, frames, options)
    with atomic_folder(output) as temporary, progress_bar("preparing", 0) as bar:
        for done, total in opened.prepare(temporary):
            bar(done, "", total=total)
    click.echo(f"{output}: {total:,} frames", err=True)


@data.command()
@click.argument("name")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="The folder of the data sets; by default that of ZOO_DATA, or ./data.",
)
def fetch(name: str, data_dir: Path | None) -> None:
    """Download a data set that may be, or say where it is to be had."""
    from zoo.atomic import make_folder
    from zoo.data import data_root, find_dataset
    from zoo.data.fetching import fetch as bring
    from zoo.errors import ZooError

    kind = find_dataset("mmnist" if name == "mnist" else name)
    folder = (data_dir or data_root()) / (getattr(kind, "folder", "") or name)
    if not getattr(kind, "downloads", ()):
        source = getattr(kind, "source", "")
        raise ZooError(
            f"{name} is not fetched by the zoo ({getattr(kind, 'licence', '') or 'its licence'}); "
            f"{'get it from ' + source + ' and put' if source else 'put'} "
            f"{getattr(kind, 'layout', '') or 'its files'} into {folder}"
        )
    make_folder(folder)
    for file in kind.downloads:
        bring(file, folder)
        click.echo(f"{folder / file.name}: {file.size:,} bytes, checksum as published", err=True)


def _explained(kind: Any) -> list[str]:
    """The docstring of a data set, and what those of the classes that it is made of tell beside."""
    from zoo.data import SequenceDataset

    texts = [inspect.getdoc(kind) or ""]
    for base in inspect.getmro(kind)[1:] if inspect.isclass(kind) else ():
        # The first paragraph says what the class is, those after it what its options are.
        if issubclass(base, SequenceDataset):
            texts.append((inspect.cleandoc(base.__doc__ or "")).partition("\n\n")[2])
    plain = [re.sub(r":[a-z]+:`(?:[^`]*\.)?([^`.]+)`", r"\1", text) for text in texts]
    return [text for text in plain if text]


def _open(name: str, folder: Path, frames: int, options: dict[str, Any]) -> Any:
    """The data set with its training part, or where that is empty with another."""
    from zoo.data import open_dataset
    from zoo.data.splits import SPLITS
    from zoo.errors import ZooError

    for told in ("split", "root", "frames", "folder"):
        if told in options:
            raise ZooError(
                f"{told} is no option here; say which folder by FOLDER, how many by --frames"
            )
    problem: ZooError | None = None
    for length in (frames, 1):  # single frames, where the runs are shorter
        for split in SPLITS:
            try:
                return open_dataset(
                    name, split, root=folder.absolute(), folder=".", frames=length, **options
                )
            except ZooError as error:
                if "has no window" not in str(error):
                    raise
                problem = problem or error
    assert problem is not None
    raise problem
