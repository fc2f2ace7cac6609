"""Publishing: a model's folder goes to a hub whole, and with a card that says what it is."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.errors import ZooError
from zoo.hub import known_weights
from zoo.hub.card import UNWRITTEN, card_results, read_card, read_recipe, write_card
from zoo.hub.places import NAME, Hub, HuggingFace, check_name, open_hub
from zoo.model_folder import WEIGHTS, check_parts, parts_of, read_config, read_metrics

__all__ = ["publish", "what_is_missing"]


def publish(
    folder: Path, destination: str, *, hub: str | None = None, dry_run: bool = False
) -> tuple[str, list[Path]]:
    """Publish a model's folder; nothing of it is there, or all.

    Args:
        folder: the model's, with its card.
        destination: "org/name" on the Hugging Face Hub, or with `hub` the model's name there.
        hub: a folder of models or ``hf://org``.
        dry_run: check all and send nothing.

    Returns the address and the files that are there now, or would be. In a card that goes to
    the Hub it is written how the model is loaded from there.
    Raises ZooError for a folder that is no sound model, or whose card lacks what a card must
    have, and where the hub does not take it; the hub is then as it was.
    """
    place, name = _place(destination, hub)
    if not os.path.isdir(folder):
        raise ZooError(f"there is no folder {folder}; give the folder of a model")
    files = parts_of(folder)
    check_parts(folder, files)
    read_config(folder)
    _check_weights(folder / WEIGHTS)
    repository = None if hub else destination
    if missing := what_is_missing(folder):
        raise ZooError(f"{folder} cannot be published without {'; and without '.join(missing)}")
    if dry_run:
        return f"{hub.rstrip('/')}/{name}" if hub else f"hf://{destination}", files
    if repository and not _is_told(folder, repository):
        write_card(folder, repository=repository)
    return place.publish(folder, name, files), files


def what_is_missing(folder: Path) -> list[str]:
    """What a model's card must have and has not, each with the command that mends it."""
    write = f"zoo card {folder}"
    if not os.path.isfile(folder / "README.md"):
        return [f"a card: {write}"]
    card = read_card(folder)
    missing = []
    if not card.data.get("license"):
        missing.append(f"a licence: {write} --license NAME, such as apache-2.0")
    if not card.data.get("datasets"):
        missing.append(f"the data it was trained on: {write}")
    metrics, results = read_metrics(folder), card.data.get("eval_results")
    if not results or "forecast" not in metrics:
        missing.append(f"metrics: zoo eval local-dir:{folder} --save && {write}")
    elif {(r.metric_name, r.metric_value) for r in results} != {
        (r.metric_name, r.metric_value) for r in card_results(metrics)
    }:
        missing.append(f"the figures of its metrics.json, which have changed: {write}")
    try:
        read_recipe(folder)
    except ZooError as error:
        missing.append(f"a recipe: {error}")
    empty = [
        section.splitlines()[0] for section in card.text.split("\n## ")[1:] if UNWRITTEN in section
    ]
    if empty:
        missing.append(f"a description under {', '.join(empty)}: write it into README.md")
    return missing


def _is_told(folder: Path, repository: str) -> bool:
    """Whether the card tells to load the model from a repository, or by a name the zoo knows."""
    refs = [f"hf-hub:{repository}", *known_weights()]
    return any(f'zoo.load("{ref}")' in read_card(folder).text for ref in refs)


def _place(destination: str, hub: str | None) -> tuple[Hub, str]:
    if hub:
        check_name(destination)
        return open_hub(hub), destination
    organisation, _, name = destination.partition("/")
    if not (NAME.fullmatch(organisation) and NAME.fullmatch(name)):
        raise ZooError(
            f"{destination!r} is no repository on the Hugging Face Hub: give org/name, or a name "
            "and its place, --hub FOLDER"
        )
    return HuggingFace(organisation), name


def _check_weights(path: Path) -> None:
    """A sound safetensors file, as far as can be seen without the network it belongs to."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            list(file.keys())
    except FileNotFoundError:
        raise ZooError(f"there are no weights at {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ZooError(f"{path} is not a sound safetensors file ({error})") from None
