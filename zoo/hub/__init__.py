"""Places that hold pretrained models, and the way from a reference to a model.

A pretrained model is a folder named ``<architecture>-<tag>`` with config.json and
model.safetensors. The folders that come with the zoo are the built-in place; the Hugging
Face Hub is another. Loading runs no code from a folder and unpickles nothing.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.atomic import atomic_path, make_folder
from zoo.config import Config, nearest, read_config
from zoo.errors import ZooError

if TYPE_CHECKING:
    import torch

    from zoo.forecast import Forecaster

__all__ = ["builtin_folder", "load", "pretrained_models", "pull", "read_metrics", "save"]

WEIGHTS = "model.safetensors"

#: What is brought from the Hub: the parts of a model's folder and nothing else.
PARTS = ["*.json", "*.md", "*.toml", "*.png", "*.gif", WEIGHTS]


def builtin_folder() -> Path:
    """The folder of the pretrained models that come with the zoo."""
    package = Path(__file__).parent.parent
    installed = package / "_cards"  # in a wheel; a checkout has them beside the package
    return installed if installed.is_dir() else package.parent / "cards"


@functools.cache
def pretrained_models() -> dict[str, Config]:
    """The built-in pretrained models by name, with their configs."""
    return {
        path.parent.name: read_config(path.parent)
        for path in sorted(builtin_folder().glob("*/config.json"))
        if (path.parent / WEIGHTS).is_file()
    }


def pull(ref: str, pretrained: bool | str = True) -> Path:
    """Bring a pretrained model here and return its folder.

    Args:
        ref: the name of a pretrained model ("mslstm-mmnist"), or of an architecture or
            alias ("mslstm": its first pretrained model); ``local-dir:PATH``; or
            ``hf-hub:org/name`` or ``hf-hub:org/name@revision`` on the Hugging Face Hub.
        pretrained: with the name of an architecture, which of its models: its tag.

    Raises ZooError where there is no such model or it cannot be had.
    """
    for prefix, place in _PLACES.items():
        if ref.startswith(prefix):
            return place(ref[len(prefix) :])
    return builtin_folder() / _find(ref, pretrained)


def load(
    ref: str,
    pretrained: bool | str = True,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> Forecaster:
    """A pretrained model, ready to forecast.

    Args:
        ref, pretrained: as for :func:`pull`.
        device: where to put it.
        dtype: what to compute in; by default float32, or float64 if it was saved so.

    Raises ZooError for an unknown reference, an invalid config, weights that do not fit it,
    and a plugin that is not installed.
    """
    if not pretrained:
        raise ZooError(f"zoo.load gives pretrained models; without weights: zoo.create({ref!r})")
    folder = pull(ref, pretrained)
    config = read_config(folder)
    import torch

    from zoo.registry import build
    from zoo.weights import check_weights, load_weights

    with torch.device("meta"):  # no config takes memory that its weights do not fill
        stored = check_weights(build(config).network, folder / WEIGHTS)
    model = build(config).to(dtype or stored)
    load_weights(model.network, folder / WEIGHTS)
    try:
        return model.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # torch's two words for "no such device"
        raise ZooError(f"the device {device!r} cannot be used: {error}") from None


def read_metrics(folder: Path) -> dict[str, Any]:
    """What was measured of the model in a folder, {} where nothing was.

    Raises ZooError where metrics.json is not a JSON object.
    """
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(metrics, dict):
        raise ZooError(f"{path} holds no JSON object; measure the model again: zoo eval --save")
    return metrics


def save(model: Forecaster, folder: str | Path) -> Path:
    """Write a model's config.json and model.safetensors to a folder, and return it.

    Each file appears whole or not at all. Raises ZooError where they cannot be written.
    """
    from zoo.weights import save_weights

    folder = make_folder(folder)
    save_weights(model.network, folder / WEIGHTS)
    with atomic_path(folder / "config.json") as temporary:
        temporary.write_text(model.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder


def _find(name: str, pretrained: bool | str) -> str:
    """The built-in model that a name means."""
    models = pretrained_models()
    if name in models and pretrained is True:
        return name
    # Any name of the architecture will do before the tag, whichever the folder has.
    from zoo.registry import ALIASES

    tags: dict[str, str] = {}
    firsts: dict[str, str] = {}
    for model, config in models.items():
        known = [config.architecture, *(a for a, t in ALIASES.items() if t == config.architecture)]
        for architecture in known:
            if model.startswith(f"{architecture}-"):
                tag = model[len(architecture) + 1 :]
                tags |= {f"{alias}-{tag}": model for alias in known}
                firsts = dict.fromkeys(known, model) | firsts
    wanted = name if pretrained is True else f"{name}-{pretrained}"
    if wanted in tags:
        return tags[wanted]
    if pretrained is True and name in firsts:
        return firsts[name]
    raise ZooError(
        f"there are no weights for {wanted!r}{nearest(wanted, {*models, *tags})}; see: zoo list"
    )


def _local_dir(path: str) -> Path:
    folder = Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown ~user
    if not folder.is_dir():
        raise ZooError(f"there is no folder {folder}; give local-dir: the folder of a model")
    return folder


def _hf_hub(path: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = path.partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, allow_patterns=PARTS)
    except HFValidationError as error:
        raise ZooError(
            f"{repository!r} is no name of a repository (hf-hub:org/name): {error}"
        ) from None
    except LocalEntryNotFoundError:
        raise ZooError(
            f"hf-hub:{path} is not in the cache and the Hub cannot be reached; "
            "check the network, or unset HF_HUB_OFFLINE"
        ) from None
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ZooError(f"hf-hub:{path} cannot be had from the Hub: {reason}") from None
    except OSError as error:
        raise ZooError(f"hf-hub:{path} cannot be brought here: {error}") from None
    return Path(folder)


_PLACES: dict[str, Callable[[str], Path]] = {"local-dir:": _local_dir, "hf-hub:": _hf_hub}
