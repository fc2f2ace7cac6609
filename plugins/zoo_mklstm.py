"""MK-LSTM (Ma et al. 2023, arXiv 2304.07724): an LSTM with two kernel sizes.

There is one memory per kernel size k, 3 and 5 in the paper:

    iₖ, fₖ, gₖ, oₖ = split(Wₖ ∗ [x, h] + bₖ)          with k×k kernels, for both k
    cₖ′ = σ(fₖ) ⊙ cₖ + σ(iₖ) ⊙ tanh(gₖ)
    o = σ(o₃ + o₅ + V₃ ∗ c₃′ + V₅ ∗ c₅′)
    h′ = o ⊙ tanh(W₁ₓ₁ ∗ [c₃′, c₅′])

In a mirrored pyramid of scales, this is MS-LSTM, the model of the paper. The paper calls the plain
stack TMS-LSTM.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

import zoo

KernelSizes = Annotated[tuple[zoo.KernelSize, ...], Field(min_length=1, max_length=16)]


class MKLSTM(zoo.RecurrentCell):
    """MK-LSTM. The state is h and one c per kernel size; the output is h′.

    Each is (B, channels, H, W).

    Args:
        kernel_sizes: One or more odd numbers.
    """

    def __init__(self, in_channels: int, channels: int, kernel_sizes: KernelSizes = (3, 5)) -> None:
        super().__init__(in_channels, channels)
        self.gates = nn.ModuleList(
            zoo.convolution(in_channels + channels, 4 * channels, k) for k in kernel_sizes
        )
        self.output_gates = nn.ModuleList(
            zoo.convolution(channels, channels, k) for k in kernel_sizes
        )
        self.mix = zoo.convolution(len(kernel_sizes) * channels, channels, 1)

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros for h and every c."""
        return tuple(self.zeros(x) for _ in range(1 + len(self.gates)))

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> zoo.Step:
        """Take one step of the equations above."""
        h, *memories = state
        outputs, updated = [], []
        for gates, c in zip(self.gates, memories, strict=True):
            i, f, g, o = zoo.activate(gates(x, h), "ifg_")
            outputs.append(o)
            updated.append(zoo.update(f, c, i, g))
        h = zoo.recomputed(self._output, *outputs, *updated)
        return zoo.Step(h, (h, *updated))

    def _output(self, *maps: Tensor) -> Tensor:
        """Return h′, given all oₖ and then all cₖ′."""
        outputs, memories = maps[: len(self.gates)], maps[len(self.gates) :]
        gates = zip(outputs, self.output_gates, memories, strict=True)
        first, *others = (o + conv(c) for o, conv, c in gates)
        o = torch.sigmoid(sum(others, start=first))
        return zoo.gated(o, self.mix(*memories))
