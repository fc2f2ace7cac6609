"""CMS-LSTM (Chai et al. 2021, arXiv 2102.03586): context embedding, multi-scale expression.

Context embedding: x and h gate each other in turn, five times,

    odd:   x ← 2σ(W_q ∗ h) ⊙ x            even:   h ← 2σ(W_r ∗ x) ⊙ h

followed by a step of ConvLSTM to h′, c′ and the spatiotemporal expression. f is h′ and c′
concatenated along the width. fₛ is f plus self-attention within each of s² patches of h′ and c′
(1×1 q, k, v; softmax of q·k without scaling):

    z_h, z_c = W ∗ [f₁, f₂, f₄], split along the width;   z = W₁ₓ₁ ∗ [z_h, z_c]
    i, g, o = split(W_z ∗ [z, h′])
    c″ = (1 − σ(i)) ⊙ c′ + σ(i) ⊙ tanh(g);   h″ = σ(o) ⊙ c″
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

import zoo

Scale = Annotated[int, Field(ge=1, le=16)]


class PatchAttention(nn.Module):
    """fₛ: self-attention within each of scale² joint patches of h and c, plus a residual.

    Sizes that the scale does not divide are padded by repeating the border, and cropped.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Return fₛ (B, C, H, 2W) for h and c (B, C, H, W)."""
        height, width = h.shape[-2:]
        pad = (0, -width % self.scale, 0, -height % self.scale)
        pair = torch.stack([F.pad(x, pad, mode="replicate") for x in (h, c)], dim=1)
        batch, padded = h.shape[0], pair.shape[-2:]
        patches = rearrange(
            self.qkv(rearrange(pair, "b two c h w -> (b two) c h w")),
            "(b two) (qkv c) (p h) (q w) -> qkv (b p q) (two h w) c",
            two=2,
            qkv=3,
            p=self.scale,
            q=self.scale,
        )
        query, key, value = (part.unsqueeze(1) for part in patches)  # one head
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)
        attended = rearrange(
            attended,
            "(b p q) (two h w) c -> b two c (p h) (q w)",
            b=batch,
            p=self.scale,
            two=2,
            h=padded[0] // self.scale,
        )
        return rearrange((attended + pair)[..., :height, :width], "b two c h w -> b c h (two w)")


class CMSLSTM(zoo.RecurrentCell):
    """CMS-LSTM. The state is h, c, each (B, channels, H, W); the output is h″.

    Args:
        kernel_size: Kernel size of all convolutions that are not 1×1.
        iterations: How often x or h is gated.
        scales: The s of the multi-scale attention.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: zoo.KernelSize = 3,
        iterations: Annotated[int, Field(ge=0, le=32)] = 5,
        scales: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=8)] = (1, 2, 4),
    ) -> None:
        super().__init__(in_channels, channels)
        self.iterations = iterations

        conv = partial(zoo.convolution, kernel_size=kernel_size)

        self.look_at_h = conv(channels, in_channels)
        self.look_at_x = conv(in_channels, channels)
        self.gates = conv(in_channels + channels, 4 * channels)
        self.attentions = nn.ModuleList(PatchAttention(channels, scale) for scale in scales)
        self.combine = conv(len(scales) * channels, channels)
        self.mix = zoo.convolution(2 * channels, channels, 1)
        self.expression = conv(2 * channels, 3 * channels)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros for h and c."""
        return self.zeros(x), self.zeros(x)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> zoo.Step:
        """Take one step of the equations above."""
        h, c = state
        for turn in range(self.iterations):
            if turn % 2 == 0:
                (gate,) = zoo.activate(self.look_at_h(h), "i")
                x = 2 * (gate * x)
            else:
                (gate,) = zoo.activate(self.look_at_x(x), "i")
                h = 2 * (gate * h)
        i, f, g, o = zoo.activate(self.gates(x, h), "ifgo")
        c = zoo.update(f, c, i, g)
        h = zoo.gated(o, c)
        # As in the paper, the convolution crosses the seam between h and c.
        z = self.combine(*(attend(h, c) for attend in self.attentions))
        z = self.mix(rearrange(z, "b c h (two w) -> b (two c) h w", two=2))
        i, g, o = zoo.activate(self.expression(z, h), "igo")
        c = (1 - i) * c + i * g
        h = c * o
        return zoo.Step(h, (h, c))
