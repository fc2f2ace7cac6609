"""zoo convert: weights trained with other people's code."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import as_json, parse_setting, print_json, print_table


@click.command()
@click.argument("dialect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--arch", required=True, metavar="NAME", help="The architecture; see: zoo list.")
@click.option("--topology", help="How its layers are stacked, if --arch does not name it.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="OPTION=VALUE",
    help="What no tensor tells, such as in_channels=3; the value as JSON, or a word.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The model's folder."
)
@as_json
def convert(
    dialect: str,
    file: Path,
    arch: str,
    topology: str | None,
    settings: tuple[str, ...],
    output: Path,
    as_json: bool,
) -> None:
    """Make a model's folder of FILE, a checkpoint (.pth, .ckpt, .safetensors) of other code.

    DIALECT is whose code: msrnn (the MS-RNN repository), openstl (OpenSTL), predrnn (thuml's
    predrnn-pytorch). Sizes are read from the tensors; no code in FILE is run. Lists the tensors
    that are dropped, which the model never used.

    \b
    zoo convert msrnn FILE --arch ms-predrnn -o DIR
    zoo convert msrnn FILE --arch preciplstm --set window=30 -o DIR
    zoo convert openstl FILE --arch predrnn --set in_channels=3 -o DIR

    Dialects openstl and predrnn: --arch is convlstm, predrnn, predrnnv2, predrnnpp or mim; frames
    have one channel unless --set in_channels=NUMBER says otherwise.
    """
    from zoo.convert import convert as convert_checkpoint

    options = dict(parse_setting(setting) for setting in settings)
    converted = convert_checkpoint(
        dialect, file, output, arch=arch, topology=topology, options=options
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
        print_table(["dropped", "because"], [list(row) for row in dropped.items()])
    click.echo(
        f"{config.architecture}, {config.layers} layers of {config.hidden}, {parameters:,} "
        f"parameters: local-dir:{output}"
    )
