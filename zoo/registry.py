"""Names of architectures, and the models built from them.

An architecture is the name of a cell, whose layers form a plain stack, or ``ms-`` and the name
of a cell, whose layers form a mirrored pyramid of scales. Every installed cell has both.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from zoo.config import Config, PluginSource
from zoo.errors import ConfigError, PluginError, ZooError, did_you_mean
from zoo.plugins import Plugin, find, load_plugins, names

# Names are resolved without torch; it is imported when a network is built.
if TYPE_CHECKING:
    from zoo.cell import RecurrentCell
    from zoo.forecast import Forecaster
    from zoo.head import Head
    from zoo.network import Network
    from zoo.topology import Topology

__all__ = [
    "ALIASES",
    "architectures",
    "build",
    "create",
    "find_cell",
    "find_head",
    "find_topology",
    "heads",
    "parse_architecture",
    "topologies",
]

#: The names that the MS-LSTM paper (arXiv 2304.07724) gives its models.
ALIASES = {
    "mslstm": "ms-mklstm",
    "ms-lstm": "ms-mklstm",
    "sms-lstm": "ms-convlstm",
    "tms-lstm": "mklstm",
}

#: The prefix of the architectures whose topology is `mirror`.
MULTISCALE = "ms"

#: The fields of a config that are arguments of :func:`create`; all others are the cell's.
CREATE_FIELDS = set(Config.model_fields) - {
    "format",
    "cell",
    "options",
    "plugin",
    "topology_plugin",
    "head_plugin",
}


def find_cell(name: str) -> tuple[type[RecurrentCell], Plugin] | None:
    """Find the cell of that name and its plugin; None if there is none.

    A plugin's cell that has the name of an alias is never found.

    Raises:
        PluginError: if two plugins claim the name, or what is offered is not a cell.
    """
    from zoo.cell import RecurrentCell

    if name in ALIASES:
        return None
    return find("cells", name, _subclass_of(RecurrentCell), "a RecurrentCell")


def find_topology(name: str) -> tuple[Callable[..., Topology], Plugin] | None:
    """Find the topology of that name and its plugin; None if there is none.

    Raises:
        PluginError: if two plugins claim the name, or what is offered is not a function.
    """
    return None if name == MULTISCALE else find("topologies", name)


def find_head(name: str) -> tuple[type[Head], Plugin] | None:
    """Find the head of that name and its plugin; None if there is none.

    Raises:
        PluginError: if two plugins claim the name, or what is offered is not a head.
    """
    from zoo.head import Head

    return find("heads", name, _subclass_of(Head), "a Head")


def _subclass_of(base: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, type) and issubclass(value, base)


def architectures() -> list[str]:
    """Return the names of all architectures: two for every installed cell."""
    cells = [cell for cell in names("cells") if cell not in ALIASES]
    return [*cells, *(f"{MULTISCALE}-{cell}" for cell in cells)]


def topologies() -> list[str]:
    """Return the names of all topologies, the built-in ones first."""
    return [topology for topology in names("topologies") if topology != MULTISCALE]


def heads() -> list[str]:
    """Return the names of all heads, the built-in one first."""
    return names("heads")


def parse_architecture(name: str) -> tuple[str, str]:
    """Return the cell and the topology that an architecture or an alias names.

    Raises:
        ConfigError: if no installed plugin provides them; it suggests similar names.
    """
    *prefix, cell = ALIASES.get(name, name).split("-", maxsplit=1)
    topology = {"": "stack", MULTISCALE: "mirror"}.get("".join(prefix), "".join(prefix))
    if find_cell(cell) is None or find_topology(topology) is None:
        known = architectures()
        others = (f"{t}-{c}" for t in topologies() for c in known if "-" not in c)
        near = did_you_mean(name, [*known, *ALIASES, *others])
        raise ConfigError(f"no model is named {name!r}{near}; see: zoo list")
    return cell, topology


def create(name: str, **options: Any) -> Forecaster:
    """Create an untrained model.

    The weights are drawn from torch's global generator: ``torch.manual_seed`` fixes them.

    Args:
        name: an architecture or an alias, as :func:`zoo.list_models` lists them, or
            "<topology>-<cell>".
        options: the fields of :class:`zoo.Config` (hidden=32, layers=6, in_channels=1,
            out_channels, future_channels=0, inputs=(), static=0, patch=1, embed=True, topology,
            halvings, down="max", up="bilinear", head="frame", head_options, data) and the cell's
            own options, all as keyword arguments.

    Raises:
        ZooError: for unknown names and options, and invalid sizes.
    """
    cell, topology = parse_architecture(name)
    values: dict[str, Any] = {"cell": cell, "topology": topology}
    values |= {key: value for key, value in options.items() if key in CREATE_FIELDS}
    values["options"] = {k: value for k, value in options.items() if k not in CREATE_FIELDS}
    return build(Config.parse(values, source=name))


def build(config: Config) -> Forecaster:
    """Build the untrained model that a config describes.

    Raises:
        ZooError: if its cell, topology or head is not installed, or rejects its options.
    """
    from zoo.forecast import Forecaster

    cell, cell_plugin = find_cell(config.cell) or _fail_missing("cells", config.cell, config.plugin)
    topology, topology_plugin = _make_topology(config)
    head, head_plugin = find_head(config.head) or _fail_missing(
        "heads", config.head, config.head_plugin
    )
    # A config has all options, as a later version may change their defaults.
    options = _complete(config.architecture, cell.options(), config.options, CREATE_FIELDS)
    head_options = _complete(f"the head {config.head!r}", head.options(), config.head_options)
    values = config.model_dump(mode="json") | {
        "options": options,
        "plugin": _source(cell_plugin),
        "topology_plugin": _source(topology_plugin),
        "head_options": head_options,
        "head_plugin": _source(head_plugin),
    }
    network = _build_network(config, cell, topology, head)
    return Forecaster(network, Config.parse(values, source=config.architecture))


def _complete(
    owner: str, defaults: dict[str, Any], given: Mapping[str, Any], others: Iterable[str] = ()
) -> dict[str, Any]:
    """Options with their defaults.

    Raises:
        ConfigError: for an unknown option.
    """
    for option in given.keys() - defaults.keys():
        raise ConfigError(
            f"{owner} has no option {option!r}{did_you_mean(option, {*defaults, *others})}; "
            f"its own options are: {', '.join(defaults) or 'none'}"
        )
    return {**defaults, **given}


def _make_topology(config: Config) -> tuple[Topology, Plugin]:
    make, plugin = find_topology(config.topology) or _fail_missing(
        "topologies", config.topology, config.topology_plugin
    )
    if config.halvings is None:
        return make(config.layers), plugin
    if "halvings" in inspect.signature(make).parameters:
        return make(config.layers, config.halvings), plugin
    raise ConfigError(f"the topology {config.topology!r} has no option 'halvings'; leave it out")


def _build_network(
    config: Config, cell: type[RecurrentCell], topology: Topology, head: type[Head]
) -> Network:
    from zoo.network import Network
    from zoo.topology import DOWN, UP

    for option, value, choices in (("down", config.down, DOWN), ("up", config.up, UP)):
        if value not in choices:
            raise ConfigError(f"{option}={value!r} is not one of {', '.join(choices)}")
    options: dict[str, Any] = dict(config.options)
    try:
        return Network(
            cell,
            topology,
            in_channels=config.read_channels,
            out_channels=config.forecast_channels,
            static=config.static,
            hidden=config.hidden,
            patch=config.patch,
            embed=config.embed,
            size=config.size,
            down=config.down,
            up=config.up,
            head=head,
            head_options=config.head_options,
            **options,
        )
    except ZooError:
        raise
    except Exception as error:  # a cell may fail in any way on an option of a wrong type
        raise ConfigError(
            f"{config.architecture} cannot be built with {config.options} and the head "
            f"{config.head!r} with {config.head_options}: {error}"
        ) from error


def _source(plugin: Plugin) -> dict[str, str] | None:
    """Where a part of a model comes from, unless it is built in."""
    if plugin.is_builtin:
        return None
    return {"distribution": plugin.distribution, "version": plugin.version}


def _fail_missing(kind: str, name: str, source: PluginSource | None) -> NoReturn:
    """Raise the error for a cell, topology or head that is not installed."""
    noun = {"cells": "cell", "topologies": "topology", "heads": "head"}[kind]
    if source is None:
        known = {"topologies": topologies, "heads": heads}.get(kind, lambda: names(kind))()
        near = did_you_mean(name, known)
        raise ConfigError(f"no {noun} is named {name!r}{near}; available: {', '.join(known)}")
    needed = f"{source.distribution}=={source.version}" if source.version else source.distribution
    origin = f"the {noun} {name!r} comes from {source.distribution} {source.version}, which"
    candidates = [
        plugin
        for plugin in load_plugins()
        if plugin.distribution == source.distribution and not plugin.is_builtin
    ]
    if errors := [plugin.error for plugin in candidates if plugin.error]:
        raise PluginError(f"{origin} fails: {errors[0]}; fix it, or: pip install {needed}")
    if candidates:
        raise PluginError(
            f"{origin} is installed in version {candidates[0].version} and does not provide it; "
            f"pip install {needed}"
        )
    excluded = " (or excluded by ZOO_PLUGINS)" if os.environ.get("ZOO_PLUGINS") else ""
    raise PluginError(f"{origin} is not installed{excluded}; install it: pip install {needed}")
