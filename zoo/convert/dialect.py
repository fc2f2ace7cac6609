"""Building blocks of dialects: tables of which published tensors make which of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.config import Config
from zoo.errors import ConfigError, DataError, shorten
from zoo.registry import CREATE_FIELDS, build

__all__ = [
    "Converted",
    "Dialect",
    "Join",
    "Part",
    "check_cell",
    "inputs",
    "join_tensors",
    "make_config",
    "outputs",
    "shape_of",
]


class Converted(NamedTuple):
    """A converted checkpoint.

    Attributes:
        config: The complete config of the model.
        tensors: The state dict of its network.
        dropped: The published tensors that are not used, each with the reason.
    """

    config: Config
    tensors: dict[str, Tensor]
    dropped: dict[str, str]


#: Converts published tensors, given the architecture, the topology (None for that of the
#: architecture) and options. Raises DataError if the tensors do not fit the architecture.
Dialect = Callable[[dict[str, Tensor], str, "str | None", dict[str, Any]], Converted]


class Part(NamedTuple):
    """A published module, or some of its gates.

    Attributes:
        name: Name of the module.
        gates: One letter for each gate in its output, in order; "" to use the module unchanged.
        keep: The gates to use, in the order in which we need them.
    """

    name: str
    gates: str = ""
    keep: str = ""

    def pick(self, tensor: Tensor) -> Tensor:
        """Return the gates to use from its weight or bias, which has outputs on the first axis."""
        if not self.gates:
            return tensor
        gates = tensor.unflatten(0, (len(self.gates), -1))
        return gates[[self.gates.index(gate) for gate in self.keep]].flatten(0, 1)


@dataclass(frozen=True)
class Join:
    """Published modules that make one of ours; see :func:`inputs` and :func:`outputs`.

    Attributes:
        parts: The published modules.
        axis: Axis of the weights along which they are joined.
        unused: Why a layer may have them, or some of their gates, without using them; "" if it
            may not.
    """

    parts: tuple[Part, ...]
    axis: int
    unused: str = ""

    def under(self, prefix: str) -> Join:
        """Return the same modules with `prefix` before their names."""
        parts = (part._replace(name=prefix + part.name) for part in self.parts)
        return Join(tuple(parts), self.axis, self.unused)

    def make(self, tensors: list[Tensor], kind: str) -> Tensor:
        """Return our weight or bias (`kind`); RuntimeError if the shapes do not fit together."""
        picked = [part.pick(tensor) for part, tensor in zip(self.parts, tensors, strict=True)]
        if kind == "bias" and self.axis == 1 and len(picked) > 1:
            return torch.stack([bias.double() for bias in picked]).sum(dim=0)
        return torch.cat(picked, dim=0 if kind == "bias" else self.axis)


def inputs(*parts: str | Part, unused: str = "") -> Join:
    """Join modules whose results are added into one that reads all their inputs."""
    return Join(tuple(Part(p) if isinstance(p, str) else p for p in parts), 1, unused)


def outputs(*parts: str | Part, unused: str = "") -> Join:
    """Join modules that read the same input into one with all their outputs."""
    return Join(tuple(Part(p) if isinstance(p, str) else p for p in parts), 0, unused)


def check_cell(
    published: set[str], modules: Mapping[str, set[str]], cell: str, topology: str
) -> None:
    """Raise DataError if published modules look like those of another cell.

    Args:
        published: Names of the modules in the checkpoint.
        modules: Names of the modules of every cell in the dialect.
        cell: The cell to convert to.
        topology: Its topology.
    """

    def similarity(name: str) -> float:
        return len(published & modules[name]) / len(published | modules[name])

    likely = max(modules, key=similarity)
    if similarity(likely) > similarity(cell):
        suggestion = Config(cell=likely, topology=topology).architecture
        raise DataError(
            f"its keys look like those of {likely}, not {cell}; use --arch {suggestion}"
        )


def shape_of(published: Mapping[str, Tensor], module: str, axes: int = 4) -> torch.Size:
    """Return the shape of a module's weight, which has 4 axes if the module is a convolution.

    Raises:
        DataError: If the weight is missing or has another number of axes.
    """
    weight = published.get(f"{module}.weight")
    if weight is None:
        raise DataError(f"{module}.weight is missing")
    if weight.ndim != axes:
        expected = {3: "three", 4: "four"}[axes]
        raise DataError(f"{module}.weight is {list(weight.shape)}; expected {expected} axes")
    return weight.shape


def make_config(
    cell: str,
    topology: str,
    inferred: Mapping[str, Any],
    fixed: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Config:
    """Return the config of a converted model.

    Args:
        cell: Its cell.
        topology: Its topology.
        inferred: Options inferred from the tensors.
        fixed: Options that are the same in all networks of the dialect.
        options: Options given by the user.

    Raises:
        ConfigError: If an option contradicts the tensors.
    """
    for name in options.keys() & inferred.keys():
        if options[name] != inferred[name]:
            raise ConfigError(
                f"{name}={options[name]} contradicts {inferred[name]}, inferred from the tensors"
            )
    values = {**inferred, **fixed, **options}
    given = {key: value for key, value in values.items() if key in CREATE_FIELDS}
    own = {key: value for key, value in values.items() if key not in CREATE_FIELDS}
    given |= {"cell": cell, "topology": topology, "options": own}
    return Config.parse(given, source="the sizes")


def join_tensors(
    config: Config, published: Mapping[str, Tensor], joins: Mapping[str, Join]
) -> Converted:
    """Make the tensors of the network that `config` describes.

    Args:
        config: The config of the model.
        published: The tensors of the checkpoint.
        joins: Published modules by the name of ours, including modules that some layers lack.

    Raises:
        DataError: If tensors are missing, not understood, or have shapes that do not fit.
    """
    with torch.device("meta"):
        model = build(config)
    tensors: dict[str, Tensor] = {}
    used: dict[str, set[str]] = {}  # gates by published tensor
    missing: list[str] = []
    misshapen: list[str] = []
    for name, like in model.network.state_dict().items():
        module, _, kind = name.rpartition(".")
        if module not in joins:
            raise DataError(f"no published tensor makes {name}; leave out the option that adds it")
        join = joins[module]
        sources = [f"{part.name}.{kind}" for part in join.parts]
        if absent := [source for source in sources if source not in published]:
            missing += absent
            continue
        try:
            tensors[name] = join.make([published[source] for source in sources], kind)
        except (RuntimeError, IndexError):
            tensors[name] = torch.empty(0)
        if tensors[name].shape != like.shape:
            shapes = " and ".join(f"{s} {list(published[s].shape)}" for s in sources)
            misshapen.append(f"{shapes} (expected to make {list(like.shape)})")
        for source, part in zip(sources, join.parts, strict=True):
            used.setdefault(source, set()).update(part.keep)
    dropped, unknown = _unused(published, joins, used)
    problems = {"missing": missing, "not understood": unknown, "of another shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {shorten(names)}" for kind, names in problems.items() if names)
        raise DataError(f"its tensors do not make a {model.config.architecture}; {listed}")
    return Converted(model.config, tensors, dropped)


def _unused(
    published: Mapping[str, Tensor], joins: Mapping[str, Join], used: Mapping[str, set[str]]
) -> tuple[dict[str, str], list[str]]:
    """Return the unused published tensors and gates with reasons, and those without a reason."""
    modules = {part.name: (part, join.unused) for join in joins.values() for part in join.parts}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    for source in published:
        part, reason = modules.get(source.rpartition(".")[0], (Part(""), ""))
        if source not in used:
            if reason:
                dropped[source] = reason
            else:
                unknown.append(source)
        elif gates := [gate for gate in part.gates if gate not in used[source]]:
            dropped[f"{source}, gate {', '.join(gates)}"] = reason
    return dropped, unknown
