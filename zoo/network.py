"""The network: embedding, layers and head. One step in time, from one frame to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.cell import Place, RecurrentCell, State
from zoo.errors import ConfigError, DataError
from zoo.head import FrameHead, Head
from zoo.topology import Topology, resampler

__all__ = ["Network", "NetworkState"]

#: The largest number of pixels to whose multiples frames are padded. A small model with coarse
#: scales would otherwise take any amount of memory for a small frame.
LARGEST_MULTIPLE = 256


class NetworkState(NamedTuple):
    """The state of a network between two steps. Its size is constant.

    Attributes:
        layers: The state of each layer's cell.
        memory: The memory of the top layer, which enters the bottom layer at the next step. None
            if the cells do not ask for it.
        below: For each layer, the output of the layer below on this layer's grid. None in the
            bottom layer and if the cells do not ask for it.
    """

    layers: tuple[State, ...]
    memory: Tensor | None
    below: tuple[Tensor | None, ...]


class Network(nn.Module):
    """A recurrent network: an embedding, layers with cells of one class, and a head.

    Frames whose size the patches and scales do not divide are padded on the right and at the
    bottom by repeating the border, and the prediction is cropped.

    Args:
        cell: Class of the cells.
        topology: How the layers are stacked.
        in_channels: Channels of a frame, with all inputs.
        out_channels: Channels that are predicted, the first ones; by default all.
        start_channel: First of the channels of a frame from which the head starts.
        static: Number of maps that are read with every frame, the buffer `static`.
        hidden: Channels of every layer, or one number per layer.
        patch: Side of the square patches whose pixels become channels before the embedding, which
            shrinks every grid by that factor. The papers' networks use 1.
        embed: Whether a 1×1 convolution embeds the frame. Without it the bottom layer reads the
            pixels of a patch, and the papers' head has no bias.
        size: (height, width) of the frames, for cells with weights per pixel, such as layer
            normalization. Frames of other sizes are then rejected.
        down: Operation from a finer to a coarser grid, a key of :data:`zoo.topology.DOWN`.
        up: Operation from a coarser to a finer grid, a key of :data:`zoo.topology.UP`.
        head: Class of the head.
        head_options: The head's own options.
        options: The cell's own options.

    Raises:
        ConfigError: If the numbers of hidden channels do not fit the topology or the cell.
    """

    def __init__(
        self,
        cell: type[RecurrentCell],
        topology: Topology,
        *,
        in_channels: int = 1,
        out_channels: int | None = None,
        start_channel: int = 0,
        static: int = 0,
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
        if patch * topology.factor > LARGEST_MULTIPLE:
            raise ConfigError(
                f"frames would be padded to multiples of {patch * topology.factor}, the patch "
                f"({patch}) times the coarsest scale ({topology.factor}); at most "
                f"{LARGEST_MULTIPLE} is allowed"
            )
        self.topology = topology
        self.patch = patch
        self.size = size
        self.out_channels = out_channels or in_channels
        self.start_channel = start_channel
        if static:
            if size is None:
                raise ConfigError("static maps belong to one size of frames; set size")
            self.register_buffer("static", torch.zeros(static, *size))
        pixels = (in_channels + static) * patch**2
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
        predicted = self.out_channels
        self.head = head.build(channels[-1], predicted, patch, bias=embed, **(head_options or {}))
        self.asks_for = cell.asks_for
        # Memory and `below` pass from each layer to the next, even where outputs do not.
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
        """The cells of all layers, bottom first."""
        return cast(list[RecurrentCell], list(self.layers))

    def init_state(self, frame: Tensor) -> NetworkState:
        """Return the state before the first frame.

        Args:
            frame: (B, C, H, W), of which only shape, dtype and device matter.

        Raises:
            DataError: If the network is for frames of another size.
        """
        height, width = frame.shape[-2:]
        if self.size and (height, width) != tuple(self.size):
            raise DataError(
                f"frames are {height}×{width}, but this model has weights for every pixel of "
                f"{self.size[0]}×{self.size[1]}; crop or resize the frames to that"
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
        """Take one step, from frame t to the prediction of frame t + 1.

        Args:
            frame: (B, C, H, W), scaled to [0, 1], with all inputs.
            state: The state returned by the previous step, or by :meth:`init_state`.

        Returns:
            The prediction (B, out_channels, H, W), the new state, and the sum of the layers'
            auxiliary losses (B,), or None if there are none.
        """
        padded = self._pad(frame)
        x = self.embed(self._to_patches(self._with_static(padded)))
        memory, loss = state.memory, None
        outputs: list[Tensor] = []
        states: list[State] = []
        below: list[Tensor | None] = []
        for j, cell in enumerate(self.cells):
            if j > 0:
                x = self._sum_of_inputs(j, outputs)
            if j > 0 and memory is not None:
                memory = pytree.tree_map(self._resampler(j - 1, j), memory)
            if j > 0 and "below" in self.asks_for:
                below.append(self._resampler(j - 1, j)(outputs[j - 1]))
            else:
                below.append(None)
            offered = {"memory": memory, "below": state.below[j], "shared": self.shared}
            step = cell(x, state.layers[j], **{name: offered[name] for name in self.asks_for})
            outputs.append(step.output)
            states.append(step.state)
            memory = step.memory
            if step.loss is not None:
                loss = step.loss if loss is None else loss + step.loss
        height, width = frame.shape[-2:]
        start = padded[:, self.start_channel : self.start_channel + self.out_channels]
        prediction = self.head(outputs[-1], start)[..., :height, :width]
        return prediction, NetworkState(tuple(states), memory, tuple(below)), loss

    def _sum_of_inputs(self, layer: int, outputs: list[Tensor]) -> Tensor:
        """Return the sum of the outputs that a layer reads, resampled to its grid."""
        inputs = [self._resampler(i, layer)(outputs[i]) for i in self.topology.inputs[layer]]
        return sum(inputs[1:], start=inputs[0])

    @property
    def multiple(self) -> int:
        """Height and width of the frames are padded to a multiple of this."""
        return self.patch * self.topology.factor

    def _grid(self, size: tuple[int, int], scale: int) -> tuple[int, int]:
        """Return the size of a layer's grid for frames of a size, which may need padding."""
        height, width = (-(-n // self.multiple) * self.topology.factor // scale for n in size)
        return height, width

    def _resampler(self, source: int, target: int) -> nn.Module:
        return self.resamplers[f"{source}_{target}"]

    def _pad(self, frame: Tensor) -> Tensor:
        """Repeat the border so that patches and scales divide the size."""
        height, width = frame.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        return F.pad(frame, (0, right, 0, bottom), mode="replicate") if bottom or right else frame

    def _with_static(self, padded: Tensor) -> Tensor:
        """Append the static maps as channels to padded frames."""
        maps = getattr(self, "static", None)
        if maps is None:
            return padded
        batch = self._pad(maps[None]).expand(len(padded), -1, -1, -1)  # (S, H, W) to (B, S, H, W)
        return torch.cat([padded, batch.to(padded.dtype)], dim=1)

    def _to_patches(self, frame: Tensor) -> Tensor:
        return rearrange(frame, "b c (h p) (w q) -> b (p q c) h w", p=self.patch, q=self.patch)


def _check_channels(cell: type[RecurrentCell], topology: Topology, channels: list[int]) -> None:
    depth = len(topology.scales)
    if len(channels) != depth:
        raise ConfigError(
            f"hidden has {len(channels)} numbers for {depth} layers; expected one per layer"
        )
    for j, sources in enumerate(topology.inputs):
        if len({channels[i] for i in sources}) > 1:
            raise ConfigError(
                f"layer {j} adds the outputs of layers {sources}, whose hidden sizes "
                f"{[channels[i] for i in sources]} differ; make them equal"
            )
    if "memory" in cell.asks_for and len(set(channels)) > 1:
        raise ConfigError(
            f"the memory of {cell.__name__} runs through all layers, so their hidden sizes "
            f"must be equal; got {channels}"
        )
