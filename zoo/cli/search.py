"""zoo search: find published models."""

from __future__ import annotations

import click

from zoo.cli.common import as_json, echo, hub_option, print_json, print_table


@click.command()
@click.argument("text", default="")
@hub_option
@as_json
def search(text: str, hub: tuple[str, ...], as_json: bool) -> None:
    """Search the Hugging Face Hub for models of the zoo that match TEXT.

    Finds all models with the zoo's tag, whoever published them. With --hub, search these hubs
    instead.
    """
    from zoo.hub.places import open_hub
    from zoo.hub.places import search as search_hub

    if hub:
        models = [model for place in hub for model in open_hub(place).models()]
        found = [model for model in models if any(text.lower() in part.lower() for part in model)]
    else:
        found = search_hub(text)
    if as_json:
        print_json([{**model._asdict(), "ref": _ref(model.hub, model.name)} for model in found])
    elif not found:
        echo(f"no model matches {text!r}", err=True)
    else:
        print_table(
            ["model", "architecture", "trained on"],
            [[_ref(m.hub, m.name), m.architecture, m.data] for m in found],
        )


def _ref(hub: str, name: str) -> str:
    """The reference for zoo pull."""
    if hub.startswith("hf://"):
        return f"hf-hub:{hub.removeprefix('hf://')}/{name}"
    return f"local-dir:{hub}/{name}"
