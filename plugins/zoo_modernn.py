"""MoDeRNN (Chai et al. 2022, arXiv 2110.12978): detail context, then ConvLSTM.

Before the step of ConvLSTM, x and h gate each other in turn, five times:

    odd:   x ← 2σ(K ∗ h) ⊙ x            even:   h ← 2σ(K′ ∗ x) ⊙ h

K ∗ h is the mean of a 3×3, a 5×5 and a 7×7 convolution. They are stored as three and computed as
one 7×7 convolution with the sum of their centered kernels.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import zoo

OddSize = Literal[1, 3, 5, 7, 9, 11, 13, 15]


class MeanConvolution(nn.Module):
    """The mean of convolutions with several odd kernel sizes, computed as one of the largest."""

    def __init__(self, inputs: int, outputs: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(inputs, outputs, k, padding=k // 2) for k in sizes)

    def merged(self) -> dict[str, Tensor]:
        """Return the weight and bias of the equivalent convolution."""
        largest = max(conv.weight.shape[-1] for conv in self.convs)
        weight = sum(F.pad(c.weight, 4 * [(largest - c.weight.shape[-1]) // 2]) for c in self.convs)
        bias = sum(conv.bias for conv in self.convs)
        return {"weight": weight / len(self.convs), "bias": bias / len(self.convs)}


class MoDeRNN(zoo.RecurrentCell):
    """MoDeRNN. The state is h, c, each (B, channels, H, W); the output is h′.

    Args:
        kernel_size: Kernel size of ConvLSTM's gates.
        iterations: How often x or h is gated.
        detail_sizes: Kernel sizes of K and K′.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: zoo.KernelSize = 3,
        iterations: Annotated[int, Field(ge=0, le=32)] = 5,
        detail_sizes: Annotated[tuple[OddSize, ...], Field(min_length=1, max_length=8)] = (3, 5, 7),
    ) -> None:
        super().__init__(in_channels, channels)
        self.iterations = iterations
        self.look_at_h = MeanConvolution(channels, in_channels, detail_sizes)
        self.look_at_x = MeanConvolution(in_channels, channels, detail_sizes)
        self.gates = zoo.convolution(in_channels + channels, 4 * channels, kernel_size)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros for h and c."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> zoo.Step:
        """Take one step of the equations above."""
        h, c = state
        at_h, at_x = self.look_at_h.merged(), self.look_at_x.merged()
        for turn in range(self.iterations):
            if turn % 2 == 0:
                (gate,) = zoo.activate(zoo.convolve(h, **at_h), "i")
                x = 2 * (gate * x)
            else:
                (gate,) = zoo.activate(zoo.convolve(x, **at_x), "i")
                h = 2 * (gate * h)
        i, f, g, o = zoo.activate(self.gates(x, h), "ifgo")
        c = zoo.update(f, c, i, g)
        h = zoo.gated(o, c)
        return zoo.Step(h, (h, c))
