"""What dialects are made of: tables that say which published tensors make which of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.config import Config
from zoo.errors import ZooError, shorten
from zoo.registry import CREATE_FIELDS, build

__all__ = [
    "Converted",
    "Dialect",
    "Join",
    "Part",
    "check_cell",
    "complete",
    "fit",
    "inputs",
    "outputs",
    "shape_of",
]


class Converted(NamedTuple):
    """What a checkpoint becomes.

    config: of the model, complete.
    tensors: the state dict of its network.
    dropped: the published tensors that are not in it, each with the reason.
    """

    config: Config
    tensors: dict[str, Tensor]
    dropped: dict[str, str]


#: Published tensors, architecture, topology (None: the architecture's) and options, converted.
#: Raises ZooError for tensors that do not make that architecture.
Dialect = Callable[[dict[str, Tensor], str, "str | None", dict[str, Any]], Converted]


class Part(NamedTuple):
    """A published module, or some of its gates.

    gates: its outputs in their order, a letter a gate; "" for all of it, as it is.
    keep: the gates that are wanted, in the order in which they are.
    """

    name: str
    gates: str = ""
    keep: str = ""

    def pick(self, tensor: Tensor) -> Tensor:
        """The wanted outputs of its weight or bias, which are on the first axis."""
        if not self.gates:
            return tensor
        gates = tensor.unflatten(0, (len(self.gates), -1))
        return gates[[self.gates.index(gate) for gate in self.keep]].flatten(0, 1)


@dataclass(frozen=True)
class Join:
    """Published modules that are one of ours; made by :func:`inputs` and :func:`outputs`.

    axis: of the weights, on which they are joined.
    unused: why a layer may hold them, or some of their gates, and not use them; "": it may not.
    """

    parts: tuple[Part, ...]
    axis: int
    unused: str = ""

    def under(self, prefix: str) -> Join:
        """The same modules, with `prefix` before their names."""
        parts = (part._replace(name=prefix + part.name) for part in self.parts)
        return Join(tuple(parts), self.axis, self.unused)

    def make(self, tensors: list[Tensor], kind: str) -> Tensor:
        """Our weight or bias (`kind`) of the published ones; RuntimeError where they differ."""
        picked = [part.pick(tensor) for part, tensor in zip(self.parts, tensors, strict=True)]
        if kind == "bias" and self.axis == 1 and len(picked) > 1:
            return torch.stack([bias.double() for bias in picked]).sum(dim=0)
        return torch.cat(picked, dim=0 if kind == "bias" else self.axis)


def inputs(*parts: str | Part, unused: str = "") -> Join:
    """Modules whose results are added: one that reads all their inputs, with one bias."""
    return Join(tuple(Part(p) if isinstance(p, str) else p for p in parts), 1, unused)


def outputs(*parts: str | Part, unused: str = "") -> Join:
    """Modules that read the same input: one that gives all their outputs."""
    return Join(tuple(Part(p) if isinstance(p, str) else p for p in parts), 0, unused)


def check_cell(found: set[str], modules: Mapping[str, set[str]], arch: str, topology: str) -> None:
    """Refuse published modules that are rather those of another architecture.

    `modules` has those of every architecture of the dialect by its name.
    """

    def likeness(name: str) -> float:
        return len(found & modules[name]) / len(found | modules[name])

    likely = max(modules, key=likeness)
    if likeness(likely) > likeness(arch):
        meant = Config(cell=likely, topology=topology).architecture
        raise ZooError(f"its keys look like those of {likely}, not {arch}; pass --arch {meant}")


def shape_of(published: Mapping[str, Tensor], module: str, axes: int = 4) -> torch.Size:
    """The shape of a module's weight, which is a convolution's unless `axes` is another number.

    Raises ZooError where it is missing or has another number of axes.
    """
    weight = published.get(f"{module}.weight")
    if weight is None:
        raise ZooError(f"{module}.weight is missing")
    if weight.ndim != axes:
        expected = {3: "three", 4: "four"}[axes]
        raise ZooError(f"{module}.weight is {list(weight.shape)}; expected {expected} axes")
    return weight.shape


def complete(
    cell: str,
    topology: str,
    told: Mapping[str, Any],
    fixed: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Config:
    """The config of what the tensors tell, what is the same in all networks, and the options.

    Raises ZooError where an option contradicts the tensors.
    """
    for name in options.keys() & told.keys():
        if options[name] != told[name]:
            raise ZooError(
                f"{name}={options[name]} contradicts {told[name]}, which its tensors tell; "
                f"leave out {name}"
            )
    values = {**told, **fixed, **options}
    given = {key: value for key, value in values.items() if key in CREATE_FIELDS}
    own = {key: value for key, value in values.items() if key not in CREATE_FIELDS}
    given |= {"cell": cell, "topology": topology, "options": own}
    return Config.parse(given, source="the sizes")


def fit(config: Config, published: Mapping[str, Tensor], joins: Mapping[str, Join]) -> Converted:
    """Make the tensors of the network that `config` describes.

    `joins` has the module of ours by name, those of layers that do without it included.
    Raises ZooError for tensors that are missing, not understood, or of a shape that does not fit.
    """
    with torch.device("meta"):
        model = build(config)
    ours: dict[str, Tensor] = {}
    read: dict[str, set[str]] = {}  # the published tensors that are used, and their gates
    missing: list[str] = []
    misshapen: list[str] = []
    for name, like in model.network.state_dict().items():
        module, _, kind = name.rpartition(".")
        if module not in joins:
            raise ZooError(f"no published tensor makes {name}; leave out the option that adds it")
        join = joins[module]
        sources = [f"{part.name}.{kind}" for part in join.parts]
        if absent := [source for source in sources if source not in published]:
            missing += absent
            continue
        tensors = [published[source] for source in sources]
        try:
            ours[name] = join.make(tensors, kind)
        except (RuntimeError, IndexError):
            ours[name] = torch.empty(0)
        if ours[name].shape != like.shape:
            shapes = " and ".join(f"{s} {list(published[s].shape)}" for s in sources)
            misshapen.append(f"{shapes} (expected to make {list(like.shape)})")
        for source, part in zip(sources, join.parts, strict=True):
            read.setdefault(source, set()).update(part.keep)
    dropped, unknown = _left_over(published, joins, read)
    problems = {"missing": missing, "not understood": unknown, "of another shape": misshapen}
    if any(problems.values()):
        told = "; ".join(f"{what}: {shorten(names)}" for what, names in problems.items() if names)
        raise ZooError(f"its tensors do not make a {model.config.architecture}; {told}")
    return Converted(model.config, ours, dropped)


def _left_over(
    published: Mapping[str, Tensor], joins: Mapping[str, Join], read: Mapping[str, set[str]]
) -> tuple[dict[str, str], list[str]]:
    """The published tensors and gates that are not used, with the reason; those without one."""
    modules = {part.name: (part, join.unused) for join in joins.values() for part in join.parts}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    for source in published:
        part, reason = modules.get(source.rpartition(".")[0], (Part(""), ""))
        if source not in read:
            if reason:
                dropped[source] = reason
            else:
                unknown.append(source)
        elif unread := [gate for gate in part.gates if gate not in read[source]]:
            dropped[f"{source}, gate {', '.join(unread)}"] = reason
    return dropped, unknown
