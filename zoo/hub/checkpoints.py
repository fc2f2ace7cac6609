"""Checkpoints of other projects: downloaded by name, converted, and cached as model folders.

Each has a folder in the cache of `huggingface_hub` (``HF_HOME``, ``HF_ASSETS_CACHE``), with the
model folder and SHA256SUMS, the checksum of the first download.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from zoo.atomic import atomic_folder, atomic_path
from zoo.config import Config
from zoo.errors import ConfigError, DataError, HubError
from zoo.fetching import download
from zoo.hub.papers import paper_links
from zoo.hub.places import LIBRARY, NAME
from zoo.model_folder import missing_files
from zoo.plugins import Pretrained
from zoo.tables import format_score, markdown_table, metric_label

__all__ = ["published_as", "pull_checkpoint"]

#: The largest checkpoint that is downloaded, in bytes; with the optimizer's state, networks of 50
#: million parameters have 600 MB.
LARGEST = 4 << 30


def pull_checkpoint(name: str, architecture: str, model: Pretrained) -> Path:
    """Return the model folder of a checkpoint, downloaded and converted if necessary.

    Args:
        name: Name of the model.
        architecture: Its architecture.
        model: Where the checkpoint is, and what it must contain.

    Raises:
        HubError: If it cannot be downloaded, is not what `model` says, or is not the file that was
            downloaded first. Nothing is cached then but the part of a broken download.
    """
    from huggingface_hub import cached_assets_path, constants
    from huggingface_hub.utils import WeakFileLock

    key = hashlib.sha256(model.url.encode()).hexdigest()[:8]
    place = cached_assets_path(
        LIBRARY, "checkpoints", f"{name}-{key}", assets_dir=constants.HF_ASSETS_CACHE
    )
    folder = place / name
    with WeakFileLock(place / ".lock"):
        if not missing_files(folder):
            return folder
        if constants.HF_HUB_OFFLINE:
            raise HubError(f"{name} is not in the cache; to download it, unset HF_HUB_OFFLINE")
        file = _download(model, place)
        try:
            sha256 = _check_file(model, file, place / "SHA256SUMS")
            _convert(name, architecture, model, file, folder)
        finally:
            file.unlink()
        with atomic_path(place / "SHA256SUMS") as temporary:
            temporary.write_text(f"{sha256}  {file.name}\n", encoding="utf-8")
    return folder


def published_as(model: Pretrained) -> str:
    """Return where a checkpoint and its scores are from."""
    origin = model.origin or urlsplit(model.url).hostname
    if not model.scores:
        return f"downloads from {origin}"
    return f"downloads from {origin}, scores published by {origin}, not measured here"


def _download(model: Pretrained, place: Path) -> Path:
    """Return the path of the downloaded checkpoint, whose suffix says what it is."""
    name = PurePosixPath(urlsplit(model.url).path).name
    file = place / (name if NAME.fullmatch(name) else "checkpoint.pth")
    part = file.with_name(f"{file.name}.part")
    try:
        download(model.url, part, limit=LARGEST)
    except (OSError, ValueError) as error:  # URLError and time-outs are OSErrors
        raise HubError(
            f"{model.url} cannot be downloaded ({error}); try again, which continues where it "
            "stopped"
        ) from None
    return part.replace(file)


def _check_file(model: Pretrained, file: Path, pin: Path) -> str:
    """Return the checksum of a download, if it is the expected one."""
    with file.open("rb") as opened:
        digest = hashlib.sha256()
        while chunk := opened.read(2**20):
            digest.update(chunk)
    sha256 = digest.hexdigest()
    expected, source = model.sha256, "the plugin"
    if not expected and pin.is_file():
        expected, source = pin.read_text(encoding="utf-8").split()[0], str(pin)
    if expected and sha256 != expected:
        raise HubError(
            f"{model.url} has changed: its sha256 is {sha256[:12]}…, {source} states "
            f"{expected[:12]}…; ask {model.origin or 'its authors'} why"
            + ("" if model.sha256 else f", or to accept it, delete {pin}")
        )
    return sha256


def _convert(name: str, architecture: str, model: Pretrained, file: Path, folder: Path) -> None:
    """Convert a checkpoint to a model folder with a card."""
    from zoo.convert import convert
    from zoo.convert.checkpoint import read_settings

    try:
        options = _with_moments(model.options, read_settings(file))
        with atomic_folder(folder) as temporary:
            converted = convert(model.dialect, file, temporary, arch=architecture, options=options)
            card = _card(name, converted.config, model)
            (temporary / "README.md").write_text(card, encoding="utf-8")
    except (ConfigError, DataError) as error:
        reason = str(error).removeprefix(f"{file}: ").replace(str(file), "it")
        raise HubError(f"{model.url} is not {name}, and nothing is kept of it: {reason}") from None


def _with_moments(options: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with mean and standard deviation of standardized data.

    They are among the settings of training, if the checkpoint has these. Otherwise the unit of the
    frames is that of standardized values.
    """
    import numpy as np

    data = dict(options.get("data", {}))
    if "standardization" not in data:
        return dict(options)
    moments = {
        key: np.asarray(settings[key], np.float64).reshape(-1).tolist()
        for key in ("mean", "std")
        if isinstance(settings.get(key), float | int | np.ndarray | np.generic)
    }
    if len(moments) == 2:
        data["standardization"] = moments
    else:
        data["unit"] = "1"
    return {**options, "data": data}


def _card(name: str, config: Config, model: Pretrained) -> str:
    """Return the card of a converted checkpoint."""
    from huggingface_hub import ModelCardData

    from zoo.hub.card import TASK

    origin = model.origin or urlsplit(model.url).hostname
    front_matter = ModelCardData(
        model_name=name,
        license=model.license or None,
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[LIBRARY, "spatiotemporal-prediction", f"architecture:{config.architecture}"],
        datasets=[model.data] if model.data else None,
    ).to_yaml()
    horizon = config.data.horizon or 10
    parts = [
        f"# {name}",
        f"`{config.architecture}`, {config.layers} layers. Weights of {origin}, converted from "
        f"[{PurePosixPath(urlsplit(model.url).path).name}]({model.url}) by `zoo pull {name}`; "
        f"license: {model.license or 'not stated'}.",
        f'```python\nimport zoo\n\nmodel = zoo.load("{name}")\n'
        f"future = model.predict(past, horizon={horizon})  # past: (B, T, {config.in_channels}, "
        f"H, W)\n```",
        *filter(None, [paper_links(config)]),
        *model.notes,
    ]
    if model.scores:
        rows = [[metric_label(m), format_score(m, value)] for m, value in model.scores.items()]
        parts += [
            "## Published scores",
            f"Published by {origin}, not measured here; other definitions and other test "
            "sequences than those of `zoo eval`, so do not compare them.",
            markdown_table(["", f"published by {origin}"], rows),
        ]
    return "\n\n".join([f"---\n{front_matter}\n---", *parts]) + "\n"
