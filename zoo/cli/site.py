"""zoo site: a static web site that shows and runs models."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import model_name


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Output folder."
)
@click.option(
    "--runtime",
    type=click.Path(path_type=Path),
    help="Folder dist of the npm package onnxruntime-web.  [default: npm downloads it]",
)
@click.option("--docs", type=click.Path(path_type=Path), help="Built documentation to include.")
@click.option(
    "--plugins", type=click.Path(path_type=Path), help="Plugin directory, such as plugins.toml."
)
def site(
    models: tuple[str, ...],
    output: Path,
    runtime: Path | None,
    docs: Path | None,
    plugins: Path | None,
) -> None:
    """Build a web site with a catalog of models and a page that runs them in the browser.

    By default it shows the built-in pretrained models. The site needs no server but a static one;
    to look at it here:

    \b
    zoo site -o site
    python -m http.server --directory site
    """
    from zoo.hub import builtin_folder, pull
    from zoo.site.build import build_site

    shipped = sorted(path.parent.name for path in builtin_folder().glob("*/model.safetensors"))
    folders = [pull(model) for model in models or shipped]
    names = dict(zip(map(model_name, models or shipped, folders), folders, strict=True))
    build_site(output, names, runtime=runtime, docs=docs, plugins=plugins)
    click.echo(
        f"{output}: {len(names)} models; python -m http.server --directory {output}", err=True
    )
