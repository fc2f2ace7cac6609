"""What a plugin can provide, and how plugins are found and kept from harming one another.

A plugin is a module under the entry-point group ``zoo`` that implements any of the hooks
below with ``@zoo.hookimpl``. The zoo's own cells are found the same way. A plugin that fails
to import, or offers something that is not what the hook promises, is set aside with its
error (:attr:`Plugin.error`) and everything else goes on working.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.cell import RecurrentCell
    from zoo.convert.dialect import Dialect
    from zoo.topology import Topology

__all__ = ["Plugin", "find_cell", "find_dialect", "find_topology", "hookimpl", "load_plugins"]

DISTRIBUTION = "spatiotemporal-zoo"

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


class Hooks:
    """The hooks, all optional."""

    @hookspec
    def zoo_cells(self) -> dict[str, type[RecurrentCell]]:  # type: ignore[empty-body]
        """The cells of this plugin by name: lower-case letters, digits and '_'.

        Each becomes two architectures, ``<name>`` and ``ms-<name>``.
        """

    @hookspec
    def zoo_topologies(self) -> dict[str, Callable[..., Topology]]:  # type: ignore[empty-body]
        """The topologies of this plugin by name: functions of ``layers``.

        One that also takes ``halvings`` is given the number that is asked for, if any is.
        Each can be chosen for every cell: ``zoo.create("<name>-<cell>")``.
        """

    @hookspec
    def zoo_dialects(self) -> dict[str, Dialect]:  # type: ignore[empty-body]
        """The dialects of this plugin by name: functions that read a foreign checkpoint.

        Each is a function of (tensors by name, architecture, topology or None, options) that
        returns a :class:`zoo.convert.dialect.Converted`, for ``zoo convert``.
        """


@dataclass
class Plugin:
    """One entry point: where it comes from, what it provides, what is wrong with it."""

    name: str
    module: str
    distribution: str = "unknown"
    version: str = ""
    cells: dict[str, type[RecurrentCell]] = field(default_factory=dict)
    topologies: dict[str, Callable[..., Topology]] = field(default_factory=dict)
    dialects: dict[str, Dialect] = field(default_factory=dict)
    error: str = ""

    @property
    def source(self) -> str:
        """The plugin named for an error message."""
        return f"plugin {self.name!r} of distribution {self.distribution} {self.version}".strip()


@functools.cache
def load_plugins() -> tuple[Plugin, ...]:
    """Import every installed plugin, once; warn of each that fails."""
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(Hooks)
    found = sorted(entry_points(group="zoo"), key=lambda entry: (entry.name, entry.value))
    plugins = tuple(_load(manager, entry) for entry in found)
    for plugin in plugins:
        if plugin.error:
            warnings.warn(f"{plugin.source} is left out: {plugin.error}", stacklevel=2)
    return plugins


def find_cell(name: str) -> tuple[type[RecurrentCell], Plugin] | None:
    """The cell of that name and the plugin it comes from; None where nobody provides it.

    Raises ZooError when two plugins claim the name.
    """
    plugin = _provider("cells", name)
    return (plugin.cells[name], plugin) if plugin else None


def find_topology(name: str) -> Callable[..., Topology] | None:
    """The topology of that name, the zoo's own or a plugin's; None where nobody provides it.

    Raises ZooError when two plugins claim the name.
    """
    from zoo.topology import TOPOLOGIES

    if name in TOPOLOGIES:
        return TOPOLOGIES[name]
    plugin = _provider("topologies", name)
    return plugin.topologies[name] if plugin else None


def find_dialect(name: str) -> Dialect | None:
    """The dialect of that name from a plugin; None where nobody provides it.

    Raises ZooError when two plugins claim the name.
    """
    plugin = _provider("dialects", name)
    return plugin.dialects[name] if plugin else None


def _provider(kind: str, name: str) -> Plugin | None:
    """The one plugin that has a name among its `kind`, "cells" or "topologies"."""
    providers = [plugin for plugin in load_plugins() if name in getattr(plugin, kind)]
    if len(providers) > 1:
        claims = " and ".join(f"{p.distribution} ({p.module})" for p in providers)
        # Whoever came after the zoo's own cells has to give way.
        last = max(providers, key=lambda p: p.distribution != DISTRIBUTION)
        raise ZooError(
            f"the name {name!r} is claimed by {claims}, each with {kind} of its own; "
            f"keep one: pip uninstall {last.distribution}"
        )
    return providers[0] if providers else None


def _load(manager: pluggy.PluginManager, entry: EntryPoint) -> Plugin:
    plugin = Plugin(entry.name, entry.value)
    if entry.dist is not None:
        plugin.distribution, plugin.version = entry.dist.name, entry.dist.version
    # Two distributions may use one entry-point name; only cell names have to be unique.
    key = f"{entry.name} of {plugin.distribution}"
    try:
        manager.register(entry.load(), name=key)
        manager.check_pending()
        plugin.cells = _offered(manager.hook.zoo_cells, key, _check_cell)
        plugin.topologies = _offered(manager.hook.zoo_topologies, key, _check_topology)
        plugin.dialects = _offered(manager.hook.zoo_dialects, key, _check_dialect)
    except (Exception, SystemExit) as error:  # a plugin may fail in any way at all
        plugin.error = " ".join(f"{type(error).__name__}: {error}".split())
        plugin.cells, plugin.topologies = {}, {}
        if manager.has_plugin(key):
            manager.unregister(name=key)
    return plugin


def _offered(
    hook: pluggy.HookCaller, key: str, check: Callable[[str, object], None]
) -> dict[str, Any]:
    """What one plugin returns from a hook, checked; {} where it does not implement it."""
    for implementation in hook.get_hookimpls():
        if implementation.plugin_name == key:
            values = implementation.function()
            if not isinstance(values, dict):
                raise TypeError(f"{hook.name}() returned a {type(values).__name__}, not a dict")
            for name, value in values.items():
                # '-' would make names such as '<topology>-<cell>' and '<model>-<tag>' ambiguous.
                if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9_]+", name)):
                    raise ValueError(
                        f"{hook.name}() offers {name!r}; names are of a-z, 0-9 and '_'"
                    )
                check(name, value)
            return values
    return {}


def _check_cell(name: str, cell: object) -> None:
    from zoo.cell import RecurrentCell

    if not (isinstance(cell, type) and issubclass(cell, RecurrentCell)):
        raise TypeError(f"zoo_cells() offers {name!r} = {cell!r}; expected a RecurrentCell")


def _check_topology(name: str, topology: object) -> None:
    from zoo.topology import TOPOLOGIES

    _check_function("zoo_topologies", name, topology, own={*TOPOLOGIES, "ms"})


def _check_dialect(name: str, dialect: object) -> None:
    from zoo.convert import DIALECTS

    _check_function("zoo_dialects", name, dialect, own=set(DIALECTS))


def _check_function(hook: str, name: str, value: object, *, own: set[str]) -> None:
    if name in own:
        raise ValueError(f"{hook}() offers {name!r}, which is a name of the zoo's own")
    if not callable(value):
        raise TypeError(f"{hook}() offers {name!r} = {value!r}; expected a function")
