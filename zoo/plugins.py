"""What a plugin can provide, and how plugins are found and kept from harming one another.

A plugin is a module under the entry-point group ``zoo`` that implements any of the hooks
below with ``@zoo.hookimpl``. The zoo's own cells are found the same way.

A plugin is imported when a name is asked for that it may provide: those whose entry point
bears the name first, and all of them where none of these has it. What else was imported before
has no part in what a name means. One that fails to import, or
offers something that is not what the hook promises, is set aside with its error
(:attr:`Plugin.error`), is told of when something is asked for that it may provide, and
everything else goes on working.

Environment: ``ZOO_PLUGINS=a,b`` leaves all plugins out but those of these entry points or
distributions; ``ZOO_STRICT=1`` makes a plugin that fails an error, not a warning.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pluggy

from zoo.errors import ZooError, did_you_mean

if TYPE_CHECKING:
    import click
    from torch import Tensor
    from torch.utils.data import Dataset

    from zoo.cell import RecurrentCell
    from zoo.convert.dialect import Dialect
    from zoo.head import Head
    from zoo.topology import Topology

__all__ = [
    "HOOKS",
    "Kind",
    "Plugin",
    "Pretrained",
    "find",
    "find_cell",
    "find_head",
    "find_topology",
    "forget",
    "hookimpl",
    "load_plugins",
    "names",
    "strict",
    "tell",
]

DISTRIBUTION = "spatiotemporal-zoo"

#: The version of the hooks. It rises when a hook changes so that older plugins no longer fit. A
#: plugin may say which it was written for, ``ZOO_HOOKS = 1``, and is set aside under another.
HOOKS = 1

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")

Kind = Literal["cells", "topologies", "heads", "datasets", "dialects", "commands", "pretrained"]


class Pretrained(NamedTuple):
    """Weights that somebody has published.

    ref: where, as :func:`zoo.pull` takes it: ``hf-hub:org/name@revision``.
    sha256: of model.safetensors, in hexadecimal; a file that differs is refused.
    """

    ref: str
    sha256: str


class Hooks:
    """The hooks, all optional. Each is a function without arguments that returns a dict.

    Names are of lower-case letters, digits and '_' (those of pretrained models and commands may
    have '-'). A name that the zoo itself has cannot be taken. Of plugins that claim one name, the
    one whose entry point bears it has it; where several such do, or none, it is an error to ask
    for the name, and in any case to list all names. (Each of the zoo's own cells is a plugin
    with an entry point of its name.) Name the entry point as what it provides, so that the
    plugin is imported for that alone.
    """

    @hookspec
    def zoo_cells(self) -> dict[str, type[RecurrentCell]]:  # type: ignore[empty-body]
        """Cells. Each becomes two architectures, ``<name>`` and ``ms-<name>``."""

    @hookspec
    def zoo_topologies(self) -> dict[str, Callable[..., Topology]]:  # type: ignore[empty-body]
        """Topologies: functions of ``layers``.

        One that also takes ``halvings`` is given the number that is asked for, if any is.
        Each can be chosen for every cell: ``zoo.create("<name>-<cell>")``.
        """

    @hookspec
    def zoo_heads(self) -> dict[str, type[Head]]:  # type: ignore[empty-body]
        """Heads. Each can be chosen for every architecture: ``zoo.create(..., head="<name>")``."""

    @hookspec
    def zoo_datasets(self) -> dict[str, Callable[..., Dataset[Tensor]]]:  # type: ignore[empty-body]
        """Data sets: functions of (folder, split=, frames=, and options of their own).

        Each returns a map-style data set of float32 tensors (T, C, H, W), T = ``frames``, in
        [0, 1]. ``folder`` is that of the data set's name under the data root.
        """

    @hookspec
    def zoo_dialects(self) -> dict[str, Dialect]:  # type: ignore[empty-body]
        """Dialects of foreign checkpoints, for ``zoo convert``.

        Each is a function of (tensors by name, architecture, topology or None, options) that
        returns a :class:`zoo.convert.dialect.Converted`.
        """

    @hookspec
    def zoo_commands(self) -> dict[str, click.Command]:  # type: ignore[empty-body]
        """Commands of ``zoo``: ``zoo <name>`` runs it. A ZooError ends it as any other."""

    @hookspec
    def zoo_pretrained(self) -> dict[str, Pretrained]:  # type: ignore[empty-body]
        """Pretrained models by name, ``<architecture>-<tag>``, and where their weights are."""


@dataclass
class Plugin:
    """One entry point: where it comes from, what it provides, what is wrong with it."""

    entry: EntryPoint
    provides: dict[Kind, dict[str, Any]] = field(default_factory=dict)  # by kind and name
    error: str = ""
    loaded: bool = False
    told: bool = False  # whether a warning of its error has been given

    @property
    def name(self) -> str:
        """The name of the entry point."""
        return self.entry.name

    @property
    def distribution(self) -> str:
        """The name of the distribution, as pip knows it."""
        return self.entry.dist.name if self.entry.dist else "unknown"

    @property
    def version(self) -> str:
        """The version of the distribution."""
        return self.entry.dist.version if self.entry.dist else ""

    @property
    def source(self) -> str:
        """The plugin named for an error message."""
        return f"plugin {self.name!r} of distribution {self.distribution} {self.version}".strip()

    def offers(self, kind: Kind) -> dict[str, Any]:
        """What it provides of a kind, by name."""
        return self.provides.get(kind, {})


def load_plugins() -> tuple[Plugin, ...]:
    """Every installed plugin, imported once, those that fail with their errors."""
    return tuple(map(_load, installed()))


def find(kind: Kind, name: str) -> tuple[Any, Plugin] | None:
    """What plugins provide under a name, and the plugin; None where nobody provides it.

    Of several, it is the one whose entry point bears the name. Warns of plugins that fail where
    they may have provided it. Raises ZooError when two have an equal claim to the name.
    """
    likely = [p for p in installed() if _is_named_for(p.name, kind, name)]
    for plugins in (likely, installed()):
        providers = [plugin for plugin in plugins if name in _load(plugin).offers(kind)]
        if not providers:
            tell(plugins)
        if len(providers) > 1:
            raise ZooError(_clash(kind, name, providers))
        if providers:
            return providers[0].offers(kind)[name], providers[0]
    return None


def find_cell(name: str) -> tuple[type[RecurrentCell], Plugin] | None:
    """The cell of that name and the plugin it comes from; None where nobody provides it.

    Raises ZooError when two plugins claim the name.
    """
    return find("cells", name)


def find_topology(name: str) -> tuple[Callable[..., Topology], Plugin | None] | None:
    """The topology of that name, and its plugin unless it is the zoo's own; None for neither.

    Raises ZooError when two plugins claim the name.
    """
    from zoo.topology import TOPOLOGIES

    return (TOPOLOGIES[name], None) if name in TOPOLOGIES else find("topologies", name)


def find_head(name: str) -> tuple[type[Head], Plugin | None] | None:
    """The head of that name, and its plugin unless it is the zoo's own; None for neither.

    Raises ZooError when two plugins claim the name.
    """
    from zoo.head import HEADS

    return (HEADS[name], None) if name in HEADS else find("heads", name)


def names(kind: Kind) -> list[str]:
    """All names of a kind that plugins provide, sorted.

    Warns of plugins that fail. Raises ZooError when two claim one name.
    """
    plugins = load_plugins()
    tell(plugins)
    claims: dict[str, list[Plugin]] = {}
    for plugin in plugins:
        for name in plugin.offers(kind):
            claims.setdefault(name, []).append(plugin)
    for name, providers in claims.items():
        if len(providers) > 1:
            raise ZooError(_clash(kind, name, providers))
    return sorted(claims)


def tell(plugins: Iterable[Plugin]) -> None:
    """Warn once of each plugin that failed; raise ZooError instead under ``ZOO_STRICT=1``."""
    for plugin in plugins:
        if plugin.error and strict():
            raise ZooError(
                f"{plugin.source} fails: {plugin.error}; mend it, unset ZOO_STRICT, or: "
                f"pip uninstall {plugin.distribution}"
            )
        if plugin.error and not plugin.told:
            plugin.told = True
            warnings.warn(f"{plugin.source} is left out: {plugin.error}", stacklevel=3)


def strict() -> bool:
    """Whether a plugin that fails is an error: ``ZOO_STRICT=1``."""
    return os.environ.get("ZOO_STRICT", "0") not in ("", "0")


def forget() -> None:
    """Look for plugins anew: they were installed, removed or chosen since."""
    installed.cache_clear()
    _manager.cache_clear()


def _is_named_for(entry: str, kind: Kind, name: str) -> bool:
    """Whether an entry point's name tells that it provides `name`."""
    return entry == name or (kind == "pretrained" and entry in name.split("-"))


def _clash(kind: Kind, name: str, providers: list[Plugin]) -> str:
    claims = " and ".join(f"{p.distribution} ({p.entry.value})" for p in providers)
    # Whoever came after the zoo's own cells has to give way.
    last = max(providers, key=lambda p: p.distribution != DISTRIBUTION)
    return (
        f"the name {name!r} is claimed by {claims}, each with {kind} of its own; "
        f"keep one: pip uninstall {last.distribution}"
    )


@functools.cache
def installed() -> tuple[Plugin, ...]:
    """All plugins, or those that ZOO_PLUGINS names, none of them imported yet."""
    found = sorted(entry_points(group="zoo"), key=lambda entry: (entry.name, entry.value))
    plugins = tuple(map(Plugin, found))
    given = (name.strip() for name in os.environ.get("ZOO_PLUGINS", "").split(","))
    chosen = {_normalised(name): name for name in given if name}
    known = {name for plugin in plugins for name in (plugin.name, plugin.distribution)}
    for name in sorted(chosen.keys() - set(map(_normalised, known))):
        raise ZooError(
            f"ZOO_PLUGINS names {chosen[name]!r}, which is no plugin or distribution that is "
            f"installed{did_you_mean(chosen[name], known)}; "
            "see them all: env -u ZOO_PLUGINS zoo plugins"
        )
    return tuple(
        plugin
        for plugin in plugins
        if not chosen or {_normalised(plugin.name), _normalised(plugin.distribution)} & set(chosen)
    )


def _normalised(name: str) -> str:
    """The one spelling of all that pip holds equal: Zoo_Mine is zoo-mine."""
    return re.sub("[-_.]+", "-", name).lower()


@functools.cache
def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(Hooks)
    return manager


def _load(plugin: Plugin) -> Plugin:
    """Import a plugin, once, and ask it for all that it provides."""
    if plugin.loaded:
        return plugin
    plugin.loaded = True
    # Two distributions may use one entry-point name; only what they provide has to be unique.
    key = f"{plugin.name} of {plugin.distribution}"
    manager = _manager()
    try:
        module = plugin.entry.load()
        if (version := getattr(module, "ZOO_HOOKS", HOOKS)) != HOOKS:
            raise RuntimeError(
                f"it is written for version {version} of the hooks, this zoo has {HOOKS}; bring "
                f"both up to date: pip install -U {DISTRIBUTION} {plugin.distribution}"
            )
        for kind in _CHECKS:
            hook = f"zoo_{kind}"
            if hasattr(module, hook) and manager.parse_hookimpl_opts(module, hook) is None:
                raise TypeError(f"{hook} is not marked as a hook; put @zoo.hookimpl above it")
        manager.register(module, name=key)
        manager.check_pending()
        plugin.provides = {
            kind: _offered(getattr(manager.hook, f"zoo_{kind}"), key, check)
            for kind, check in _CHECKS.items()
        }
    except KeyboardInterrupt:
        plugin.loaded = False
        raise
    except BaseException as error:  # a plugin may fail in any way at all
        plugin.error = " ".join(f"{type(error).__name__}: {error}".split())
        if manager.has_plugin(key):
            manager.unregister(name=key)
    return plugin


def _offered(
    hook: pluggy.HookCaller, key: str, check: Callable[[str, object], str]
) -> dict[str, Any]:
    """What one plugin returns from a hook, checked; {} where it does not implement it."""
    for implementation in hook.get_hookimpls():
        if implementation.plugin_name == key:
            values = implementation.function()
            if not isinstance(values, dict):
                raise TypeError(f"{hook.name}() returned a {type(values).__name__}, not a dict")
            # '-' would make names such as '<topology>-<cell>' and '<model>-<tag>' ambiguous.
            hyphen = "-" if hook.name in ("zoo_commands", "zoo_pretrained") else ""
            for name, value in values.items():
                if not (isinstance(name, str) and re.fullmatch(f"[a-z0-9_{hyphen}]+", name)):
                    characters = f"a-z, 0-9 and '_'{hyphen and ', and hyphens'}"
                    raise ValueError(f"{hook.name}() offers {name!r}; names are of {characters}")
                if problem := check(name, value):
                    raise TypeError(f"{hook.name}() offers {name!r}{problem}")
            return values
    return {}


def _check_cell(name: str, cell: object) -> str:
    from zoo.cell import RecurrentCell

    sound = isinstance(cell, type) and issubclass(cell, RecurrentCell)
    return "" if sound else f" = {cell!r}; expected a RecurrentCell"


def _check_topology(name: str, topology: object) -> str:
    from zoo.topology import TOPOLOGIES

    return _check_function(name, topology, own={*TOPOLOGIES, "ms"})


def _check_head(name: str, head: object) -> str:
    from zoo.head import HEADS, Head

    if name in HEADS:
        return ", which is a name of the zoo's own"
    sound = isinstance(head, type) and issubclass(head, Head)
    return "" if sound else f" = {head!r}; expected a Head"


def _check_dataset(name: str, dataset: object) -> str:
    from zoo.data import DATASETS

    return _check_function(name, dataset, own=DATASETS)


def _check_dialect(name: str, dialect: object) -> str:
    from zoo.convert import DIALECTS

    return _check_function(name, dialect, own=DIALECTS)


def _check_function(name: str, value: object, *, own: Iterable[str]) -> str:
    if name in own:
        return ", which is a name of the zoo's own"
    return "" if callable(value) else f" = {value!r}; expected a function"


def _check_command(name: str, command: object) -> str:
    import click

    from zoo.cli import COMMANDS

    if name in COMMANDS:
        return ", which is a name of the zoo's own"
    return "" if isinstance(command, click.Command) else f" = {command!r}; expected a click.Command"


def _check_pretrained(name: str, model: object) -> str:
    from zoo.hub import known_weights

    if name in known_weights():
        return ", which is a name of the zoo's own"
    if not (isinstance(model, Pretrained) and isinstance(model.ref, str)):
        return f" = {model!r}; expected a zoo.Pretrained"
    if not (isinstance(model.sha256, str) and re.fullmatch("[0-9a-f]{64}", model.sha256)):
        return f" with sha256 = {model.sha256!r}; expected 64 hexadecimal digits"
    return ""


_CHECKS: dict[Kind, Callable[[str, object], str]] = {
    "cells": _check_cell,
    "topologies": _check_topology,
    "heads": _check_head,
    "datasets": _check_dataset,
    "dialects": _check_dialect,
    "commands": _check_command,
    "pretrained": _check_pretrained,
}
