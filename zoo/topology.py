"""How layers are stacked, as plain data, and how feature maps are resampled between grids.

A topology defines for every layer its scale and the layers whose outputs it reads. A cell's
`memory` and `below` always pass from each layer to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from zoo.errors import ConfigError

__all__ = [
    "DOWN",
    "UP",
    "Topology",
    "full",
    "mirror",
    "noskip",
    "resampler",
    "stack",
    "unet3plus",
]


@dataclass(frozen=True)
class Topology:
    """The scales and inputs of all layers, bottom first.

    Attributes:
        scales: The grid of layer j has 1 / scales[j] of the frame's height and width.
        inputs: inputs[j] lists the layers below j whose outputs, resampled to the grid of j, are
            added up to form its input. Only inputs[0] is empty: the bottom layer reads the
            embedded frame.

    Raises:
        ValueError: If the scales or inputs do not form a network.
    """

    scales: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.scales) != len(self.inputs) or not self.scales:
            raise ValueError("a topology needs one scale and one tuple of inputs per layer")
        if self.inputs[0] != () or self.scales[0] != 1 or self.scales[-1] != 1:
            raise ValueError("the bottom layer reads the frame; it and the top are at scale 1")
        for j, layers in enumerate(self.inputs[1:], start=1):
            if not layers or not all(0 <= i < j for i in layers):
                raise ValueError(f"layer {j} must read layers below it, not {layers}")
        for a, b in itertools.combinations(self.scales, 2):
            if max(a, b) % min(a, b) != 0:
                raise ValueError(f"of two scales, one must divide the other: {self.scales}")

    @property
    def factor(self) -> int:
        """Height and width of the frame are padded to a multiple of this."""
        return max(self.scales)


def stack(layers: int) -> Topology:
    """Return a plain stack: every layer at full resolution reads the one below."""
    _check_layers(layers)
    return Topology((1,) * layers, _chain(layers))


def mirror(layers: int, halvings: int | None = None) -> Topology:
    """Return a mirrored pyramid of scales, as in MS-RNN (arXiv 2206.03010, section 3).

    The grid is halved after each of the first `halvings` layers and doubled before each of the
    last `halvings` layers, where the output of the mirrored layer on the same grid is added.

    Args:
        layers: Number of layers, at least 2 · halvings + 1.
        halvings: By default 2, as in the papers (6 layers at scales 1, 1/2, 1/4, 1/4, 1/2, 1), or
            fewer if there are fewer than 5 layers.
    """
    scales = _pyramid(layers, halvings)
    first = layers - scales.index(max(scales))  # the first layer after a doubling
    skips = ((layers - 1 - j,) if j >= first else () for j in range(1, layers))
    return Topology(scales, ((), *((j, *skip) for j, skip in enumerate(skips))))


def noskip(layers: int, halvings: int | None = None) -> Topology:
    """Return `mirror` without skip connections."""
    return Topology(_pyramid(layers, halvings), _chain(layers))


def unet3plus(layers: int, halvings: int | None = None) -> Topology:
    """Return `mirror` with the skip connections of UNet 3+ (arXiv 2004.08790), as in MS-RNN.

    Layer j of the upper half reads every layer of the upper half below it, and every layer of the
    lower half up to its own mirror image, layers − 1 − j.
    """
    half = -(-layers // 2)
    inputs = (
        (j - 1,)
        if j < half
        else (j - 1, *sorted({*range(half, j), *range(layers - j)} - {j - 1}, reverse=True))
        for j in range(1, layers)
    )
    return Topology(_pyramid(layers, halvings), ((), *inputs))


def full(layers: int, halvings: int | None = None) -> Topology:
    """Return `mirror` where every layer reads all layers below it."""
    inputs = (tuple(range(j - 1, -1, -1)) for j in range(layers))
    return Topology(_pyramid(layers, halvings), tuple(inputs))


def _chain(layers: int) -> tuple[tuple[int, ...], ...]:
    """Return inputs where each layer reads the one below it."""
    return ((), *((j - 1,) for j in range(1, layers)))


def _pyramid(layers: int, halvings: int | None) -> tuple[int, ...]:
    """Return the scales of a mirrored pyramid."""
    _check_layers(layers)
    most = (layers - 1) // 2
    d = min(2, most) if halvings is None else halvings
    if not 0 <= d <= most:
        raise ConfigError(f"{layers} layers allow 0 to {most} halvings, got {d}; set halvings=")
    return tuple(2 ** min(j, layers - 1 - j, d) for j in range(layers))


def _check_layers(layers: int) -> None:
    if layers < 2:
        raise ConfigError(f"a network needs at least 2 layers, got {layers}; set layers=")


#: Downsampling operations, (channels, ratio) -> module. The papers use "max".
DOWN: dict[str, Callable[[int, int], nn.Module]] = {
    "max": lambda channels, ratio: nn.MaxPool2d(ratio),
    "average": lambda channels, ratio: nn.AvgPool2d(ratio),
    "conv": lambda channels, ratio: nn.Conv2d(channels, channels, ratio, stride=ratio),
}

#: Upsampling operations, (channels, ratio) -> module. The papers use "bilinear".
UP: dict[str, Callable[[int, int], nn.Module]] = {
    "bilinear": lambda channels, ratio: nn.Upsample(
        scale_factor=ratio, mode="bilinear", align_corners=False
    ),
    "nearest": lambda channels, ratio: nn.Upsample(scale_factor=ratio, mode="nearest"),
    "conv": lambda channels, ratio: nn.ConvTranspose2d(channels, channels, ratio, stride=ratio),
}


def resampler(channels: int, source: int, target: int, *, down: str, up: str) -> nn.Module:
    """Return a module that moves feature maps (B, C, H, W) from one scale's grid to another's.

    Args:
        channels: C.
        source: Scale of the input grid.
        target: Scale of the output grid.
        down: Key of :data:`DOWN`, used if the target is coarser.
        up: Key of :data:`UP`, used if the target is finer.
    """
    if source < target:
        return DOWN[down](channels, target // source)
    if source > target:
        return UP[up](channels, source // target)
    return nn.Identity()
