"""How layers are stacked, as plain data, and how feature maps move between their grids.

A topology says for every layer at which scale it works and whose outputs it reads. The
memory of a cell and the `below` of a layer travel from each layer to the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from zoo.errors import ZooError

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
        for one in self.scales:
            if not all(max(one, other) % min(one, other) == 0 for other in self.scales):
                raise ValueError(f"of two scales one must divide the other: {self.scales}")

    @property
    def factor(self) -> int:
        """What the frame's height and width must be a multiple of (by padding)."""
        return max(self.scales)


def stack(layers: int) -> Topology:
    """Every layer at full size, each on top of the last."""
    _check_layers(layers)
    return Topology((1,) * layers, _chain(layers))


def mirror(layers: int, halvings: int | None = None) -> Topology:
    """A mirrored pyramid of scales: the multi-scale networks (arXiv 2206.03010, section 3).

    The grid is halved after each of the first `halvings` layers and doubled before each of
    the last; after a doubling the output of the mirrored layer on the same grid is added.
    `halvings` is 2 in the papers (6 layers: 1, 1/2, 1/4, 1/4, 1/2, 1) and by default, or
    what the depth allows: layers >= 2 * halvings + 1.
    """
    scales = _pyramid(layers, halvings)
    first = layers - scales.index(max(scales))  # the first layer after a doubling
    skips = ((layers - 1 - j,) if j >= first else () for j in range(1, layers))
    return Topology(scales, ((), *((j, *skip) for j, skip in enumerate(skips))))


def noskip(layers: int, halvings: int | None = None) -> Topology:
    """`mirror` without the additions of mirrored layers."""
    return Topology(_pyramid(layers, halvings), _chain(layers))


def unet3plus(layers: int, halvings: int | None = None) -> Topology:
    """`mirror` with the skips of UNet 3+ (arXiv 2004.08790), as the MS-RNN paper compares it.

    A layer of the upper half reads every layer of the upper half below it, and of the lower
    half those that are mirrored above it or itself.
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
    """`mirror` in which every layer reads all layers below it."""
    inputs = (tuple(range(j - 1, -1, -1)) for j in range(layers))
    return Topology(_pyramid(layers, halvings), tuple(inputs))


def _chain(layers: int) -> tuple[tuple[int, ...], ...]:
    """Each layer reads the one below it."""
    return ((), *((j - 1,) for j in range(1, layers)))


def _pyramid(layers: int, halvings: int | None) -> tuple[int, ...]:
    """The scales of a mirrored pyramid."""
    _check_layers(layers)
    most = (layers - 1) // 2
    d = min(2, most) if halvings is None else halvings
    if not 0 <= d <= most:
        raise ZooError(f"{layers} layers allow 0 to {most} halvings, not {d}; pass halvings=…")
    return tuple(2 ** min(j, layers - 1 - j, d) for j in range(layers))


def _check_layers(layers: int) -> None:
    if layers < 2:
        raise ZooError(f"a network needs at least 2 layers, not {layers}; pass layers=2 or more")


#: Ways down to a coarser grid, (channels, ratio) -> module; `max` is the papers'.
DOWN: dict[str, Callable[[int, int], nn.Module]] = {
    "max": lambda channels, ratio: nn.MaxPool2d(ratio),
    "average": lambda channels, ratio: nn.AvgPool2d(ratio),
    "conv": lambda channels, ratio: nn.Conv2d(channels, channels, ratio, stride=ratio),
}

#: Ways up to a finer grid, (channels, ratio) -> module; `bilinear` is the papers'.
UP: dict[str, Callable[[int, int], nn.Module]] = {
    "bilinear": lambda channels, ratio: nn.Upsample(
        scale_factor=ratio, mode="bilinear", align_corners=False
    ),
    "nearest": lambda channels, ratio: nn.Upsample(scale_factor=ratio, mode="nearest"),
    "conv": lambda channels, ratio: nn.ConvTranspose2d(channels, channels, ratio, stride=ratio),
}


def resampler(channels: int, source: int, target: int, *, down: str, up: str) -> nn.Module:
    """What brings a feature map (B, C, H, W) from the grid of scale `source` to `target`'s."""
    if source < target:
        return DOWN[down](channels, target // source)
    if source > target:
        return UP[up](channels, source // target)
    return nn.Identity()
