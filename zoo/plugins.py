"""Hook specifications, and the discovery and isolation of plugins.

A plugin is an entry point of a distribution, of one of two forms:

* in the group of a kind, such as ``zoo.cells``, ``name = "module:attribute"`` names one object.
  It is imported when it is used, and not to list names.
* in the group ``zoo``, ``name = "module"`` names a module that implements any of the hooks below
  with ``@zoo.hookimpl``: for several objects, or names that are computed.

What the zoo itself provides comes the same ways: each cell and head from an entry point,
everything else from the hooks of :mod:`zoo.builtin`.

Modules with hooks are imported on demand: to find a name, first those whose entry point has that
name, then the others; to list names, all. Names resolve the same way regardless of import order.
A plugin that fails to import or breaks the form of a hook is left out with a warning
(:attr:`Plugin.error`); all others keep working. Output of a plugin's module goes to standard
error.

Environment: ``ZOO_PLUGINS=a,b`` loads only the plugins of these entry points or distributions,
besides the built-in one; ``ZOO_STRICT=1`` turns a failing plugin into an error.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, distributions, entry_points, version
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from zoo.errors import PluginError, ZooError, did_you_mean

if TYPE_CHECKING:
    import click
    from torch import Tensor
    from torch.utils.data import Dataset

    from zoo.cell import RecurrentCell
    from zoo.convert.dialect import Dialect
    from zoo.head import Head
    from zoo.losses import Loss
    from zoo.scores import Metric
    from zoo.topology import Topology

__all__ = [
    "HOOKS",
    "KINDS",
    "Plugin",
    "Pretrained",
    "builtin",
    "find",
    "forget",
    "hookimpl",
    "installed",
    "is_same_distribution",
    "load_plugins",
    "names",
    "offer",
    "strict",
    "warn_of_errors",
]

DISTRIBUTION = "spatiotemporal-zoo"

#: The version of the hooks, raised when older plugins no longer work. A plugin may state the
#: version that it was written for, ``ZOO_HOOKS = 1``, and is left out if it differs.
HOOKS = 1

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


class Pretrained(NamedTuple):
    """Published weights: a model folder at `ref`, or a checkpoint of another project at `url`.

    A checkpoint is downloaded and converted when the model is pulled; no code in it is executed.

    Attributes:
        ref: where the folder is, as :func:`zoo.pull` takes it: ``hf-hub:org/name@revision``.
        sha256: checksum of model.safetensors at `ref`, or of the file at `url`, in hexadecimal; a
            different file is rejected. If it is left out for a checkpoint, that of the first
            download is kept, and a different one is rejected later.
        url: address of the checkpoint.
        dialect: the dialect that converts it.
        options: options of the conversion, as for :func:`zoo.create`. Sizes that contradict the
            tensors are an error.
        architecture: its architecture, if it is not the first part of the name.
        data: the data set it was trained on.
        origin: the project that published the checkpoint.
        license: the Hub's identifier of its license, such as "apache-2.0".
        scores: scores by metric, as published there.
        notes: paragraphs for the card.
    """

    ref: str = ""
    sha256: str = ""
    url: str = ""
    dialect: str = ""
    options: Mapping[str, Any] = {}
    architecture: str = ""
    data: str = ""
    origin: str = ""
    license: str = ""
    scores: Mapping[str, float] = {}
    notes: tuple[str, ...] = ()


class Hooks:
    """The hooks, all optional: functions without arguments that return a dict by name.

    An entry point in the group ``zoo.cells`` does what a dict of one item from ``zoo_cells``
    does, and so for every hook.

    Names consist of lower-case letters, digits and '_'; those of commands and pretrained models
    may contain '-'. A value is the object itself, or a string ``"module:attribute"`` that names
    it and is imported on first use.

    The zoo's own names cannot be replaced. If several plugins claim a name, the one whose entry
    point has that name wins; otherwise asking for the name is an error. Name the entry point
    after what it provides, so that no other plugin is imported to find it.
    """

    @hookspec
    def zoo_cells(self) -> dict[str, type[RecurrentCell] | str]:  # type: ignore[empty-body]
        """Cells. Each becomes two architectures, ``<name>`` and ``ms-<name>``."""

    @hookspec
    def zoo_topologies(self) -> dict[str, Callable[..., Topology] | str]:  # type: ignore[empty-body]
        """Topologies: functions of ``layers`` and, optionally, ``halvings``.

        Each works with every cell: ``zoo.create("<name>-<cell>")``.
        """

    @hookspec
    def zoo_heads(self) -> dict[str, type[Head] | str]:  # type: ignore[empty-body]
        """Heads. Each works with every architecture: ``zoo.create(..., head="<name>")``."""

    @hookspec
    def zoo_datasets(self) -> dict[str, Callable[..., Dataset[Tensor]] | str]:  # type: ignore[empty-body]
        """Data sets: functions of (folder, split=, frames=, and options of their own).

        Each returns a map-style data set of float32 tensors (T, C, H, W), T = ``frames``, in
        [0, 1]. ``folder`` is the data set's folder under the data root.
        """

    @hookspec
    def zoo_losses(self) -> dict[str, type[Loss] | str]:  # type: ignore[empty-body]
        """Training losses, for ``loss.terms`` of a recipe."""

    @hookspec
    def zoo_metrics(self) -> dict[str, type[Metric] | str]:  # type: ignore[empty-body]
        """Metrics, for ``zoo eval --metric <name>`` and ``evaluation.metric`` of a recipe."""

    @hookspec
    def zoo_dialects(self) -> dict[str, Dialect | str]:  # type: ignore[empty-body]
        """Dialects of foreign checkpoints, for ``zoo convert``.

        Each is a function of (tensors by name, architecture, topology or None, options) that
        returns a :class:`zoo.convert.dialect.Converted`.
        """

    @hookspec
    def zoo_commands(self) -> dict[str, click.Command | str]:  # type: ignore[empty-body]
        """Commands of the command line: ``zoo <name>``. They may raise :class:`zoo.ZooError`."""

    @hookspec
    def zoo_pretrained(self) -> dict[str, Pretrained | str]:  # type: ignore[empty-body]
        """Pretrained models by name, ``<architecture>-<tag>``, and where their weights are."""


#: The kinds of things that plugins provide: one for each hook.
KINDS = tuple(name.removeprefix("zoo_") for name in vars(Hooks) if name.startswith("zoo_"))

#: Kinds whose names may contain '-'. Elsewhere it would make names such as
#: ``<topology>-<cell>`` and ``<model>-<tag>`` ambiguous.
HYPHENATED = {"commands", "pretrained"}

#: The zoo's own plugin. It is named here and not imported, as a third party's entry point is.
BUILTIN = EntryPoint("zoo", "zoo.builtin", "zoo")


@dataclass
class Plugin:
    """An installed plugin.

    Attributes:
        entry: its entry point.
        provides: what it provides, by kind and name.
        error: why it was left out, or "".
        loaded: whether `provides` or `error` is known.
        warned: whether a warning of its error has been shown.
    """

    entry: EntryPoint
    provides: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str = ""
    loaded: bool = False
    warned: bool = False

    @property
    def name(self) -> str:
        """The name of the entry point."""
        return self.entry.name

    @property
    def distribution(self) -> str:
        """The name of the distribution; "unknown" if its metadata are damaged."""
        return (self.entry.dist.name or "unknown") if self.entry.dist else DISTRIBUTION

    @property
    def version(self) -> str:
        """The version of the distribution; "" if its metadata are damaged."""
        return (self.entry.dist.version or "") if self.entry.dist else version(DISTRIBUTION)

    @property
    def is_builtin(self) -> bool:
        """Whether this is the plugin that is always there, :mod:`zoo.builtin`."""
        return self.entry is BUILTIN

    @property
    def source(self) -> str:
        """The plugin, for error messages."""
        return f"plugin {self.name!r} of distribution {self.distribution} {self.version}".strip()

    def offers(self, kind: str) -> dict[str, Any]:
        """Objects of a kind by name, or strings that name them."""
        return self.provides.get(kind, {})


def load_plugins() -> tuple[Plugin, ...]:
    """Return all installed plugins with what they provide, including those that fail."""
    return tuple(map(_load, installed()))


@functools.cache
def builtin() -> Plugin:
    """Return the zoo's own plugin, which has everything but its cells and most heads.

    Other plugins are not discovered for it.
    """
    return _load(Plugin(BUILTIN))


def find(
    kind: str,
    name: str,
    valid: Callable[[Any], bool] = callable,
    expected: str = "a function",
) -> tuple[Any, Plugin] | None:
    """Find the object of a kind and name, and the plugin that provides it.

    Args:
        kind: one of :data:`KINDS`.
        name: the name.
        valid: whether an object is one of this kind.
        expected: what a valid object is, for the error message.

    Returns:
        The object and its plugin, or None if no plugin provides it. Then plugins that fail, and
        might have provided it, are warned of.

    Raises:
        PluginError: if several plugins have an equal claim to the name, or if the object is
            invalid or fails to import.
    """
    plugin = _provider(kind, name)
    if plugin is None:
        return None
    value = plugin.offers(kind)[name]
    if isinstance(value, str):
        value = _resolve(plugin, kind, name, value)
    if not valid(value):
        actual = value if isinstance(value, type) else f"a {type(value).__name__}"
        raise PluginError(f"{plugin.source}: {kind} {name!r} is {actual}; expected {expected}")
    return value, plugin


def offer(kind: str, name: str) -> Any:
    """Return what a plugin offers by a name: an object, or where it is, "module:attribute".

    Nothing is imported for it. None if no plugin provides the name.
    """
    plugin = _provider(kind, name)
    return None if plugin is None else plugin.offers(kind)[name]


def names(kind: str) -> list[str]:
    """Return all names of a kind: the built-in ones, then those of other plugins, sorted.

    Plugins that fail are warned of.
    """
    plugins = load_plugins()
    warn_of_errors(plugins)
    own = list(builtin().offers(kind))
    others = {name for plugin in plugins for name in plugin.offers(kind)}
    return own + sorted(others.difference(own))


def warn_of_errors(plugins: Iterable[Plugin]) -> None:
    """Warn of each plugin that failed, once.

    Raises:
        PluginError: instead of a warning, if ``ZOO_STRICT=1``.
    """
    for plugin in plugins:
        if plugin.error and strict():
            raise PluginError(
                f"{plugin.source} fails: {plugin.error}; fix it, unset ZOO_STRICT, or: "
                f"pip uninstall {plugin.distribution}"
            )
        if plugin.error and not plugin.warned:
            plugin.warned = True
            warnings.warn(f"{plugin.source} is left out: {plugin.error}", stacklevel=3)


def strict() -> bool:
    """Return whether a failing plugin is an error: ``ZOO_STRICT=1``."""
    return os.environ.get("ZOO_STRICT", "0") not in ("", "0")


def forget() -> None:
    """Discover plugins again, after some were installed, removed or selected."""
    installed.cache_clear()


@functools.cache
def installed() -> tuple[Plugin, ...]:
    """The built-in plugin, and all others or those that ZOO_PLUGINS selects, not yet imported."""
    entries = sorted(_entry_points(), key=lambda entry: (entry.name, entry.value))
    plugins = tuple(map(Plugin, entries))
    requested = (name.strip() for name in os.environ.get("ZOO_PLUGINS", "").split(","))
    selected = {_normalized(name): name for name in requested if name}
    known = {name for plugin in plugins for name in (plugin.name, plugin.distribution)}
    for name in sorted(selected.keys() - set(map(_normalized, known))):
        raise PluginError(
            f"ZOO_PLUGINS names {selected[name]!r}, which is not an installed plugin or "
            f"distribution{did_you_mean(selected[name], known)}; "
            "list them with: env -u ZOO_PLUGINS zoo plugins"
        )
    return (
        builtin(),
        *(
            plugin
            for plugin in plugins
            if not selected
            or {_normalized(plugin.name), _normalized(plugin.distribution)} & set(selected)
        ),
    )


def _entry_points() -> Iterable[EntryPoint]:
    """The entry points of all plugins. Distributions with damaged metadata are warned of."""

    def ours(found: Any) -> list[EntryPoint]:
        groups = [group for group in found.groups if group == "zoo" or group.startswith("zoo.")]
        return [entry for group in groups for entry in found.select(group=group)]

    try:
        return ours(entry_points())
    except Exception:  # one damaged distribution, a plugin or not, makes all of them fail
        found: dict[str, list[EntryPoint]] = {}
        for distribution in distributions():  # the first of a name counts, as for imports
            name = distribution.name or "unknown"
            try:
                found.setdefault(name, ours(distribution.entry_points))
            except Exception as error:
                warnings.warn(
                    f"the entry points of the distribution {name} are damaged and left out "
                    f"({_one_line(error)}); reinstall it",
                    stacklevel=2,
                )
        return [entry for entries in found.values() for entry in entries]


def is_same_distribution(one: str, other: str) -> bool:
    """Return whether two names are of one distribution."""
    return _normalized(one) == _normalized(other)


def _normalized(name: str) -> str:
    """The spelling that pip considers equal: Zoo_Mine is zoo-mine."""
    return re.sub("[-_.]+", "-", name).lower()


def _provider(kind: str, name: str) -> Plugin | None:
    """The plugin that provides a name: the zoo's own first, those named after it before others."""
    if name in builtin().offers(kind):
        return builtin()
    likely = [p for p in installed() if _is_named_for(p.name, kind, name)]
    for candidates in (likely, installed()):
        own = [plugin for plugin in candidates if plugin.distribution == DISTRIBUTION]
        others = [plugin for plugin in candidates if plugin.distribution != DISTRIBUTION]
        for plugins in (own, others):
            providers = [plugin for plugin in plugins if name in _load(plugin).offers(kind)]
            if len(providers) > 1:
                raise PluginError(_clash(kind, name, providers))
            if providers:
                return providers[0]
        warn_of_errors(candidates)
    return None


def _is_named_for(entry: str, kind: str, name: str) -> bool:
    """Whether the name of an entry point suggests that it provides `name`."""
    return entry == name or (kind == "pretrained" and entry in name.split("-"))


def _clash(kind: str, name: str, providers: list[Plugin]) -> str:
    claims = " and ".join(f"{p.distribution} ({p.entry.value})" for p in providers)
    return (
        f"the name {name!r} is claimed by {claims}, both for their own {kind}; "
        f"keep one: pip uninstall {providers[-1].distribution}"
    )


def _load(plugin: Plugin) -> Plugin:
    """Find out what a plugin provides, once. A module with hooks is imported for it."""
    if plugin.loaded:
        return plugin
    plugin.loaded = True
    try:
        with redirect_stdout(sys.stderr):
            plugin.provides = _provided(plugin)
    except KeyboardInterrupt:
        plugin.loaded = False
        raise
    except BaseException as error:  # a plugin may fail in any way
        plugin.error = _one_line(error)
    return plugin


def _provided(plugin: Plugin) -> dict[str, dict[str, Any]]:
    """What a plugin provides, by kind and name."""
    _, _, kind = plugin.entry.group.partition(".")
    if not kind:
        return _call_hooks(plugin)
    if kind not in KINDS:
        raise ValueError(
            f"there is no group {plugin.entry.group!r}{did_you_mean(kind, KINDS)}; "
            f"name its entry point in: {', '.join(f'zoo.{kind}' for kind in KINDS)}"
        )
    return {kind: _checked_names(kind, {plugin.name: plugin.entry.value})}


def _call_hooks(plugin: Plugin) -> dict[str, dict[str, Any]]:
    """What the hooks of a plugin's module return, by kind and name."""
    module = plugin.entry.load()
    if (written_for := getattr(module, "ZOO_HOOKS", HOOKS)) != HOOKS:
        raise RuntimeError(
            f"it is written for version {written_for} of the hooks, this zoo has {HOOKS}; "
            f"update both: pip install -U {DISTRIBUTION} {plugin.distribution}"
        )
    # A manager for each plugin: one that does not fit the hooks cannot affect another.
    manager = pluggy.PluginManager("zoo")
    manager.add_hookspecs(Hooks)
    for kind in KINDS:
        hook = f"zoo_{kind}"
        if hasattr(module, hook) and manager.parse_hookimpl_opts(module, hook) is None:
            raise TypeError(f"{hook} is not marked as a hook; put @zoo.hookimpl above it")
    manager.register(module)
    manager.check_pending()
    return {
        kind: _checked_names(kind, implementation.function())
        for kind in KINDS
        for implementation in getattr(manager.hook, f"zoo_{kind}").get_hookimpls()
    }


def _checked_names(kind: str, offers: object) -> dict[str, Any]:
    """What a hook returned, if it is a dict with valid names."""
    if not isinstance(offers, dict):
        raise TypeError(f"zoo_{kind}() returned a {type(offers).__name__}, not a dict")
    hyphen = "-" if kind in HYPHENATED else ""
    for name in offers:
        if not (isinstance(name, str) and re.fullmatch(f"[a-z0-9_{hyphen}]+", name)):
            allowed = f"a-z, 0-9 and '_'{hyphen and ', and hyphens'}"
            raise ValueError(f"zoo_{kind} has {name!r}; names consist of {allowed}")
    return offers


def _resolve(plugin: Plugin, kind: str, name: str, reference: str) -> Any:
    """Import the object that ``"module:attribute"`` names."""
    try:
        with redirect_stdout(sys.stderr):
            return EntryPoint(name, reference, "zoo").load()
    except (KeyboardInterrupt, ZooError):
        raise
    except BaseException as error:  # a plugin may fail in any way
        raise PluginError(
            f"{plugin.source}: {kind} {name!r} is {reference!r}, which cannot be imported: "
            f"{_one_line(error)}"
        ) from error


def _one_line(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # so may its exceptions
        text = type(error).__name__
    return " ".join(text.split())
