"""zoo data: describe, check, prepare and download data sets."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import click

from zoo.cli.common import as_json, data_option, echo, print_json, print_table, set_option

frames_option = click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Frames of a sequence.",
)
folder_argument = click.argument("folder", required=False, type=click.Path(path_type=Path))


@click.group()
def data() -> None:
    """Describe, check, prepare and download data sets."""


@data.command()
@click.argument("name", required=False)
@as_json
def info(name: str | None, as_json: bool) -> None:
    """Describe a data set: layout, license, source, counts and options; or list all of them."""
    from zoo.data import dataset_names, find_dataset

    if name is None:
        rows = {name: getattr(find_dataset(name), "title", "") for name in dataset_names()}
        if as_json:
            print_json(rows)
        else:
            print_table(["name", "data set"], [list(row) for row in rows.items()])
        return
    dataset = find_dataset(name)
    facts = {
        key: getattr(dataset, key, "")
        for key in ("title", "folder", "layout", "license", "source", "counts")
    }
    facts["folder"] = facts["folder"] or name
    description = "\n\n".join(_docstrings(dataset))
    if as_json:
        print_json({"name": name, **facts, "description": description})
        return
    click.echo(f"{name}: {facts.pop('title')}\n")
    for label, value in facts.items():
        if value:
            click.echo(f"{label:8} {value}")
    click.echo(f"\n{description}")


@data.command()
@click.argument("name")
@folder_argument
@frames_option
@set_option("Option of the data set.")
@data_option
@as_json
def check(
    name: str,
    folder: Path | None,
    frames: int,
    settings: tuple[tuple[str, Any], ...],
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Read all files of the data set NAME, and print what they contain.

    FOLDER is by default that of the data set in the data root.
    """
    from zoo.progress import progress_bar

    folder = folder or _default_folder(name, data_dir)
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
    click.echo("valid: all frames were read", err=True)


@data.command()
@click.argument("name")
@folder_argument
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Output folder."
)
@frames_option
@set_option("Option of the data set.")
@data_option
def prepare(
    name: str,
    folder: Path | None,
    output: Path,
    frames: int,
    settings: tuple[tuple[str, Any], ...],
    data_dir: Path | None,
) -> None:
    """Write the frames of the data set NAME as one array that is fast to read.

    FOLDER is by default that of the data set in the data root. The output is read under the same
    name: as --data-dir, or as the option folder of a recipe. Only options that change the frames
    are allowed here; set those of the parts and the range when training.
    """
    from zoo.atomic import atomic_folder
    from zoo.data import find_dataset
    from zoo.data.files import check_parent
    from zoo.errors import ConfigError
    from zoo.progress import progress_bar

    if os.path.lexists(output):
        raise ConfigError(f"{output} already exists; choose a new name")
    check_parent(output)
    options = dict(settings)
    split_options = getattr(find_dataset(name), "split_options", ())
    if wrong := [option for option in options if option in split_options]:
        raise ConfigError(
            f"{wrong[0]} does not change the frames; set it when training, in [data.options] of "
            "the recipe"
        )
    if split_options:  # frames are stored unscaled, so their range is not needed
        options |= {"low": 0.0, "high": 1.0}
    opened = _open(name, folder or _default_folder(name, data_dir), frames, options)
    with atomic_folder(output) as temporary, progress_bar("preparing", 0) as bar:
        for done, total in opened.prepare(temporary):
            bar(done, "", total=total)
    click.echo(f"{output}: {total:,} frames", err=True)


@data.command()
@click.argument("name")
@data_option
def fetch(name: str, data_dir: Path | None) -> None:
    """Download the data set NAME if its license allows that, or print where to get it."""
    from zoo.atomic import make_folder
    from zoo.data import fetching, find_dataset
    from zoo.errors import DataError

    dataset = find_dataset(name)
    folder = _default_folder(name, data_dir)
    if not getattr(dataset, "downloads", ()):
        source = getattr(dataset, "source", "")
        raise DataError(
            f"{name} cannot be downloaded by the zoo "
            f"({getattr(dataset, 'license', '') or 'its license'}); "
            f"{'get it from ' + source + ' and put' if source else 'put'} "
            f"{getattr(dataset, 'layout', '') or 'its files'} into {folder}"
        )
    make_folder(folder)
    for file in dataset.downloads:
        fetching.fetch(file, folder)
        click.echo(f"{folder / file.name}: {file.size:,} bytes, checksum verified", err=True)


def _default_folder(name: str, data_dir: Path | None) -> Path:
    """Return the folder of a data set in the data root."""
    from zoo.data import data_root, find_dataset

    return (data_dir or data_root()) / (getattr(find_dataset(name), "folder", "") or name)


def _docstrings(dataset: Any) -> list[str]:
    """Return the docstring of a data set, and the options in those of its base classes."""
    from zoo.data import SequenceDataset

    texts = [inspect.getdoc(dataset) or ""]
    for base in inspect.getmro(dataset)[1:] if inspect.isclass(dataset) else ():
        # The first paragraph says what the base class is; the options follow.
        if issubclass(base, SequenceDataset):
            options = inspect.cleandoc(base.__doc__ or "").partition("\n\n")[2]
            texts.append(options.partition("\n\nAttributes:")[0])
    plain = [re.sub(r":[a-z]+:`(?:[^`]*\.)?([^`.]+)`", r"\1", text) for text in texts]
    return [text for text in plain if text]


def _open(name: str, folder: Path, frames: int, options: dict[str, Any]) -> Any:
    """Open the first part that has a window, of single frames if all runs are shorter."""
    from zoo.data import open_dataset
    from zoo.data.splits import SPLITS
    from zoo.errors import ConfigError, NoWindowError

    for reserved in ("split", "root", "frames", "folder"):
        if reserved in options:
            raise ConfigError(
                f"{reserved} cannot be set here; use FOLDER for the folder and --frames for the "
                "length"
            )
    root, errors = folder.absolute(), []
    for length in (frames, 1):
        for split in SPLITS:
            try:
                return open_dataset(name, split, root=root, folder=".", frames=length, **options)
            except NoWindowError as error:
                errors.append(error)
    raise errors[0]
