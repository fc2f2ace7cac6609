"""The dialect of the MS-RNN repository, github.com/mazhf/MS-RNN: all of its networks.

Its state dicts contain `embed.conv_embed`, `fc.conv_fc` and, for layer N, `rnns.lstm.N.*`, or
`rnns.lstms.N.*` in the networks without skips, UNet3+ and FC. The topology cannot be inferred.

Each table below lists our modules with the published ones that they join.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.config import Config
from zoo.convert.dialect import (
    Converted,
    Join,
    Part,
    check_cell,
    inputs,
    join_tensors,
    make_config,
    outputs,
    shape_of,
)
from zoo.errors import ConfigError, DataError, shorten
from zoo.registry import parse_architecture

__all__ = ["CELLS", "translate"]

#: Returns the shape of the weight of a module of layer 0, by name.
Shapes = Callable[[str], torch.Size]

NETWORK = {"embed": inputs("embed.conv_embed"), "head": inputs("fc.conv_fc")}
LAYER = re.compile(r"rnns\.(lstms?)\.(\d{1,4})\.(.+)")


def _kernel(name: str) -> Callable[[Shapes], int]:
    """Infer the kernel size from a module."""
    return lambda shapes: shapes(name)[-1]


@dataclass(frozen=True)
class Published:
    """A cell as that repository stores it.

    Attributes:
        layer: Our modules of a layer; names that start with "0." are for the bottom layer only.
        network: Our modules that all layers share.
        inferred: Options inferred from the tensors.
        fixed: Options that are the same in all of its networks.
        required: Options that cannot be inferred, integers of 1 or more, with a description.
    """

    layer: dict[str, Join]
    network: dict[str, Join] = field(default_factory=dict)
    inferred: dict[str, Callable[[Shapes], Any]] = field(
        default_factory=lambda: {"kernel_size": _kernel("_conv_x2h")}
    )
    fixed: dict[str, Any] = field(default_factory=dict)
    required: dict[str, str] = field(default_factory=dict)

    @property
    def modules(self) -> set[str]:
        """Names of all published modules."""
        joins = (NETWORK | self.network | self.layer).values()
        return {part.name for join in joins for part in join.parts}

    def joins(self, stem: str, layers: int) -> dict[str, Join]:
        """Return the modules of the whole network by our names."""
        joins = NETWORK | self.network
        for j in range(layers):
            for name, join in self.layer.items():
                prefix, _, rest = name.partition(".")
                if prefix == "0" and j == 0:
                    joins[f"layers.0.{rest}"] = join.under(f"{stem}.0.")
                elif prefix != "0":
                    joins.setdefault(f"layers.{j}.{name}", join.under(f"{stem}.{j}."))
        return joins


GATES = {"gates": inputs("_conv_x2h", "_conv_h2h")}

PREDRNN = GATES | {
    "memory_gates": inputs("_conv_x2h_m", "_conv_m2h_m"),
    "output_gate": inputs("_conv_c2o", "_conv_m2o"),
    "mix": inputs("_conv_c_m"),
}

_BOTTOM = "the bottom layer has no MIM-N and MIM-S"
_ABOVE = "above the bottom layer MIM-S replaces the forget gate"
MIM = PREDRNN | {
    "0.gates": PREDRNN["gates"],
    "gates": inputs(
        Part("_conv_x2h", "ifgo", keep="igo"), Part("_conv_h2h", "ifgo", keep="igo"), unused=_ABOVE
    ),
    "n_gates": inputs("_conv_x2h_n", "_conv_n2h_n", unused=_BOTTOM),
    "n_output": inputs("_conv_diff2o", "_conv_n2o", unused=_BOTTOM),
    "s_gates": inputs("_conv_x2h_s", "_conv_c2h_s", unused=_BOTTOM),
    "s_output": inputs("_conv_s2o", unused=_BOTTOM),
}

_TOP = "the last layer has no MotionGRU"
MOTIONRNN = MIM | {
    "motion.encode": inputs("_conv_enc", unused=_TOP),
    "motion.gates": outputs("_conv_u", "_conv_r", unused=_TOP),
    "motion.candidate": inputs("_conv_z", unused=_TOP),
    "motion.mask": inputs("_conv_hm", unused=_TOP),
    "motion.mix": inputs("_conv_dec", unused=_TOP),
    "motion.decode": inputs("_deconv_dec", unused=_TOP),
    "motion.gate": inputs("_conv_g", unused=_TOP),
}

TRAJGRU = {
    "gates": inputs("_conv_x2h"),
    "flow_hidden": inputs("_conv_x2f", "_conv_h2f"),
    "flow": inputs("_conv_flow"),
    "project": inputs("project"),
}

PREDRNNPP = {
    "highway.gates": inputs(
        "_conv_x", "_conv_z", unused="only the layer above the bottom one has a highway"
    ),
    "gates": inputs("_conv_x_h_c"),
    "memory_gates": inputs("_conv_x_c_m"),
    "memory_mix": inputs("_conv_m"),
    "output_gate": inputs("_conv_o"),
    "mix": inputs("_conv_c_m"),
}

PRECIPLSTM = GATES | {
    "attention.qkv": outputs("LA.conv1", "LA.conv2", "LA.conv3"),
    "attention_mix": inputs("_conv_x_x_att"),
    "memory_gates": inputs("_conv_x2h_m", "_conv_m2h_m"),
    "spatial_gates": inputs("_conv_x2h_ms", "_conv_ms2h_ms"),
    "temporal_gates": inputs("_conv_x2h_mt", "_conv_mt2h_mt"),
    "output_gate": inputs("_conv_c2o", "_conv_ms2o", "_conv_mt2o", "_conv_m2o"),
    "mix": inputs("c_m_ms_mt"),
}

CMSLSTM = GATES | {
    "look_at_h": inputs("convQ"),
    "look_at_x": inputs("convR"),
    **{
        f"attentions.{i}.qkv": outputs(
            *(f"SEBlock.stages.{i}.f_{name}" for name in ("query", "key", "value"))
        )
        for i in range(3)
    },
    "combine": inputs("SEBlock.conv_bn"),
    "mix": inputs("SEBlock.w_z"),
    "expression": inputs("SEBlock.w_z2h", "SEBlock.w_h2h"),
}

MODERNN = GATES | {
    "look_at_h.convs.0": inputs("conv33_H"),
    "look_at_h.convs.1": inputs("conv55_H"),
    "look_at_h.convs.2": inputs("conv77_H"),
    "look_at_x.convs.0": inputs("conv33_X"),
    "look_at_x.convs.1": inputs("conv55_X"),
    "look_at_x.convs.2": inputs("conv77_X"),
}

MKLSTM = {
    "gates.0": inputs("_conv_x2h_3", "_conv_h2h_3"),
    "gates.1": inputs("_conv_x2h_5", "_conv_h2h_5"),
    "output_gates.0": inputs("_conv_c2o_3"),
    "output_gates.1": inputs("_conv_c2o_5"),
    "mix": inputs("_conv_out"),
}

CELLS = {
    "convlstm": Published(GATES),
    "trajgru": Published(
        TRAJGRU,
        inferred={
            "kernel_size": _kernel("_conv_x2h"),
            "links": lambda shapes: shapes("_conv_flow")[0] // 2,
        },
    ),
    "predrnn": Published(PREDRNN),
    "predrnnv2": Published(PREDRNN, network={"shared": inputs("rnns.adapter")}),
    "predrnnpp": Published(PREDRNNPP, inferred={"kernel_size": _kernel("_conv_x_h_c")}),
    "mim": Published(MIM),
    "motionrnn": Published(
        MOTIONRNN,
        inferred={
            "kernel_size": _kernel("_conv_x2h"),
            "motion_kernel": lambda shapes: math.isqrt(shapes("_conv_hm")[0]),
        },
        fixed={"published_order": True},
    ),
    "preciplstm": Published(
        PRECIPLSTM, required={"window": "the width of the attention's window, 30 in the paper"}
    ),
    "cmslstm": Published(CMSLSTM),
    "modernn": Published(MODERNN),
    "mklstm": Published(
        MKLSTM,
        inferred={"kernel_sizes": lambda shapes: [shapes(f"_conv_x2h_{k}")[-1] for k in (3, 5)]},
    ),
}


def translate(
    published: dict[str, Tensor], arch: str, topology: str | None, options: dict[str, Any]
) -> Converted:
    """Convert tensors of this dialect; see :data:`zoo.convert.dialect.Dialect`."""
    cell, named = parse_architecture(arch)
    if cell not in CELLS:
        raise ConfigError(f"the dialect msrnn has no {cell}; choose from: {', '.join(CELLS)}")
    topology = options.pop("topology", topology)
    stem, layers = _layers(published)
    _check_cell(published, cell, topology or named)
    if stem == "rnns.lstms" and topology is None and named in ("stack", "mirror"):
        raise ConfigError(
            "its keys rnns.lstms.* are those of a network without skips, UNet3+ or FC, which "
            "cannot be inferred; pass --topology noskip, unet3plus or full"
        )
    config = _config(published, cell, topology or named, options, stem, layers)
    return join_tensors(config, published, CELLS[cell].joins(stem, layers))


def _layers(published: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return the prefix of a layer's index, and the number of layers."""
    matches = [match for name in published if (match := LAYER.fullmatch(name))]
    stems = {match[1] for match in matches}
    if len(stems) != 1:
        raise DataError(
            f"its keys are {shorten(published)}; expected those of the MS-RNN repository: embed.*, "
            "rnns.lstm.N.* or rnns.lstms.N.*, and fc.*"
        )
    return f"rnns.{stems.pop()}", 1 + max(int(match[2]) for match in matches)


def _check_cell(published: Mapping[str, Tensor], cell: str, topology: str) -> None:
    """Raise DataError if the tensors look like those of another cell."""
    modules = set()
    for name in published:
        module = name.rpartition(".")[0]
        match = LAYER.fullmatch(module)
        modules.add(match[3] if match else module)
    check_cell(modules, {name: spec.modules for name, spec in CELLS.items()}, cell, topology)


def _config(
    published: Mapping[str, Tensor],
    cell: str,
    topology: str,
    options: dict[str, Any],
    stem: str,
    layers: int,
) -> Config:
    """Infer the config from the tensors and the options."""

    def shape(name: str) -> torch.Size:
        return shape_of(published, name)

    spec = CELLS[cell]
    hidden, in_channels = shape("embed.conv_embed")[:2]
    inferred = {
        "hidden": hidden,
        "in_channels": in_channels,
        "layers": layers,
        **{
            name: infer(lambda part: shape(f"{stem}.0.{part}"))
            for name, infer in spec.inferred.items()
        },
    }
    for name, description in spec.required.items():
        number = options.get(name)
        if type(number) is not int or number < 1:
            reason = f"got {number!r}" if name in options else "it cannot be inferred"
            raise ConfigError(f"{name} ({description}): {reason}; pass --set {name}=NUMBER")
    return make_config(cell, topology, inferred, spec.fixed, options)
