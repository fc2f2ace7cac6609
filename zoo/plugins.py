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
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import pluggy

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.cell import RecurrentCell

__all__ = ["Plugin", "find_cell", "hookimpl", "load_plugins"]

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


class Hooks:
    """The hooks, all optional."""

    @hookspec
    def zoo_cells(self) -> dict[str, type[RecurrentCell]]:  # type: ignore[empty-body]
        """The cells of this plugin by name: lower-case letters, digits and '_'.

        Each becomes two architectures, ``<name>`` and ``ms-<name>``.
        """


@dataclass
class Plugin:
    """One entry point: where it comes from, what it provides, what is wrong with it."""

    name: str
    module: str
    distribution: str = "unknown"
    version: str = ""
    cells: dict[str, type[RecurrentCell]] = field(default_factory=dict)
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
    providers = [plugin for plugin in load_plugins() if name in plugin.cells]
    if len(providers) > 1:
        claims = " and ".join(f"{p.distribution} ({p.module})" for p in providers)
        raise ZooError(
            f"the cell name {name!r} is claimed by {claims}; "
            f"keep one: pip uninstall {providers[-1].distribution}"
        )
    return (providers[0].cells[name], providers[0]) if providers else None


def _load(manager: pluggy.PluginManager, entry: EntryPoint) -> Plugin:
    plugin = Plugin(entry.name, entry.value)
    if entry.dist is not None:
        plugin.distribution, plugin.version = entry.dist.name, entry.dist.version
    # Two distributions may use one entry-point name; only cell names have to be unique.
    key = f"{entry.name} of {plugin.distribution}"
    try:
        manager.register(entry.load(), name=key)
        manager.check_pending()
        for implementation in manager.hook.zoo_cells.get_hookimpls():
            if implementation.plugin_name == key:
                plugin.cells = _check_cells(implementation.function())
    except (Exception, SystemExit) as error:  # a plugin may fail in any way at all
        plugin.error = " ".join(f"{type(error).__name__}: {error}".split())
        if manager.has_plugin(key):
            manager.unregister(name=key)
    return plugin


def _check_cells(cells: object) -> dict[str, type[RecurrentCell]]:
    from zoo.cell import RecurrentCell

    if not isinstance(cells, dict):
        raise TypeError(f"zoo_cells() returned a {type(cells).__name__}; expected name -> class")
    for name, cell in cells.items():
        # '-' would make names of pretrained models ('<architecture>-<tag>') ambiguous.
        if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9_]+", name)):
            raise ValueError(f"zoo_cells() offers {name!r}; names are of a-z, 0-9 and '_'")
        if not (isinstance(cell, type) and issubclass(cell, RecurrentCell)):
            raise TypeError(f"zoo_cells() offers {name!r} = {cell!r}; expected a RecurrentCell")
    return cells
