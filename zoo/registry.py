"""Names: of architectures, their aliases, and the models built from them.

An architecture is the name of a cell (its layers in a plain stack) or ``ms-`` and the name
of a cell (in a mirrored pyramid of scales), for every cell that is installed.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.config import Config, PluginSource
from zoo.errors import NotFoundError, ZooError, did_you_mean
from zoo.plugins import Kind, Plugin, find_cell, find_head, find_topology, load_plugins, names

# Names are known without torch; it is imported when a network is built.
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
    "find_folder",
    "heads",
    "list_models",
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

#: The fields of a config that are arguments of :func:`create`; the rest are the cell's.
CREATE_FIELDS = set(Config.model_fields) - {
    "format",
    "cell",
    "options",
    "plugin",
    "topology_plugin",
    "head_plugin",
}


def architectures() -> list[str]:
    """The names of all architectures: two for every installed cell."""
    cells = names("cells")
    for cell in cells:
        found = find_cell(cell)
        if found and cell in ALIASES:
            raise ZooError(
                f"{found[1].source} names a cell {cell!r}, which stands for {ALIASES[cell]}; "
                f"ask its author for another name, or: pip uninstall {found[1].distribution}"
            )
    return [*cells, *(f"ms-{cell}" for cell in cells)]


def topologies() -> list[str]:
    """The names of all topologies: the zoo's own and those of installed plugins."""
    from zoo.topology import TOPOLOGIES

    return [*TOPOLOGIES, *names("topologies")]


def heads() -> list[str]:
    """The names of all heads: the zoo's own and those of installed plugins."""
    from zoo.head import HEADS

    return [*HEADS, *names("heads")]


def list_models(pattern: str = "*", *, pretrained: bool | None = None) -> list[str]:
    """Names of models that match a pattern such as "ms-*".

    Architectures with ``pretrained=False``, models with weights with True, both by default.
    An alias that matches brings in what it stands for, an architecture its pretrained models.
    """
    from zoo.hub import pretrained_models

    aliased = {target for alias, target in ALIASES.items() if fnmatchcase(alias, pattern)}

    def matches(architecture: str) -> bool:
        return architecture in aliased or fnmatchcase(architecture, pattern)

    names: set[str] = set()
    if pretrained is not True:
        names |= {architecture for architecture in architectures() if matches(architecture)}
    if pretrained is not False:
        names |= {
            name
            for name, model in pretrained_models().items()
            if fnmatchcase(name, pattern) or matches(model.architecture)
        }
    return sorted(names)


def parse_architecture(name: str) -> tuple[str, str]:
    """The cell and the topology that an architecture or an alias names.

    Raises ZooError, with the nearest names, where no installed plugin provides the cell.
    """
    *prefix, cell = ALIASES.get(name, name).split("-", maxsplit=1)
    topology = {"": "stack", "ms": "mirror"}.get("".join(prefix), "".join(prefix))
    if find_cell(cell) is None or find_topology(topology) is None:
        named = architectures()
        others = (f"{t}-{c}" for t in topologies() for c in named if "-" not in c)
        known = [*named, *ALIASES, *others]
        raise ZooError(f"no model is named {name!r}{did_you_mean(name, known)}; see: zoo list")
    return cell, topology


def find_folder(ref: str) -> Path:
    """The folder of a pretrained model, as :func:`zoo.pull` gives it.

    Where a name means none, the ZooError offers architectures among the nearest names, too.
    """
    from zoo.hub import pull

    try:
        return pull(ref)
    except NotFoundError:
        near = did_you_mean(ref, [*list_models(), *ALIASES])
        raise NotFoundError(f"no model is named {ref!r}{near}; see: zoo list") from None


def create(name: str, **options: Any) -> Forecaster:
    """An untrained model of an architecture.

    Args:
        name: an architecture or an alias, as :func:`list_models` gives them; or
            "<topology>-<cell>".
        options: the fields of :class:`zoo.Config` (hidden=32, layers=6, in_channels=1,
            patch=1, embed=True, topology, halvings, down="max", up="bilinear", head="frame",
            head_options, data) and the cell's own options, all as plain keywords.

    The weights are drawn from torch's global generator: ``torch.manual_seed`` fixes them.
    Raises ZooError for unknown names and options, and sizes that make no network.
    """
    cell, topology = parse_architecture(name)
    values: dict[str, Any] = {"cell": cell, "topology": topology}
    values |= {key: value for key, value in options.items() if key in CREATE_FIELDS}
    values["options"] = {k: value for k, value in options.items() if k not in CREATE_FIELDS}
    return build(Config.parse(values, source=name))


def build(config: Config) -> Forecaster:
    """The untrained model that a config describes.

    Raises ZooError where its cell, topology or head is not installed or does not take its options.
    """
    from zoo.forecast import Forecaster

    found = find_cell(config.cell)
    if found is None:
        raise ZooError(_absent("cells", config.cell, config.plugin))
    cell, plugin = found
    topology, topology_plugin = _make_topology(config)
    found_head = find_head(config.head)
    if found_head is None:
        raise ZooError(_absent("heads", config.head, config.head_plugin))
    head, head_plugin = found_head
    # The options are completed with the defaults of today, which a later version may change.
    options = _complete(config.architecture, cell.options(), config.options, CREATE_FIELDS)
    head_options = _complete(f"the head {config.head!r}", head.options(), config.head_options)
    values = config.model_dump(mode="json") | {
        "options": options,
        "plugin": _source(plugin),
        "topology_plugin": topology_plugin and _source(topology_plugin),
        "head_options": head_options,
        "head_plugin": head_plugin and _source(head_plugin),
    }
    network = _build_network(config, cell, topology, head)
    return Forecaster(network, Config.parse(values, source=config.architecture))


def _complete(
    who: str, known: dict[str, Any], given: Mapping[str, Any], others: Iterable[str] = ()
) -> dict[str, Any]:
    """Options with their defaults; ZooError for one that does not exist."""
    for option in given.keys() - known.keys():
        raise ZooError(
            f"{who} has no option {option!r}{did_you_mean(option, {*known, *others})}; "
            f"its own are: {', '.join(known) or 'none'}"
        )
    return {**known, **given}


def _make_topology(config: Config) -> tuple[Topology, Plugin | None]:
    found = find_topology(config.topology)
    if found is None:
        raise ZooError(_absent("topologies", config.topology, config.topology_plugin))
    make, plugin = found
    if config.halvings is None:
        return make(config.layers), plugin
    if "halvings" in inspect.signature(make).parameters:
        return make(config.layers, config.halvings), plugin
    raise ZooError(f"the topology {config.topology!r} has no halvings; leave halvings out")


def _build_network(
    config: Config, cell: type[RecurrentCell], topology: Topology, head: type[Head]
) -> Network:
    from zoo.network import Network
    from zoo.topology import DOWN, UP

    for what, value, choices in (("down", config.down, DOWN), ("up", config.up, UP)):
        if value not in choices:
            raise ZooError(f"{what}={value!r} is not one of {', '.join(choices)}")
    options: dict[str, Any] = dict(config.options)
    try:
        return Network(
            cell,
            topology,
            in_channels=config.in_channels,
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
    except Exception as error:  # a cell may do anything with an option of a wrong kind
        raise ZooError(
            f"{config.architecture} cannot be built with {config.options} and the head "
            f"{config.head!r} with {config.head_options}: {error}"
        ) from error


def _source(plugin: Plugin) -> dict[str, str]:
    return {"distribution": plugin.distribution, "version": plugin.version}


def _absent(kind: Kind, name: str, source: PluginSource | None) -> str:
    """Why a config's cell, topology or head is missing, and what to install."""
    what = {"cells": "cell", "topologies": "topology", "heads": "head"}.get(kind, kind)
    if source is None:
        known = {"topologies": topologies, "heads": heads}.get(kind, lambda: names(kind))()
        near = did_you_mean(name, known)
        return f"no {what} is named {name!r}{near}; there are: {', '.join(known)}"
    wanted = f"{source.distribution}=={source.version}" if source.version else source.distribution
    told = f"the {what} {name!r} comes from {source.distribution} {source.version}, which"
    here = [plugin for plugin in load_plugins() if plugin.distribution == source.distribution]
    if broken := [plugin.error for plugin in here if plugin.error]:
        return f"{told} fails here: {broken[0]}; mend it, or: pip install {wanted}"
    if here:
        return f"{told} is {here[0].version} here and does not provide it; pip install {wanted}"
    left_out = " (or left out by ZOO_PLUGINS)" if os.environ.get("ZOO_PLUGINS") else ""
    return f"{told} is not installed{left_out}; install it: pip install {wanted}"
