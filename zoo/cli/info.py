"""zoo info: facts about a model."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.common import as_json, echo, model_name, print_json, print_metrics


@click.command()
@click.argument("model")
@as_json
def info(model: str, as_json: bool) -> None:
    """Show the size, options, data and metrics of MODEL.

    For an architecture, show the default options and its pretrained models.
    """
    from zoo.hub import find_pretrained, pretrained_models, pull
    from zoo.model_folder import count_weights, read_config, read_metrics
    from zoo.registry import ALIASES, architectures, create

    facts: dict[str, Any] = {"name": ALIASES.get(model, model)}
    if facts["name"] in architectures():
        forecaster = create(model)
        config = forecaster.config
        parameters = sum(p.numel() for p in forecaster.parameters())
        facts["pretrained"] = [
            name
            for name, listed in pretrained_models().items()
            if listed.architecture == facts["name"]
        ]
    else:
        folder = pull(model)
        config, parameters = read_config(folder), count_weights(folder)
        facts |= {
            "name": model_name(model, folder),
            "folder": str(folder),
        }
        if metrics := read_metrics(folder):
            facts["metrics"] = metrics
        if (found := find_pretrained(model)) and found[0].scores:
            facts[f"published by {found[0].origin}"] = dict(found[0].scores)
    facts["parameters"] = parameters
    facts["config"] = config.model_dump(mode="json")
    if as_json:
        print_json(facts)
        return
    metrics, fields = facts.pop("metrics", {}), facts.pop("config")
    for key, value in {**facts, **fields}.items():
        if value is not None and key != "format":
            echo(f"{key:<15} {_shown(value)}")
    if scores := {key: metrics[key] for key in ("forecast", "all-steps") if metrics.get(key)}:
        print_metrics(scores, facts["name"])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={_shown(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)
