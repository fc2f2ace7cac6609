"""MIM (Wang et al. 2019, arXiv 1811.07490): memory in memory.

The bottom layer is PredRNN's cell. Above it, two cascaded memories replace the forget gate. y is
the output of the layer below one step ago:

    MIM-N:  i, f, g = split(Wₙ ∗ [x − y, n]);     n′ = σ(f) ⊙ n + σ(i) ⊙ tanh(g)
            D = σ(Vₙ ∗ [x − y, n′]) ⊙ tanh(n′)
    MIM-S:  i, f, g, o = split(Wₛ ∗ [D, c]);      s′ = σ(f) ⊙ s + σ(i) ⊙ tanh(g)
            T = σ(o + Vₛ ∗ s′) ⊙ tanh(s′)

    i, g, o = split(W ∗ [x, h]);                  c′ = T + σ(i) ⊙ tanh(g)
    iₘ, fₘ, gₘ = split(Wₘ ∗ [x, m]);              m′ = σ(fₘ) ⊙ m + σ(iₘ) ⊙ tanh(gₘ)
    o′ = σ(o + Wₒ ∗ [c′, m′]);                    h′ = o′ ⊙ tanh(W₁ₓ₁ ∗ [c′, m′])

The published code also computes N and S in the bottom layer and a forget gate above it, without
using them. Here, they do not exist.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import zoo


class MIM(zoo.RecurrentCell):
    """MIM. The state is h, c (and n, s above the bottom layer), the memory m; the output is h′.

    Each is (B, channels, H, W).

    Args:
        kernel_size: Kernel size of all convolutions but W₁ₓ₁.

    Raises:
        ZooError: If in_channels and channels differ above the bottom layer.
    """

    def __init__(
        self, in_channels: int, channels: int, place: zoo.Place, kernel_size: zoo.KernelSize = 3
    ) -> None:
        super().__init__(in_channels, channels)
        self.cascade = not place.first
        if self.cascade and in_channels != channels:
            raise zoo.ZooError(
                f"layer {place.index} of {type(self).__name__} has {in_channels} input and "
                f"{channels} hidden channels; they must be equal"
            )

        conv = partial(zoo.convolution, kernel_size=kernel_size)

        self.gates = conv(in_channels + channels, (3 if self.cascade else 4) * channels)
        self.memory_gates = conv(in_channels + channels, 3 * channels)
        self.output_gate = conv(2 * channels, channels)
        self.mix = zoo.convolution(2 * channels, channels, 1)
        if self.cascade:
            self.n_gates = conv(2 * channels, 3 * channels)
            self.n_output = conv(2 * channels, channels)
            self.s_gates = conv(2 * channels, 4 * channels)
            self.s_output = conv(channels, channels)

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros for h and c, and for n and s above the bottom layer."""
        return tuple(self.zeros(x) for _ in range(4 if self.cascade else 2))

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor, below: Tensor | None
    ) -> zoo.Step:
        """Take one step of the equations above."""
        return self.advance(x, state, memory, below)[0]

    def advance(
        self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor, below: Tensor | None
    ) -> tuple[zoo.Step, Tensor]:
        """Take one step; also return the output gate o′."""
        h, c, *cascade = state
        m = memory
        gates = self.gates(x, h)
        if self.cascade:
            n, s = cascade
            i, g, o = zoo.activate(gates, "ig_")
            n, d = self._nonstationary(x - below, n)
            s, t = self._stationary(d, c, s)
            c = t + i * g
            cascade = [n, s]
        else:
            i, f, g, o = zoo.activate(gates, "ifg_")
            c = zoo.update(f, c, i, g)
        i, f, g = zoo.activate(self.memory_gates(x, m), "ifg")
        m = zoo.update(f, m, i, g)
        o = torch.sigmoid(o + self.output_gate(c, m))
        h = zoo.gated(o, self.mix(c, m))
        return zoo.Step(h, (h, c, *cascade), memory=m), o

    def _nonstationary(self, difference: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """Return n′ and D of MIM-N."""
        i, f, g = zoo.activate(self.n_gates(difference, n), "ifg")
        n = zoo.update(f, n, i, g)
        return n, zoo.gated(torch.sigmoid(self.n_output(difference, n)), n)

    def _stationary(self, d: Tensor, c: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return s′ and T of MIM-S."""
        i, f, g, o = zoo.activate(self.s_gates(d, c), "ifg_")
        s = zoo.update(f, s, i, g)
        return s, zoo.gated(torch.sigmoid(o + self.s_output(s)), s)
