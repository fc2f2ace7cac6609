"""PredRNN++ (Wang et al. 2018, arXiv 1804.06300): causal LSTM and gradient highway.

Causal LSTM, where the memory m, which passes from layer to layer, depends on the new c:

    i, f, g = split(W₁ ∗ [x, h, c]);     c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    i, f, g = split(W₂ ∗ [x, c′, m]);    m′ = σ(f) ⊙ tanh(W₃ ∗ m) + σ(i) ⊙ tanh(g)
    o = tanh(W₄ ∗ [x, c′, m′])
    h′ = o ⊙ tanh(W₅ ∗ [c′, m′])                                      W₃, W₅ are 1×1

Gradient highway unit, between the bottom layer and the one above it:

    p, s = split(W ∗ [x, z]);    z′ = σ(s) ⊙ tanh(p) + (1 − σ(s)) ⊙ z;    x ← z′

The published code creates a highway in every layer, but uses only that of layer 1. Here, no other
layer has one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import zoo


class GradientHighway(nn.Module):
    """The gradient highway unit; z′ has the channels of x."""

    def __init__(self, channels: int, conv: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.gates = conv(2 * channels, 2 * channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Return z′."""
        p, s = self.gates(x, z).chunk(2, dim=1)
        s = torch.sigmoid(s)
        return s * zoo.tanh(p) + (1 - s) * z


class PredRNNpp(zoo.RecurrentCell):
    """PredRNN++. The state is h, c (and z in layer 1), the memory m; the output is h′.

    Each is (B, channels, H, W).

    Args:
        kernel_size: Kernel size of W₁, W₂, W₄ and the highway's W.
        bias: Whether the convolutions have biases.
        forget_bias: Number added to f in both equations.
        norm: Whether layer normalization follows the k×k convolutions. Requires the size of the
            frames.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        place: zoo.Place,
        kernel_size: zoo.KernelSize = 3,
        bias: bool = True,
        forget_bias: float = 0.0,
        norm: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, channels)
        self.forget_bias = forget_bias
        conv = partial(zoo.convolution, kernel_size=kernel_size, bias=bias, norm=norm, size=size)
        self.highway = GradientHighway(in_channels, conv) if place.index == 1 else None
        self.gates = conv(in_channels + 2 * channels, 3 * channels)
        self.memory_gates = conv(in_channels + 2 * channels, 3 * channels)
        self.memory_mix = nn.Conv2d(channels, channels, 1, bias=bias)
        self.output_gate = conv(in_channels + 2 * channels, channels)
        self.mix = zoo.convolution(2 * channels, channels, 1, bias=bias)

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros for h and c, and for z in layer 1."""
        z = () if self.highway is None else (torch.zeros_like(x),)
        return self.zeros(x), self.zeros(x), *z

    def forward(self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor) -> zoo.Step:
        """Take one step of the equations above."""
        h, c, *z = state
        m = memory
        if self.highway is not None:
            x = self.highway(x, z[0])
            z = [x]
        i, f, g = zoo.activate(self.gates(x, h, c), "ifg", self.forget_bias)
        c = zoo.update(f, c, i, g)
        i, f, g = zoo.activate(self.memory_gates(x, c, m), "ifg", self.forget_bias)
        m = zoo.gated(f, self.memory_mix(m)) + i * g
        o = zoo.tanh(self.output_gate(x, c, m))
        h = zoo.gated(o, self.mix(c, m))
        return zoo.Step(h, (h, c, *z), memory=m)
