"""The network: embed, layers, head. One step in time, from a frame to the next frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.cell import Place, RecurrentCell, State
from zoo.errors import ZooError
from zoo.head import FrameHead, Head
from zoo.topology import Topology, resampler

__all__ = ["Network", "NetworkState"]


class NetworkState(NamedTuple):
    """What a network keeps from step to step; its size does not grow with time.

    layers: the state of every layer's cell.
    memory: the memory of the top layer, which enters the bottom layer; None without one.
    below: for every layer the output of the layer below it, on its own grid; None for the
        bottom layer and for cells that do not ask for it.
    """

    layers: tuple[State, ...]
    memory: Tensor | None
    below: tuple[Tensor | None, ...]


class Network(nn.Module):
    """A recurrent network of equal cells: a 1×1 convolution, the layers, a head.

    Args:
        cell: the class of the cells.
        topology: how the layers are stacked.
        in_channels: channels of a frame.
        hidden: channels of every layer, or one number a layer.
        patch: side of the squares of pixels that become channels before the embedding, so
            that every grid is that much smaller; 1 is the papers' network.
        size: height and width of the frames, for cells with weights for every pixel (those of
            layer normalisation): frames of another size are then refused.
        embed: whether the pixels of a patch pass a 1×1 convolution to the bottom layer; without
            it they are its input, and the papers' head has no bias.
        down, up: how feature maps move between grids (:mod:`zoo.topology`).
        head: the class of the head (:mod:`zoo.head`), by default the papers'.
        head_options: the head's own options.
        options: the cell's own options.

    A frame size that the scales do not divide is padded on the right and at the bottom, by
    repeating the border, and the prediction is cropped.
    """

    def __init__(
        self,
        cell: type[RecurrentCell],
        topology: Topology,
        *,
        in_channels: int = 1,
        hidden: int | Sequence[int] = 32,
        patch: int = 1,
        embed: bool = True,
        size: tuple[int, int] | None = None,
        down: str = "max",
        up: str = "bilinear",
        head: type[Head] = FrameHead,
        head_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        depth = len(topology.scales)
        channels = [hidden] * depth if isinstance(hidden, int) else list(hidden)
        _check_channels(cell, topology, channels)
        self.topology = topology
        self.patch = patch
        self.size = size
        pixels = in_channels * patch**2
        self.embed = nn.Conv2d(pixels, channels[0], 1) if embed else nn.Identity()
        self.layers = nn.ModuleList(
            cell.build(
                channels[topology.inputs[j][0]] if j else (channels[0] if embed else pixels),
                channels[j],
                Place(j, depth),
                size and self._grid(size, topology.scales[j]),
                **options,
            )
            for j in range(depth)
        )
        self.shared = cell.make_shared(channels[0], **options)
        self.head = head.build(channels[-1], in_channels, patch, bias=embed, **(head_options or {}))
        self.asks_for = cell.asks_for
        # The memory and `below` take the same ways as the outputs, from each layer to the next.
        edges = {(i, j) for j, sources in enumerate(topology.inputs) for i in sources}
        if "memory" in self.asks_for or "below" in self.asks_for:
            edges |= {(j - 1, j) for j in range(1, depth)}
        self.resamplers = nn.ModuleDict(
            {
                f"{i}_{j}": resampler(
                    channels[i], topology.scales[i], topology.scales[j], down=down, up=up
                )
                for i, j in sorted(edges)
            }
        )

    @property
    def cells(self) -> list[RecurrentCell]:
        """The cells, bottom first."""
        return cast(list[RecurrentCell], list(self.layers))

    def init_state(self, frame: Tensor) -> NetworkState:
        """The state before the first frame: zeros, for frames like `frame` (B, C, H, W).

        Raises ZooError for frames of another size, where the network is made for one.
        """
        height, width = frame.shape[-2:]
        if self.size and (height, width) != tuple(self.size):
            raise ZooError(
                f"frames are {height}×{width}; the weights of this model are for each pixel of "
                f"{self.size[0]}×{self.size[1]}: give frames of that size"
            )

        def zeros(channels: int, scale: int) -> Tensor:
            grid = self._grid((height, width), scale)
            return frame.new_zeros(frame.shape[0], channels, *grid)

        cells, scales = self.cells, self.topology.scales
        states, below = [], []
        for j, cell in enumerate(cells):
            states.append(cell.init_state(zeros(cell.in_channels, scales[j])))
            wanted = j > 0 and "below" in self.asks_for
            below.append(zeros(cells[j - 1].channels, scales[j]) if wanted else None)
        memory = zeros(cells[0].channels, scales[0]) if "memory" in self.asks_for else None
        return NetworkState(tuple(states), memory, tuple(below))

    def forward(
        self, frame: Tensor, state: NetworkState
    ) -> tuple[Tensor, NetworkState, Tensor | None]:
        """One step: frame t (B, C, H, W) to the prediction of frame t + 1.

        Returns the prediction, the state, and the sum of the layers' auxiliary losses (B,),
        None where there are none.
        """
        padded = self._pad(frame)
        x = self.embed(self._to_patches(padded))
        memory, loss = state.memory, None
        outputs: list[Tensor] = []
        states, below = [], []
        for j, cell in enumerate(self.cells):
            arriving = None
            if j > 0:
                x, *others = (self._resampler(i, j)(outputs[i]) for i in self.topology.inputs[j])
                x = sum(others, start=x)
                if memory is not None:
                    memory = pytree.tree_map(self._resampler(j - 1, j), memory)
                if "below" in self.asks_for:
                    arriving = self._resampler(j - 1, j)(outputs[j - 1])
            offered = {"memory": memory, "below": state.below[j], "shared": self.shared}
            step = cell(x, state.layers[j], **{name: offered[name] for name in self.asks_for})
            outputs.append(step.output)
            states.append(step.state)
            below.append(arriving)
            memory = step.memory
            if step.loss is not None:
                loss = step.loss if loss is None else loss + step.loss
        height, width = frame.shape[-2:]
        prediction = self.head(outputs[-1], padded)[..., :height, :width]
        return prediction, NetworkState(tuple(states), memory, tuple(below)), loss

    @property
    def _multiple(self) -> int:
        return self.patch * self.topology.factor

    def _grid(self, size: tuple[int, int], scale: int) -> tuple[int, int]:
        """The size of a layer's grid for frames of a size: padded, and divided."""
        height, width = (-(-n // self._multiple) * self.topology.factor // scale for n in size)
        return height, width

    def _resampler(self, source: int, target: int) -> nn.Module:
        return self.resamplers[f"{source}_{target}"]

    def _pad(self, frame: Tensor) -> Tensor:
        """The frame on a size that patches and scales divide, its border repeated."""
        height, width = frame.shape[-2:]
        bottom, right = -height % self._multiple, -width % self._multiple
        return F.pad(frame, (0, right, 0, bottom), mode="replicate") if bottom or right else frame

    def _to_patches(self, frame: Tensor) -> Tensor:
        return rearrange(frame, "b c (h p) (w q) -> b (p q c) h w", p=self.patch, q=self.patch)


def _check_channels(cell: type[RecurrentCell], topology: Topology, channels: list[int]) -> None:
    depth = len(topology.scales)
    if len(channels) != depth:
        raise ZooError(f"hidden has {len(channels)} numbers for {depth} layers; give one a layer")
    for j, sources in enumerate(topology.inputs):
        if len({channels[i] for i in sources}) > 1:
            raise ZooError(
                f"layer {j} adds the outputs of layers {sources}, whose hidden sizes "
                f"{[channels[i] for i in sources]} differ; make them equal"
            )
    if "memory" in cell.asks_for and len(set(channels)) > 1:
        raise ZooError(
            f"the memory of {cell.__name__} runs through all layers, so their hidden sizes "
            f"must be equal; got {channels}"
        )
