"""zoo export: write a model to a file that other runtimes execute."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import as_json, model_name, print_json


@click.command()
@click.argument("model")
@click.option(
    "--format",
    type=click.Choice(["onnx", "pt2"]),
    help="Format of the file.  [default: as the suffix of FILE, or onnx]",
)
@click.option(
    "--horizon",
    type=click.IntRange(min=1),
    help="Export a whole forecast of N frames.  [default: one step]",
    metavar="N",
)
@click.option(
    "--input-frames",
    type=click.IntRange(min=1),
    help="Number of frames that a whole forecast reads.  [default: as in training]",
    metavar="N",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Output file.  [default: the name of the model, here]",
)
@as_json
def export(
    model: str,
    format: str | None,
    horizon: int | None,
    input_frames: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL to an ONNX file, or to one that torch executes without the zoo (pt2).

    The file contains one step: from a frame and the state to the next frame and state. With
    --horizon, it contains a whole forecast. Its metadata describe the state, the units and the
    scaling. It is compared with MODEL at every lead time before it is written.

    \b
    zoo export ms-predrnn-kth -o model.onnx
    zoo predict model.onnx clip.avi -o future.gif
    """
    from zoo.errors import ConfigError
    from zoo.exporting.export import export as write
    from zoo.hub import load, pull

    if output is not None and format is not None and output.suffix != f".{format}":
        raise ConfigError(
            f"{output} does not have the suffix of --format {format}; expected "
            f"{output.with_suffix(f'.{format}')}"
        )
    folder = pull(model)
    name = model_name(model, folder)
    path = output or Path(f"{name}.{format or 'onnx'}")
    forecaster = load(f"local-dir:{folder}")  # the same files, without pulling again
    write(
        forecaster,
        path,
        horizon=horizon,
        input_frames=input_frames,
        name=name,
        license=_license(folder),
        source=_source(model, folder),
    )
    if as_json:
        print_json({"output": str(path), "bytes": path.stat().st_size})
        return
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, equal to {name} in PyTorch", err=True)


def _license(folder: Path) -> str | None:
    """The license that the card of a model states."""
    from zoo.hub.card import read_card

    return read_card(folder).data.license if (folder / "README.md").is_file() else None


def _source(model: str, folder: Path) -> str:
    """Where a model is from, with the checksum of its weights."""
    import hashlib

    from zoo.model_folder import WEIGHTS

    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return f"{model}, {WEIGHTS} with SHA-256 {digest}"
