"""Pretrained models by name: find them on a hub, load and save them.

A pretrained model is a folder named ``<architecture>-<tag>`` with config.json and
model.safetensors. Hubs hold such folders: the one built into the zoo, then those listed in
``ZOO_HUB``, each a folder of models or ``hf://org`` (:mod:`zoo.hub.places`). Loading never runs
code from a folder and never unpickles.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.atomic import make_folder
from zoo.errors import ConfigError, HubError, NotFoundError, PluginError, did_you_mean
from zoo.hub.checkpoints import published_as, pull_checkpoint
from zoo.hub.places import (
    Folder,
    Hub,
    Listed,
    UnreachableError,
    check_weights,
    fetch,
    open_hub,
)
from zoo.model_folder import WEIGHTS, check_parts, read_config, write_config
from zoo.plugins import Plugin, Pretrained, find, names
from zoo.registry import ALIASES, MULTISCALE, architectures, build

if TYPE_CHECKING:
    import torch

    from zoo.forecast import Forecaster

#: Of the models of an architecture, the one with this tag is meant by its name: Moving MNIST is the
#: benchmark that nearly all papers share.
FIRST_TAG = "mmnist"

__all__ = [
    "builtin_folder",
    "find_pretrained",
    "hubs",
    "known_weights",
    "list_models",
    "load",
    "pretrained_models",
    "pull",
    "save",
]


def builtin_folder() -> Path:
    """Return the folder of the built-in pretrained models."""
    package = Path(__file__).parent.parent
    installed = package / "_cards"  # in a wheel; in a checkout they are next to the package
    return installed if installed.is_dir() else package.parent / "cards"


def hubs(hub: str | Sequence[str] | None = None) -> list[Hub]:
    """Return the hubs in search order: the built-in models, the hubs given, plugins.

    Args:
        hub: hubs in the form of ``ZOO_HUB``, separated by commas, or a sequence of them; by
            default those of ZOO_HUB.
    """
    given = hub or os.environ.get("ZOO_HUB", "")
    places = given.split(",") if isinstance(given, str) else given
    others = [open_hub(place.strip()) for place in places if place.strip()]
    return [Folder(builtin_folder()), *others, Plugins()]


def pretrained_models(hub: str | Sequence[str] | None = None) -> dict[str, Listed]:
    """Return the pretrained models of all hubs by name; the first hub wins (see :func:`hubs`).

    Hubs that cannot be reached are skipped with a warning.
    """
    models: dict[str, Listed] = {}
    for place in hubs(hub):
        try:
            models = {model.name: model for model in place.models()} | models
        except UnreachableError as error:
            warnings.warn(str(error), stacklevel=2)
    return dict(sorted(models.items()))


def list_models(pattern: str = "*", *, pretrained: bool | None = None) -> list[str]:
    """List the names of models that match a pattern such as ``"ms-*"``.

    A pattern that matches an alias also lists its architecture, and one that matches an
    architecture also lists its pretrained models.

    Args:
        pattern: a shell-style pattern.
        pretrained: True for pretrained models only, False for architectures only.
    """
    aliased = {target for alias, target in ALIASES.items() if fnmatchcase(alias, pattern)}

    def matches(architecture: str) -> bool:
        return architecture in aliased or fnmatchcase(architecture, pattern)

    models: set[str] = set()
    if pretrained is not True:
        models |= set(filter(matches, architectures()))
    if pretrained is not False:
        models |= {
            name
            for name, model in pretrained_models().items()
            if fnmatchcase(name, pattern) or matches(model.architecture)
        }
    return sorted(models)


def pull(
    ref: str, pretrained: bool | str = True, *, hub: str | Sequence[str] | None = None
) -> Path:
    """Download a pretrained model if necessary, and return its folder.

    Args:
        ref: the name of a pretrained model ("mslstm-mmnist"), or of an architecture or
            alias ("mslstm": its model of Moving MNIST, or else its first by name);
            ``local-dir:PATH``; or
            ``hf-hub:org/name`` or ``hf-hub:org/name@revision`` on the Hugging Face Hub.
        pretrained: the tag of the model, if `ref` is the name of an architecture.
        hub: where to look for a name, see :func:`hubs`.

    Raises:
        NotFoundError: if no hub has the model.
        HubError: if it cannot be downloaded, or its weights are not those known by its name:
            from ``SHA256SUMS`` of the built-in models, or from the plugin that lists it.
    """
    if ref.startswith(("local-dir:", "hf-hub:", "hf://")):
        return fetch(ref)
    wanted = ref if pretrained is True else f"{ref}-{pretrained}"
    listed: set[str] = set()
    unreachable = []
    for place in hubs(hub):
        try:
            if folder := place.pull(wanted):
                return _checked(wanted.partition("@")[0], folder)
            models = place.models()
            listed |= {model.name for model in models}
            name = _find(wanted, models, any_tag=pretrained is True)
            if name and (folder := place.pull(name)):
                return _checked(name, folder)
        except UnreachableError as error:
            unreachable.append(str(error))
    if os.path.isdir(ref):
        raise HubError(f"no model is named {ref!r}; for the folder of that name: local-dir:{ref}")
    if unreachable:
        raise HubError(
            f"no weights found for {wanted!r}{did_you_mean(wanted, listed)}; "
            f"{'; '.join(unreachable)}; see: zoo list"
        )
    untrained = architectures()
    if ALIASES.get(wanted, wanted) in untrained:
        raise NotFoundError(
            f"the architecture {wanted!r} has no pretrained model{did_you_mean(wanted, listed)}; "
            f"see: zoo list --pretrained; untrained: zoo.create({wanted!r})"
        )
    near = did_you_mean(wanted, {*listed, *untrained, *ALIASES})
    raise NotFoundError(f"no model is named {wanted!r}{near}; see: zoo list")


def load(
    ref: str,
    pretrained: bool | str = True,
    *,
    hub: str | Sequence[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    any_plugin: bool = False,
    optimize: str | None = None,
) -> Forecaster:
    """Load a pretrained model, ready to forecast.

    Args:
        ref: the model, as for :func:`pull`.
        pretrained: as for :func:`pull`.
        hub: as for :func:`pull`.
        device: the device to put it on.
        dtype: the precision; by default float32, or float64 if it was saved so.
        any_plugin: whether to accept a cell, topology or head of the same name from another
            distribution than the model was saved with.
        optimize: "auto" to choose fast settings for the device and frames of the size of training,
            one sequence at a time. They are checked once: float32 forecasts differ by at most
            1e-5. The attribute `optimized` of the model names them. The weights keep their values.

    Raises:
        ZooError: for an unknown model, an invalid config, weights that do not fit it, a plugin
            that is not installed or another than the model was saved with, and an unknown device.
    """
    if not pretrained:
        raise ConfigError(
            f"zoo.load returns pretrained models; for an untrained one: zoo.create({ref!r})"
        )
    folder = pull(ref, pretrained, hub=hub)
    check_parts(folder, [folder / "config.json", folder / WEIGHTS])
    config = read_config(folder)
    import torch

    from zoo.optimize import check_mode
    from zoo.optimize import optimize as choose_settings
    from zoo.weights import fit_weights, load_weights

    automatic = check_mode(optimize)
    with torch.device("meta"):  # a config alone must not allocate memory; weights may
        try:
            empty = build(config, any_plugin=any_plugin)
        except ConfigError as error:
            raise ConfigError(f"{folder / 'config.json'}: {error}") from None
        stored = fit_weights(empty.network, folder / WEIGHTS)
    model = build(empty.config).to(dtype or stored)
    load_weights(model.network, folder / WEIGHTS)
    try:
        model.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for unknown devices
        raise ConfigError(f"the device {device!r} is not available: {error}") from None
    if automatic:
        choose_settings(model)
    return model


def save(model: Forecaster, folder: str | Path) -> Path:
    """Write a model's config.json and model.safetensors to a folder, and return it.

    Each file is written atomically.

    Raises:
        ZooError: if they cannot be written.
    """
    from zoo.weights import save_weights

    folder = make_folder(folder)
    save_weights(model.network, folder / WEIGHTS)
    write_config(folder, model.config)
    return folder


def known_weights() -> dict[str, str]:
    """Return the sha256 of the weights of the zoo's own models, wherever they come from."""
    path = builtin_folder() / "SHA256SUMS"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    sums = (line.split() for line in lines)
    return {file.partition("/")[0]: sha256 for sha256, file in sums}


def find_pretrained(name: str) -> tuple[Pretrained, Plugin] | None:
    """Find the pretrained model of that name that a plugin lists, and the plugin.

    The names of the zoo's own models belong to no plugin.

    Raises:
        PluginError: if two plugins claim the name, or what is offered is not a zoo.Pretrained.
    """
    if name in known_weights():
        return None
    expected = "a zoo.Pretrained with a ref and 64 hexadecimal digits of sha256, or url and dialect"
    return find("pretrained", name, _is_pretrained, expected)


class Plugins(Hub):
    """The models that installed plugins list. Each names the place of its weights."""

    def models(self) -> list[Listed]:
        """The models of all plugins."""
        own = known_weights()
        return [self._listed(name) for name in names("pretrained") if name not in own]

    def pull(self, name: str) -> Path | None:
        """Download a model, and check its weights against the plugin's checksum."""
        if (found := find_pretrained(name)) is None:
            return None
        model, plugin = found
        if model.url:
            return pull_checkpoint(name, model.architecture or _architecture(name), model)
        folder = fetch(model.ref)
        check_weights(folder, name, model.sha256, plugin.source)
        return folder

    @staticmethod
    def _listed(name: str) -> Listed:
        try:
            found = find_pretrained(name)
        except PluginError:  # raised again by whoever asks for the model
            found = None
        model = found[0] if found else Pretrained()
        architecture = model.architecture or _architecture(name)
        published = published_as(model) if model.url else ""
        return Listed(name, architecture, model.data, "plugins", published)


def _is_pretrained(value: Any) -> bool:
    if not isinstance(value, Pretrained) or not all(
        isinstance(text, str) for text in (value.ref, value.sha256, value.url, value.dialect)
    ):
        return False
    checksum = re.fullmatch("[0-9a-f]{64}", value.sha256) is not None
    if value.url:
        return not value.ref and bool(value.dialect) and (checksum or not value.sha256)
    return checksum


def _architecture(name: str) -> str:
    """The architecture in the name of a pretrained model, ``<architecture>-<tag>``."""
    cell, *rest = name.split("-")
    return f"{cell}-{rest[0]}" if cell == MULTISCALE and rest else cell


def _find(wanted: str, models: list[Listed], *, any_tag: bool) -> str | None:
    """The model that a name means by another name of its architecture, or without its tag."""
    listed = {model.name for model in models}
    for architecture in {*ALIASES, *ALIASES.values()}:
        if wanted.startswith(f"{architecture}-"):
            target = ALIASES.get(architecture, architecture)
            tag = wanted[len(architecture) + 1 :]
            for alias in (target, *(a for a, t in ALIASES.items() if t == target)):
                if f"{alias}-{tag}" in listed:
                    return f"{alias}-{tag}"
    architecture = ALIASES.get(wanted, wanted)
    # Checkpoints of other projects are large, and only downloaded by their own names.
    own = [m.name for m in models if m.architecture == architecture and not m.published]
    own.sort(key=lambda name: not name.endswith(f"-{FIRST_TAG}"))
    return own[0] if any_tag and architecture and own else None


def _checked(name: str, folder: Path) -> Path:
    """The folder, if its weights are those known by this name."""
    if sha256 := known_weights().get(name):
        check_weights(folder, name, sha256, "SHA256SUMS")
    return folder
