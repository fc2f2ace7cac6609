"""How layers are stacked, as plain data, and how feature maps move between their grids.

A topology says for every layer at which scale it works and whose outputs it reads. The
memory of a cell and the `below` of a layer travel from each layer to the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError

__all__ = ["DOWN", "TOPOLOGIES", "UP", "Topology", "mirror", "resample", "stack"]


@dataclass(frozen=True)
class Topology:
    """For every layer, bottom first, its scale and where its input comes from.

    scales: layer j works on a grid of 1 / scales[j] of the frame's height and width.
    inputs: inputs[j] names the layers below j whose outputs, resampled to j's grid, are
        added up to be its input; () is the embedded frame, and only the bottom layer's.
    """

    scales: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.scales) != len(self.inputs) or not self.scales:
            raise ValueError("a topology needs one scale and one tuple of inputs a layer")
        if self.inputs[0] != () or self.scales[0] != 1 or self.scales[-1] != 1:
            raise ValueError("the bottom layer reads the frame; it and the top are at scale 1")
        for j, layers in enumerate(self.inputs[1:], start=1):
            if not layers or not all(0 <= i < j for i in layers):
                raise ValueError(f"layer {j} must read layers below it, not {layers}")

    @property
    def factor(self) -> int:
        """What the frame's height and width must be a multiple of (by padding)."""
        return max(self.scales)


def stack(layers: int) -> Topology:
    """Every layer at full size, each on top of the last."""
    _check_layers(layers)
    return Topology((1,) * layers, ((), *((j - 1,) for j in range(1, layers))))


def mirror(layers: int, halvings: int | None = None) -> Topology:
    """A mirrored pyramid of scales: the multi-scale networks (arXiv 2206.03010, section 3).

    The grid is halved after each of the first `halvings` layers and doubled before each of
    the last; after a doubling the output of the mirrored layer on the same grid is added.
    `halvings` is 2 in the papers (6 layers: 1, 1/2, 1/4, 1/4, 1/2, 1) and by default, or
    what the depth allows: layers >= 2 * halvings + 1.
    """
    _check_layers(layers)
    most = (layers - 1) // 2
    d = min(2, most) if halvings is None else halvings
    if not 0 <= d <= most:
        raise ZooError(f"{layers} layers allow 0 to {most} halvings, not {d}; pass halvings=…")
    scales = tuple(2 ** min(j, layers - 1 - j, d) for j in range(layers))
    skips = {j: layers - 1 - j for j in range(layers - d, layers)}
    inputs = ((j - 1, skips[j]) if j in skips else (j - 1,) for j in range(1, layers))
    return Topology(scales, ((), *inputs))


#: The topologies by name. An architecture `ms-<cell>` is its cell in `mirror`.
TOPOLOGIES: dict[str, Callable[..., Topology]] = {"stack": stack, "mirror": mirror}


def _check_layers(layers: int) -> None:
    if layers < 2:
        raise ZooError(f"a network needs at least 2 layers, not {layers}; pass layers=2 or more")


#: Ways down to a coarser grid, (x, ratio) -> x; `max` is the papers'.
DOWN: dict[str, Callable[[Tensor, int], Tensor]] = {
    "max": lambda x, ratio: F.max_pool2d(x, ratio),
    "average": lambda x, ratio: F.avg_pool2d(x, ratio),
}

#: Ways up to a finer grid, (x, ratio) -> x; `bilinear` is the papers'.
UP: dict[str, Callable[[Tensor, int], Tensor]] = {
    "bilinear": lambda x, ratio: F.interpolate(
        x, scale_factor=float(ratio), mode="bilinear", align_corners=False
    ),
    "nearest": lambda x, ratio: F.interpolate(x, scale_factor=float(ratio), mode="nearest"),
}


def resample(
    x: Tensor, source: int, target: int, *, down: str = "max", up: str = "bilinear"
) -> Tensor:
    """Bring a feature map (B, C, H, W) from the grid of scale `source` to that of `target`."""
    if source < target:
        return DOWN[down](x, target // source)
    if source > target:
        return UP[up](x, source // target)
    return x
