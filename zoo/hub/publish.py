"""Publish a model folder, with a complete card, to a hub."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import EvalResult

from zoo.errors import ConfigError, HubError, NotFoundError, ZooError, shorten
from zoo.hub import known_weights
from zoo.hub.card import UNWRITTEN, card_results, read_card, read_recipe, write_card
from zoo.hub.places import NAME, Hub, HuggingFace, check_name, open_hub
from zoo.hub.scores import measured
from zoo.model_folder import (
    LARGEST_PICTURE,
    WEIGHTS,
    check_parts,
    parts_of,
    read_config,
    read_metrics,
)

__all__ = ["missing_from_card", "publish"]


def publish(
    folder: Path, destination: str, *, hub: str | None = None, dry_run: bool = False
) -> tuple[str, list[Path]]:
    """Publish a model folder atomically.

    The card of a model that goes to the Hugging Face Hub is updated to show how to load it.

    Args:
        folder: the model folder, with its card.
        destination: "org/name" on the Hugging Face Hub, or with `hub` the model's name there.
        hub: a folder of models or ``hf://org``.
        dry_run: check everything and send nothing.

    Returns:
        The address and the published files.

    Raises:
        ZooError: for an invalid model or an incomplete card, or if the hub rejects it. The hub
            is then unchanged.
    """
    place, name = _place(destination, hub)
    if not os.path.isdir(folder):
        raise NotFoundError(f"folder {folder} not found; expected the folder of a model")
    files = parts_of(folder)
    check_parts(folder, files)
    for file in files:
        if file.name != WEIGHTS and file.stat().st_size > LARGEST_PICTURE:
            raise HubError(f"{file} exceeds {LARGEST_PICTURE:,} bytes; make it smaller")
    read_config(folder)
    _check_weights(folder / WEIGHTS)
    repository = None if hub else destination
    if missing := missing_from_card(folder):
        raise HubError(f"{folder} cannot be published; missing: {'; '.join(missing)}")
    if dry_run:
        return f"{hub.rstrip('/')}/{name}" if hub else f"hf://{destination}", files
    if repository and not _names_repository(folder, repository):
        write_card(folder, repository=repository)
    return place.publish(folder, name, files), files


def missing_from_card(folder: Path) -> list[str]:
    """Return what a model's card lacks, each with the command that fixes it."""
    write = f"zoo card {folder}"
    if not os.path.isfile(folder / "README.md"):
        return [f"a card: {write}"]
    card = read_card(folder)
    missing = []
    if not card.data.get("license"):
        missing.append(f"a license: {write} --license NAME, such as apache-2.0")
    if not card.data.get("datasets"):
        missing.append(f"the training data: {write}")
    results = card.data.eval_results
    if not results or not read_metrics(folder).get("forecast"):
        missing.append(f"metrics: zoo eval local-dir:{folder} --save && {write}")
    elif not _agree(results, card_results(measured(folder))):
        missing.append(f"the current values of metrics.json: {write}")
    try:
        read_recipe(folder)
    except ZooError as error:
        missing.append(f"a recipe: {error}")
    empty = [
        section.splitlines()[0] for section in card.text.split("\n## ")[1:] if UNWRITTEN in section
    ]
    if empty:
        missing.append(f"a description under {shorten(empty)}: write it into README.md")
    return missing


def _agree(stated: list[EvalResult], measured: list[EvalResult]) -> bool:
    """Whether the results of a card, whose values may be anything, are those measured."""
    scores = [(result.metric_name, result.metric_value) for result in stated]
    return len(stated) == len(measured) and all(
        (result.metric_name, result.metric_value) in scores for result in measured
    )


def _names_repository(folder: Path, repository: str) -> bool:
    """Whether the card loads the model from a repository, or by the name of a built-in model."""
    refs = [f"hf-hub:{repository}", *known_weights()]
    return any(f'zoo.load("{ref}")' in read_card(folder).text for ref in refs)


def _place(destination: str, hub: str | None) -> tuple[Hub, str]:
    if hub:
        check_name(destination)
        return open_hub(hub), destination
    organisation, _, name = destination.partition("/")
    if not (NAME.fullmatch(organisation) and NAME.fullmatch(name)):
        raise ConfigError(
            f"{destination!r} is not a repository on the Hugging Face Hub; expected org/name, or "
            "a name with --hub FOLDER"
        )
    return HuggingFace(organisation), name


def _check_weights(path: Path) -> None:
    """Check that the weights are a valid safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            list(file.keys())
    except FileNotFoundError:
        raise HubError(f"{path} not found; a model needs weights") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise HubError(f"{path} is not a valid safetensors file ({error})") from None
