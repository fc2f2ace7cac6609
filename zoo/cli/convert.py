"""zoo convert: import weights trained with other code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo.cli.common import as_json, print_json, print_table, set_option


@click.command()
@click.argument("dialect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--arch", required=True, metavar="NAME", help="Architecture; see zoo list.")
@click.option("--topology", help="Topology.  [default: as named by --arch]")
@set_option("Option that the tensors do not determine, such as in_channels=3, as JSON or text.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Output folder."
)
@as_json
def convert(
    dialect: str,
    file: Path,
    arch: str,
    topology: str | None,
    settings: tuple[tuple[str, Any], ...],
    output: Path,
    as_json: bool,
) -> None:
    """Convert FILE, a checkpoint (.pth, .ckpt, .safetensors) of other code, to a model folder.

    DIALECT is the code that wrote it: msrnn (the MS-RNN repository), openstl (OpenSTL) or predrnn
    (thuml's predrnn-pytorch). Sizes are inferred from the tensors; code in FILE is never run.
    Tensors that the model never used are dropped and listed.

    \b
    zoo convert msrnn FILE --arch ms-predrnn -o DIR
    zoo convert msrnn FILE --arch preciplstm --set window=30 -o DIR
    zoo convert openstl FILE --arch predrnn --set in_channels=3 -o DIR

    For openstl and predrnn, --arch is convlstm, predrnn, predrnnv2, predrnnpp or mim, and frames
    have one channel unless --set in_channels=NUMBER is given.
    """
    from zoo.convert import convert as convert_checkpoint

    converted = convert_checkpoint(
        dialect, file, output, arch=arch, topology=topology, options=dict(settings)
    )
    config, dropped = converted.config, converted.dropped
    parameters = sum(tensor.numel() for tensor in converted.tensors.values())
    if as_json:
        print_json(
            {
                "folder": str(output),
                "config": config.model_dump(mode="json"),
                "parameters": parameters,
                "dropped": dropped,
            }
        )
        return
    if dropped:
        print_table(["dropped", "reason"], [list(row) for row in dropped.items()])
    click.echo(
        f"{config.architecture}, {config.layers} layers of {config.hidden}, {parameters:,} "
        f"parameters: local-dir:{output}"
    )
