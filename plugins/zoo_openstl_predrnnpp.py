"""PredRNN++ (Wang et al. 2018, arXiv 1804.06300) as OpenSTL, and the authors' code, have it.

Its causal LSTM differs from `predrnnpp`, that of the MS-RNN papers: h has a part in the output
gate, m none in g, and the map of m that is forgotten is k×k.

    i, f, g, o, iₘ, fₘ, gₘ = split(Wₓ ∗ x)        i, f, g, o += split(W_h ∗ h)
    i, f, g += split(W_c ∗ c);                      c′ = σ(f + 1) ⊙ c + σ(i) ⊙ tanh(g)
    iₘ, fₘ, gₘ, o += split(V_c ∗ c′)
    iₘ, fₘ, m̃ += split(Wₘ ∗ m), m̃ from 0;          m′ = σ(fₘ + 1) ⊙ tanh(m̃) + σ(iₘ) ⊙ tanh(gₘ)
    h′ = tanh(o + Vₘ ∗ m′) ⊙ tanh(W₁ₓ₁ ∗ [c′, m′])

Gradient highway unit, on the way from the bottom layer to the one above it:

    p, s = split(U ∗ x + V ∗ z);    z′ = σ(s) ⊙ tanh(p) + (1 − σ(s)) ⊙ z;    x ← z′

No convolution has a bias; each but the 1×1 may have layer normalisation after it, so those of
the operands stay apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import zoo


class GradientHighway(nn.Module):
    """The gradient highway unit, which keeps the width of its input."""

    def __init__(self, channels: int, conv: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.x_gates = conv(channels, 2 * channels)
        self.z_gates = conv(channels, 2 * channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """z′."""
        p, s = (self.x_gates(x) + self.z_gates(z)).chunk(2, dim=1)
        s = torch.sigmoid(s)
        return s * torch.tanh(p) + (1 - s) * z


class OpenSTLPredRNNpp(zoo.RecurrentCell):
    """State: h, c, and z in layer 1; memory: m; each (B, channels, H, W). The output is h′.

    forget_bias: the 1 above. norm: layer normalisation; needs the size of the frames.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        place: zoo.Place,
        kernel_size: int = 5,
        forget_bias: float = 1.0,
        norm: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, channels)
        self.forget_bias = forget_bias
        conv = partial(zoo.convolution, kernel_size=kernel_size, bias=False, norm=norm, size=size)
        self.highway = GradientHighway(in_channels, conv) if place.index == 1 else None
        self.x_gates = conv(in_channels, 7 * channels)
        self.h_gates = conv(channels, 4 * channels)
        self.c_gates = conv(channels, 3 * channels)
        self.new_c_gates = conv(channels, 4 * channels)
        self.m_gates = conv(channels, 3 * channels)
        self.new_m_gate = conv(channels, channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Zeros."""
        z = () if self.highway is None else (torch.zeros_like(x),)
        return self.zeros(x), self.zeros(x), *z

    def forward(self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor) -> zoo.Step:
        """One step of the equations above."""
        h, c, *z = state
        m = memory
        if self.highway is not None:
            x = self.highway(x, z[0])
            z = [x]
        i_x, f_x, g_x, o_x, i_xm, f_xm, g_xm = self.x_gates(x).chunk(7, dim=1)
        i_h, f_h, g_h, o_h = self.h_gates(h).chunk(4, dim=1)
        i_c, f_c, g_c = self.c_gates(c).chunk(3, dim=1)
        f = torch.sigmoid(f_x + f_h + f_c + self.forget_bias)
        c = f * c + torch.sigmoid(i_x + i_h + i_c) * torch.tanh(g_x + g_h + g_c)
        i_c, f_c, g_c, o_c = self.new_c_gates(c).chunk(4, dim=1)
        i_m, f_m, mapped = self.m_gates(m).chunk(3, dim=1)
        f = torch.sigmoid(f_xm + f_m + f_c + self.forget_bias)
        m = f * torch.tanh(mapped) + torch.sigmoid(i_xm + i_m + i_c) * torch.tanh(g_xm + g_c)
        o = torch.tanh(o_x + o_h + o_c + self.new_m_gate(m))
        h = o * torch.tanh(self.mix(torch.cat([c, m], dim=1)))
        return zoo.Step(h, (h, c, *z), memory=m)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell to the zoo."""
    return {"openstl_predrnnpp": OpenSTLPredRNNpp}
