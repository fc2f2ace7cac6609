"""The dialects `openstl` and `predrnn`: networks that read patches of pixels, without embedding.

`openstl`, github.com/chengtan9907/OpenSTL: ConvLSTM, PredRNN, PredRNN-V2, PredRNN++ and MIM. The
last two become the cells `openstl_predrnnpp` and `openstl_mim`, which have OpenSTL's equations.
`predrnn`, github.com/thuml/predrnn-pytorch, by PredRNN's authors: PredRNN and PredRNN-V2, without
the networks with actions.

Networks of any depth, kernel size, patch size and grid are supported, with and without layer
normalization; ConvLSTM's layers may differ in width. The number of channels of a frame cannot be
inferred: it is 1 unless `in_channels` is set. Not supported are strides other than 1, which cannot
be inferred either, and PredRNN++ with a highway normalized over half of its gates: that code does
not run, and its shapes are refused.

There, the auxiliary loss of PredRNN-V2 is a mean over layers and channels: their decouple_beta is
our decouple_weight times layers · hidden. Forecasts do not need it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

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
    shape_of,
)
from zoo.errors import ConfigError, DataError, shorten
from zoo.registry import parse_architecture

__all__ = ["CELLS", "openstl", "predrnn"]

LAYER = re.compile(r"(cell_list|stlstm_layer)\.(\d{1,4})\..+")


@dataclass(frozen=True)
class Published:
    """A network as these repositories store it.

    Attributes:
        cell: Name of our cell.
        layer: Returns our modules of layer j, with or without layer normalization.
        network: Our modules outside the layers.
        stem: Prefix of the index of a layer.
        hidden: The convolution from which the width of a layer above the bottom one is inferred.
        fixed: Options that are the same in all of them and cannot be inferred.
    """

    cell: str
    layer: Callable[[int, bool], dict[str, Join]]
    network: dict[str, Join] = field(default_factory=dict)
    stem: str = "cell_list"
    hidden: str = "conv_h"
    fixed: dict[str, Any] = field(default_factory=lambda: {"bias": False, "forget_bias": 1.0})

    def joins(self, layers: int, norm: bool) -> dict[str, Join]:
        """Return the modules of the whole network by our names."""
        joins = {"head": inputs("conv_last")} | self.network
        for j in range(layers):
            joins |= {f"layers.{j}.{name}": join for name, join in self.layer(j, norm).items()}
        return joins


def _convolution(
    ours: str, *parts: str | Part, norm: bool = False, unused: str = ""
) -> dict[str, Join]:
    """Join published convolutions, and the normalizations that follow them if `norm`."""
    named = [Part(part) if isinstance(part, str) else part for part in parts]

    def nth(n: int) -> Join:
        return inputs(*(p._replace(name=f"{p.name}.{n}") for p in named), unused=unused)

    return {f"{ours}.0": nth(0), f"{ours}.1": nth(1)} if norm else {ours: nth(0)}


def _under(prefix: str, joins: dict[str, Join]) -> dict[str, Join]:
    """Return the modules with `prefix` before their published names."""
    return {name: join.under(prefix) for name, join in joins.items()}


def _convlstm(j: int, norm: bool) -> dict[str, Join]:
    if norm:
        layer = _convolution("x_gates", "conv_x", norm=True)
        layer |= _convolution("h_gates", "conv_h", norm=True)
    else:
        layer = _convolution("gates", "conv_x", "conv_h")
    why = "no layer of ConvLSTM uses it"
    layer |= _convolution("unused_o", "conv_o", norm=norm, unused=why)
    layer["unused_last"] = inputs("conv_last", unused=why)
    return _under(f"cell_list.{j}.", layer)


def _predrnn(j: int, norm: bool, stem: str = "cell_list") -> dict[str, Join]:
    x = partial(Part, "conv_x", "ifgIFGo")  # I, F, G: of the memory m
    if norm:
        layer = _convolution("x_gates", x("ifgoIFG"), norm=True)
        layer |= _convolution("h_gates", "conv_h", norm=True)
        layer |= _convolution("m_gates", "conv_m", norm=True)
    else:
        layer = _convolution("gates", x("ifgo"), "conv_h")
        layer |= _convolution("memory_gates", x("IFG"), "conv_m")
    layer |= _convolution("output_gate", "conv_o", norm=norm)
    layer["mix"] = inputs("conv_last")
    return _under(f"{stem}.{j}.", layer)


def _predrnnpp(j: int, norm: bool) -> dict[str, Join]:
    conv = partial(_convolution, norm=norm)
    layer = conv("x_gates", Part("conv_x", "ifgIFGo", "ifgoIFG")) | conv("h_gates", "conv_h")
    layer |= conv("c_gates", "conv_c") | conv("new_c_gates", Part("conv_c2m", "igfo", "ifgo"))
    layer |= conv("m_gates", "conv_m") | conv("new_m_gate", "conv_om")
    layer["mix"] = inputs("conv_last")
    layer |= conv("unused_o", "conv_o", unused="no layer of PredRNN++ uses it")
    layer = _under(f"cell_list.{j}.", layer)
    if j == 1:
        highway = conv("highway.x_gates", "x_concat") | conv("highway.z_gates", "z_concat")
        layer |= _under("gradient_highway.", highway)
    return layer


def _mim(j: int, norm: bool) -> dict[str, Join]:
    if j == 0:
        bottom = _predrnn(0, norm, "stlstm_layer")
        return {f"bottom.{name}": join for name, join in bottom.items()}
    conv = partial(_convolution, norm=norm)

    def peephole(ours: str, published: str) -> dict[str, Join]:
        joins = conv(f"{ours}.x_gates", Part("conv_x_concat", "igfo", "ifgo"))
        joins |= conv(f"{ours}.h_gates", Part("conv_h_concat", "igfo", "ifgo"))
        return _under(f"{published}.", joins) | {ours: inputs(published)}

    layer = conv("x_gates", Part("conv_x_cc", "igfo", "ifgo"))
    layer |= conv("m_gates", Part("conv_s_cc", "igfo", "ifgo"))
    layer |= conv("h_gates", "conv_t_cc")
    layer["mix"] = inputs("conv_last")
    layer = _under(f"stlstm_layer.{j}.", layer)
    difference = f"stlstm_layer_diff.{j - 1}"
    layer |= peephole("stationary", f"stlstm_layer.{j}") | peephole("difference", difference)
    idle = inputs(f"{difference}.conv_last", unused="no difference layer of MIM uses it")
    return layer | {"unused": idle}


#: By the names of the papers' cells.
CELLS = {
    "convlstm": Published("convlstm", _convlstm, fixed={"bias": False}),
    "predrnn": Published("predrnn", _predrnn),
    "predrnnv2": Published("predrnnv2", _predrnn, {"shared": inputs("adapter")}),
    "predrnnpp": Published("openstl_predrnnpp", _predrnnpp, fixed={}),
    "mim": Published("openstl_mim", _mim, {}, "stlstm_layer", "conv_h_concat", fixed={}),
}


def openstl(
    published: dict[str, Tensor], arch: str, topology: str | None, options: dict[str, Any]
) -> Converted:
    """Convert tensors of OpenSTL; see :data:`zoo.convert.dialect.Dialect`."""
    return _translate("openstl", CELLS, published, arch, topology, options)


def predrnn(
    published: dict[str, Tensor], arch: str, topology: str | None, options: dict[str, Any]
) -> Converted:
    """Convert tensors of predrnn-pytorch; see :data:`zoo.convert.dialect.Dialect`."""
    cells = {name: CELLS[name] for name in ("predrnn", "predrnnv2")}
    return _translate("predrnn", cells, published, arch, topology, options)


def _translate(
    dialect: str,
    cells: Mapping[str, Published],
    published: dict[str, Tensor],
    arch: str,
    topology: str | None,
    options: dict[str, Any],
) -> Converted:
    cell, named = parse_architecture(arch)
    cell = cell.removeprefix("openstl_")
    if cell not in cells:
        raise ConfigError(f"the dialect {dialect} has no {cell}; choose from: {', '.join(cells)}")
    topology = options.pop("topology", topology) or named
    matches = [match for name in published if (match := LAYER.fullmatch(name))]
    if not matches:
        raise DataError(
            f"its keys are {shorten(published)}; expected those of a recurrent network of OpenSTL "
            "or predrnn-pytorch: cell_list.N.* or stlstm_layer.N.*, and conv_last"
        )
    layers = 1 + max(int(match[2]) for match in matches)
    norm = any(re.fullmatch(r".+\.conv_x\.1\.weight", name) for name in published)
    _check_cell(published, cells, cell, topology, layers, norm)
    config = _config(published, cells[cell], topology, options, layers, norm)
    return join_tensors(config, published, cells[cell].joins(layers, norm))


def _check_cell(
    published: Mapping[str, Tensor],
    cells: Mapping[str, Published],
    cell: str,
    topology: str,
    layers: int,
    norm: bool,
) -> None:
    """Raise DataError if the tensors look like those of another cell."""
    modules = {
        name: {part.name for join in spec.joins(layers, norm).values() for part in join.parts}
        for name, spec in cells.items()
    }
    check_cell({name.rpartition(".")[0] for name in published}, modules, cell, topology)


def _config(
    published: Mapping[str, Tensor],
    spec: Published,
    topology: str,
    options: dict[str, Any],
    layers: int,
    norm: bool,
) -> Config:
    """Infer the config from the tensors and the options."""
    first = f"{spec.stem}.0.conv_x"
    _, pixels, kernel_size, _ = shape_of(published, f"{first}.0")
    in_channels, patch = _patch(pixels, options)
    widths = [
        shape_of(published, f"{spec.stem}.{j}.{spec.hidden if j else 'conv_h'}.0")[1]
        for j in range(layers)
    ]
    inferred = {
        "hidden": widths if len(set(widths)) > 1 else widths[0],
        "layers": layers,
        "kernel_size": kernel_size,
        "norm": norm,
        "embed": False,
        "in_channels": in_channels,
        "patch": patch,
    }
    grid = None
    if norm:
        grid = shape_of(published, f"{first}.1", axes=3)[1:]
    elif spec.cell == "openstl_mim" and layers > 1:
        weight = published.get(f"{spec.stem}.1.ct_weight")
        if weight is None or weight.ndim != 3:
            raise DataError(f"{spec.stem}.1.ct_weight, with three axes, is missing")
        grid = weight.shape[1:]
    if grid:
        inferred["size"] = [side * patch for side in grid]
    return make_config(spec.cell, topology, inferred, spec.fixed, options)


def _patch(pixels: int, options: Mapping[str, Any]) -> tuple[int, int]:
    """Return the channels of a frame and the width of a patch, whose product is known."""
    channels = options.get("in_channels", 1)
    if "patch" in options and "in_channels" not in options:
        side = options["patch"]
        if type(side) is int and side > 0 and pixels % side**2 == 0:
            return pixels // side**2, side
    elif type(channels) is int and channels > 0 and pixels % channels == 0:
        side = math.isqrt(pixels // channels)
        if side**2 * channels == pixels:
            return channels, side
    raise ConfigError(
        f"its patches have {pixels} channels = in_channels · patch², which cannot be inferred; "
        "pass --set in_channels=NUMBER"
    )
