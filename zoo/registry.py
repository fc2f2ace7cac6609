"""Names of architectures, and the models built from them.

An architecture is the name of a cell, whose layers form a plain stack, or ``ms-`` and the name
of a cell, whose layers form a mirrored pyramid of scales. Every installed cell has both.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from zoo.config import Config, PluginSource
from zoo.errors import ConfigError, PluginError, ZooError, did_you_mean
from zoo.options import complete_options, declared_options
from zoo.plugins import (
    DISTRIBUTION,
    Plugin,
    find,
    is_same_distribution,
    load_plugins,
    names,
)

# Names are resolved without torch; it is imported when a network is built.
if TYPE_CHECKING:
    from torch import nn

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

#: The largest number of parameters of a network: 2 GB in float32.
LARGEST_NETWORK = 500_000_000

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


def build(config: Config, *, any_plugin: bool = False) -> Forecaster:
    """Build the untrained model that a config describes.

    Args:
        config: the model.
        any_plugin: whether its cell, topology and head may come from other distributions than
            the config states. A warning names them.

    Raises:
        ZooError: if its cell, topology or head is not installed, comes from another distribution,
            or rejects its options.
    """
    from zoo.forecast import Forecaster

    cell, cell_plugin = _find_part("cell", config.cell, config.plugin, any_plugin)
    make_topology, topology_plugin = _find_part(
        "topology", config.topology, config.topology_plugin, any_plugin
    )
    head, head_plugin = _find_part("head", config.head, config.head_plugin, any_plugin)
    # A config has all options, as a later version may change their defaults.
    options = complete_options(
        config.architecture, cell.options(), config.options, others=CREATE_FIELDS
    )
    head_options = complete_options(
        f"the head {config.head!r}", head.options(), config.head_options
    )
    values = config.model_dump(mode="json") | {
        "options": options,
        "plugin": _source(cell_plugin),
        "topology_plugin": _source(topology_plugin),
        "head_options": head_options,
        "head_plugin": _source(head_plugin),
    }
    complete = Config.parse(values, source=config.architecture)
    topology = _make_topology(config, make_topology)
    with _limited_parameters(config):
        network = _build_network(config, cell, topology, head, options, head_options)
    return Forecaster(network, complete)


def _find_part(
    noun: str, name: str, saved: PluginSource | None, any_plugin: bool
) -> tuple[Any, Plugin]:
    """The cell, topology or head of that name and its plugin, which must be the one saved."""
    lookup = {"cell": find_cell, "topology": find_topology, "head": find_head}[noun]
    found = lookup(name)
    if found is None:
        _fail_missing(noun, name, saved)
    if saved is not None:
        _check_source(f"the {noun} {name!r}", saved, found[1], any_plugin)
    return found


def _check_source(part: str, saved: PluginSource, plugin: Plugin, any_plugin: bool) -> None:
    """Reject a part from another distribution than it was saved with; warn of another version.

    The versions of the zoo's own cells and heads are compatible: its tests compare them with
    reference outputs.
    """
    origin = f"{part} comes from {saved.distribution} {saved.version}"
    installed = f"{plugin.distribution} {plugin.version}"
    if is_same_distribution(saved.distribution, plugin.distribution):
        if plugin.distribution != DISTRIBUTION and plugin.version != saved.version:
            warnings.warn(f"{origin}; installed is {installed}", stacklevel=4)
    elif any_plugin:
        warnings.warn(f"{origin}; that of {installed} is used", stacklevel=4)
    else:
        fix = f"pip uninstall {plugin.distribution} and pip install {_requirement(saved)}, or"
        raise PluginError(
            f"{origin}, but the installed one from {installed}; "
            f"{'' if plugin.distribution == DISTRIBUTION else fix + ' '}use the installed one: "
            "--any-plugin, any_plugin=True"
        )


def _make_topology(config: Config, make: Callable[..., Topology]) -> Topology:
    owner = f"the topology {config.topology!r}"
    given = {} if config.halvings is None else {"halvings": config.halvings}
    try:
        complete_options(owner, declared_options(make, ["layers"]), given)
        return make(config.layers, **given)
    except ZooError:
        raise
    except Exception as error:  # a plugin's topology may fail in any way
        raise ConfigError(
            f"{owner} cannot be built with {config.layers} layers and halvings={config.halvings}: "
            f"{_one_line(error)}"
        ) from error


@contextmanager
def _limited_parameters(config: Config) -> Iterator[None]:
    """Stop building a network that is too large, before its weights take memory."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel()
        if total > LARGEST_NETWORK:
            raise ConfigError(
                f"{config.architecture} would have more than {LARGEST_NETWORK:,} parameters with "
                f"hidden={config.hidden}, layers={config.layers} and {config.options}; make it "
                "smaller"
            )

    # Modules register a weight before they initialize it, which is when it takes memory.
    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _build_network(
    config: Config,
    cell: type[RecurrentCell],
    topology: Topology,
    head: type[Head],
    options: dict[str, Any],
    head_options: dict[str, Any],
) -> Network:
    from zoo.network import Network
    from zoo.topology import DOWN, UP

    for option, value, choices in (("down", config.down, DOWN), ("up", config.up, UP)):
        if value not in choices:
            raise ConfigError(f"{option}={value!r} is not one of {', '.join(choices)}")
    try:
        return Network(
            cell,
            topology,
            in_channels=config.read_channels,
            out_channels=config.forecast_channels,
            start_channel=config.start_channel,
            static=config.static,
            hidden=config.hidden,
            patch=config.patch,
            embed=config.embed,
            size=config.size,
            down=config.down,
            up=config.up,
            head=head,
            head_options=head_options,
            **options,
        )
    except ZooError:
        raise
    except Exception as error:  # a cell may fail in any way on values that its types allow
        raise ConfigError(
            f"{config.architecture} cannot be built with {config.options} and the head "
            f"{config.head!r} with {config.head_options}: {_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__


def _source(plugin: Plugin) -> dict[str, str] | None:
    """Where a part of a model comes from, unless it is built in."""
    if plugin.is_builtin:
        return None
    return {"distribution": plugin.distribution, "version": plugin.version}


def _requirement(source: PluginSource) -> str:
    """What pip installs."""
    return f"{source.distribution}=={source.version}" if source.version else source.distribution


def _fail_missing(noun: str, name: str, source: PluginSource | None) -> NoReturn:
    """Raise the error for a cell, topology or head that is not installed."""
    if source is None:
        known = {"topology": topologies, "head": heads}.get(noun, lambda: names("cells"))()
        near = did_you_mean(name, known)
        raise ConfigError(f"no {noun} is named {name!r}{near}; available: {', '.join(known)}")
    needed = _requirement(source)
    origin = f"the {noun} {name!r} comes from {source.distribution} {source.version}, which"
    candidates = [
        plugin
        for plugin in load_plugins()
        if is_same_distribution(plugin.distribution, source.distribution) and not plugin.is_builtin
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
