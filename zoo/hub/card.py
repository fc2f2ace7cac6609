"""Model cards: README.md of a model folder, generated from its config, recipe and metrics.

Blocks between ``<!-- NAME -->`` and ``<!-- /NAME -->`` are generated from config.json,
recipe.toml and metrics.json. Text outside the blocks is written by people, and is preserved when
the card is written again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCardData

from zoo.atomic import atomic_path
from zoo.config import Config
from zoo.errors import ConfigError, HubError, ZooError
from zoo.hub.card_text import cost, results, summary, training
from zoo.hub.places import LIBRARY, NAME
from zoo.hub.scores import PROTOCOLS, full_title, measured, numbers, score_label
from zoo.model_folder import parse_toml, read_config, read_text, writable_part

__all__ = [
    "TASK",
    "UNWRITTEN",
    "Card",
    "card_results",
    "read_card",
    "read_recipe",
    "write_card",
]

#: The Hub's name for the task.
TASK = "time-series-forecasting"

#: The placeholder that must be replaced before a model is published.
UNWRITTEN = "Not described yet."

#: The longest metadata of a card in characters; those of the zoo's own cards have some 3,000.
LONGEST_METADATA = 64 << 10

#: Levels of brackets in the metadata of a card.
DEEPEST_METADATA = 20

#: A new card. The blocks are generated; the sections between them are for people to write.
TEMPLATE = f"""
<!-- summary -->
<!-- /summary -->

## Intended use

{UNWRITTEN}

<!-- results -->
<!-- /results -->

## Where it fails

{UNWRITTEN}

<!-- training -->
<!-- /training -->

<!-- cost -->
<!-- /cost -->

## License and citation

{UNWRITTEN}
"""


class Card(NamedTuple):
    """A model card: the metadata that the Hub understands, and the Markdown below them."""

    data: ModelCardData
    text: str


def write_card(folder: Path, license: str | None = None, repository: str | None = None) -> Path:
    """Write or update the card of a model folder, and return its path.

    Args:
        folder: the model folder.
        license: the Hub's identifier, such as "apache-2.0"; by default that of the existing
            card.
        repository: the repository on the Hub, org/name, from which the card loads the model; by
            default that of the existing card, or else the name of the folder.

    Raises:
        ZooError: if config.json, recipe.toml or metrics.json is missing or incomplete.
    """
    config, metrics = read_config(folder), measured(folder)
    if repository and not re.fullmatch(f"{NAME.pattern}/{NAME.pattern}", repository):
        raise ConfigError(
            f"{repository!r} is not a repository on the Hugging Face Hub; expected org/name"
        )
    recipe = read_recipe(folder)
    path = writable_part(folder, "README.md")
    name = folder.resolve().name
    if not name.isprintable():
        raise ConfigError(f"{name!r} is not a valid name of a model; rename its folder")
    existing = read_card(folder) if os.path.lexists(path) else None
    text = existing.text if existing else TEMPLATE
    shown = re.search(r'zoo\.load\("(hf-hub:[^"]+)"\)', _block(text, "summary"))
    ref = f"hf-hub:{repository}" if repository else shown[1] if shown else name
    blocks = {
        "summary": summary(name, ref, folder, config, metrics),
        "results": results(name, folder, config, metrics),
        "training": training(metrics, recipe),
        "cost": cost(name, metrics),
    }
    for block, content in blocks.items():
        text = _replace(text, block, content)
    data = existing.data.to_dict() if existing else {}
    data |= {
        "model_name": name,
        "license": license or data.get("license"),
        "library_name": LIBRARY,
        "pipeline_tag": TASK,
        "tags": _tags(config, data.get("tags")),
        "datasets": [metrics["data"]["name"]],
        "eval_results": card_results(metrics),
    }
    data.pop("model-index", None)
    try:
        front_matter = ModelCardData(**data).to_yaml()
    except Exception as error:  # from the YAML writer, or the client's validation
        raise HubError(f"{path} has invalid metadata: {_one_line(error)}") from None
    with atomic_path(path) as temporary:
        content = f"---\n{front_matter}\n---\n\n{text.strip()}\n"
        temporary.write_text(content, encoding="utf-8")
    return path


def read_card(folder: Path) -> Card:
    """Read the card of a model folder.

    Raises:
        HubError: if there is none, or its metadata are invalid.
    """
    path = folder / "README.md"
    try:
        metadata, text = _split(read_text(path))
        return Card(ModelCardData(**_parse_metadata(metadata)), text)
    except ZooError:
        raise
    except FileNotFoundError:
        raise HubError(f"{folder} has no card (README.md); write one: zoo card {folder}") from None
    except Exception as error:  # from the YAML parser, or the client's validation
        raise HubError(f"{path} has invalid metadata: {_one_line(error)}") from None


def read_recipe(folder: Path) -> str:
    """Read the recipe of a model folder; it need not be one of zoo train.

    Raises:
        HubError: if there is none, or it is empty or not TOML.
    """
    path = folder / "recipe.toml"
    try:
        text = read_text(path)
        if not parse_toml(text.encode()):
            raise HubError(f"{path} is empty; copy the recipe of the model there")
        return text
    except FileNotFoundError:
        raise HubError(f"{folder} has no recipe.toml; copy the recipe of the model there") from None
    except ValueError as error:
        raise HubError(f"{path} is not valid TOML: {error}") from None


def card_results(metrics: dict[str, Any]) -> list[EvalResult]:
    """Return all metrics in the format of the Hub."""
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=metrics["data"]["name"],
            dataset_name=full_title(metrics),
            dataset_split=metrics["data"]["split"],
            metric_type=metric,
            metric_name=f"{score_label(metric, metrics)} ({protocol})",
            metric_value=value,
        )
        for protocol in PROTOCOLS
        for metric, value in numbers(metrics[protocol]["model"]).items()
    ]


class _Loader(yaml.SafeLoader):
    """A YAML loader without what makes short texts slow to read: aliases and deep nesting."""

    def fetch_alias(self) -> None:
        raise yaml.YAMLError("it uses aliases; write out their values")

    def fetch_flow_collection_start(self, token: type) -> None:
        if self.flow_level >= DEEPEST_METADATA:
            raise yaml.YAMLError("it is too deeply nested")
        super().fetch_flow_collection_start(token)


def _parse_metadata(text: str) -> dict[str, Any]:
    if len(text) > LONGEST_METADATA:
        raise ValueError(f"it exceeds {LONGEST_METADATA:,} characters")
    metadata = yaml.load(text, _Loader) or {}
    if not isinstance(metadata, dict):
        raise ValueError("it has no keys")
    metadata.pop("eval_results", None)  # the client's name for what the Hub calls model-index
    return metadata


def _split(card: str) -> tuple[str, str]:
    """Split a card into its metadata, between two lines of dashes, and the text below."""
    lines = card.lstrip().split("\n")
    if lines[0].rstrip() == "---":
        for number, line in enumerate(lines[1:], 1):
            if line.rstrip() == "---":
                return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    return "", card


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _tags(config: Config, before: Any) -> list[str]:
    ours = [LIBRARY, "spatiotemporal-prediction", f"architecture:{config.architecture}"]
    others = [tag for tag in before if isinstance(tag, str)] if isinstance(before, list) else []
    return [*ours, *(t for t in others if t not in ours and not t.startswith("architecture:"))]


def _block(text: str, block: str) -> str:
    """The content of a block, or ""."""
    begin, end = _span(text, block)
    return text[begin:end]


def _replace(text: str, block: str, content: str) -> str:
    """The text with a block's content replaced, or with the block appended."""
    mark = f"<!-- /{block} -->"
    if mark in content:
        raise HubError(f"the card's block {block} would contain {mark}, which ends it; remove it")
    begin, end = _span(text, block)
    filled = f"\n{content}\n" if content else "\n"
    if end:
        return text[:begin] + filled + text[end:]
    return f"{text.rstrip()}\n\n<!-- {block} -->{filled}{mark}\n" if content else text


def _span(text: str, block: str) -> tuple[int, int]:
    """Where the content of a block begins and ends in a text; (0, 0) without the block."""
    mark = f"<!-- {block} -->"
    first = text.find(mark)
    end = text.find(f"<!-- /{block} -->", first) if first >= 0 else -1
    # A mark before the last one is text: it begins no block.
    return (text.rfind(mark, first, end) + len(mark), end) if end >= 0 else (0, 0)
