"""From the name of a pretrained model to its folder, and to the model.

A pretrained model is a folder named ``<architecture>-<tag>`` with config.json and
model.safetensors. Hubs hold them: the folders that come with the zoo, then those that
``ZOO_HUB`` lists, each a folder of models or ``hf://org`` (:mod:`zoo.hub.places`). Loading
runs no code from a folder and unpickles nothing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.atomic import atomic_path, make_folder
from zoo.config import read_config
from zoo.errors import NotFoundError, ZooError, did_you_mean
from zoo.hub.measured import read_metrics, update_metrics
from zoo.hub.places import (
    Folder,
    Hub,
    Listed,
    Plugins,
    UnreachableError,
    bring,
    check_weights,
    open_hub,
)
from zoo.parts import WEIGHTS, check_parts

if TYPE_CHECKING:
    import torch

    from zoo.forecast import Forecaster

__all__ = [
    "builtin_folder",
    "hubs",
    "known_weights",
    "load",
    "pretrained_models",
    "pull",
    "read_metrics",
    "save",
    "update_metrics",
]


def builtin_folder() -> Path:
    """The folder of the pretrained models that come with the zoo."""
    package = Path(__file__).parent.parent
    installed = package / "_cards"  # in a wheel; a checkout has them beside the package
    return installed if installed.is_dir() else package.parent / "cards"


def hubs(hub: str | Sequence[str] | None = None) -> list[Hub]:
    """The hubs in the order in which they are asked: the built-in models, those named, plugins'.

    hub: as ``ZOO_HUB`` lists them, separated by commas, or a sequence; by default ZOO_HUB.
    """
    named = hub or os.environ.get("ZOO_HUB", "")
    places = named.split(",") if isinstance(named, str) else named
    others = [open_hub(place.strip()) for place in places if place.strip()]
    return [Folder(builtin_folder()), *others, Plugins()]


def pretrained_models(hub: str | Sequence[str] | None = None) -> dict[str, Listed]:
    """The pretrained models of all hubs by name, of each name the first; see :func:`hubs`.

    A hub that cannot be reached is warned of.
    """
    models: dict[str, Listed] = {}
    for place in hubs(hub):
        try:
            models = {model.name: model for model in place.models()} | models
        except UnreachableError as error:
            warnings.warn(str(error), stacklevel=2)
    return dict(sorted(models.items()))


def pull(
    ref: str, pretrained: bool | str = True, *, hub: str | Sequence[str] | None = None
) -> Path:
    """Bring a pretrained model here and return its folder.

    Args:
        ref: the name of a pretrained model ("mslstm-mmnist"), or of an architecture or
            alias ("mslstm": its first pretrained model); ``local-dir:PATH``; or
            ``hf-hub:org/name`` or ``hf-hub:org/name@revision`` on the Hugging Face Hub.
        pretrained: with the name of an architecture, which of its models: its tag.
        hub: where to look for a name, see :func:`hubs`.

    A name whose weights are known (``SHA256SUMS`` beside the built-in models, or a plugin's
    table) means these weights and no others. Raises ZooError where there is no such model, it
    cannot be had, or its weights differ.
    """
    if ref.startswith(("local-dir:", "hf-hub:", "hf://")):
        return bring(ref)
    wanted = ref if pretrained is True else f"{ref}-{pretrained}"
    names: set[str] = set()
    unreachable = []
    for place in hubs(hub):
        try:
            if found := place.pull(wanted):
                return _checked(wanted.partition("@")[0], found)
            models = place.models()
            names |= {model.name for model in models}
            name = _find(wanted, models, any_tag=pretrained is True)
            if name and (found := place.pull(name)):
                return _checked(name, found)
        except UnreachableError as error:
            unreachable.append(str(error))
    if os.path.isdir(ref):
        raise ZooError(f"no model is named {ref!r}; the folder of that name is local-dir:{ref}")
    also = "".join(f"; {error}" for error in unreachable)
    raise (ZooError if unreachable else NotFoundError)(
        f"there are no weights for {wanted!r}{did_you_mean(wanted, names)}{also}; see: zoo list"
    )


def load(
    ref: str,
    pretrained: bool | str = True,
    *,
    hub: str | Sequence[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> Forecaster:
    """A pretrained model, ready to forecast.

    Args:
        ref, pretrained, hub: as for :func:`pull`.
        device: where to put it.
        dtype: what to compute in; by default float32, or float64 if it was saved so.

    Raises ZooError for an unknown reference, an invalid config, weights that do not fit it,
    and a plugin that is not installed.
    """
    if not pretrained:
        raise ZooError(f"zoo.load gives pretrained models; without weights: zoo.create({ref!r})")
    folder = pull(ref, pretrained, hub=hub)
    check_parts(folder, [folder / "config.json", folder / WEIGHTS])
    config = read_config(folder)
    import torch

    from zoo.registry import build
    from zoo.weights import fit_weights, load_weights

    with torch.device("meta"):  # no config takes memory that its weights do not fill
        stored = fit_weights(build(config).network, folder / WEIGHTS)
    model = build(config).to(dtype or stored)
    load_weights(model.network, folder / WEIGHTS)
    try:
        return model.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # torch's two words for "no such device"
        raise ZooError(f"the device {device!r} cannot be used: {error}") from None


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


def _find(wanted: str, models: list[Listed], *, any_tag: bool) -> str | None:
    """The model that a name means by another name of its architecture, or without its tag."""
    from zoo.registry import ALIASES

    names = {model.name for model in models}
    for architecture in {*ALIASES, *ALIASES.values()}:
        if wanted.startswith(f"{architecture}-"):
            target = ALIASES.get(architecture, architecture)
            tag = wanted[len(architecture) + 1 :]
            for alias in (target, *(a for a, t in ALIASES.items() if t == target)):
                if f"{alias}-{tag}" in names:
                    return f"{alias}-{tag}"
    architecture = ALIASES.get(wanted, wanted)
    first = (model.name for model in models if model.architecture == architecture)
    return next(first, None) if any_tag and architecture else None


def _checked(name: str, folder: Path) -> Path:
    """The folder, unless the weights that are known by this name are others."""
    if sha256 := known_weights().get(name):
        check_weights(folder, name, sha256, "SHA256SUMS")
    return folder


def known_weights() -> dict[str, str]:
    """The sha256 of the weights of the zoo's own models, wherever they are pulled from."""
    path = builtin_folder() / "SHA256SUMS"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    sums = (line.split() for line in lines)
    return {file.partition("/")[0]: sha256 for sha256, file in sums}
