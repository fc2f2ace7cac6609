"""PrecipLSTM (Ma et al. 2022): PredRNN with spatial and temporal memories, for rain.

y is the layer's own input one step ago, and zero at the first step:

    a = x + Wₐ ∗ LA(x)                                        LA: local attention
    i, f, g, o = split(W ∗ [a, h]);           c′ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    iₘ, fₘ, gₘ = split(Wₘ ∗ [a, m]);          m′ = σ(fₘ) ⊙ m + σ(iₘ) ⊙ tanh(gₘ)
    iₛ, fₛ, gₛ = split(Wₛ ∗ [a, s]);          s′ = σ(fₛ) ⊙ s + σ(iₛ) ⊙ tanh(gₛ)
    iₜ, fₜ, gₜ = split(Wₜ ∗ [x − y, t]);      t′ = σ(fₜ) ⊙ t + σ(iₜ) ⊙ tanh(gₜ)
    h′ = σ(o + Wₒ ∗ [c′, s′, t′, m′]) ⊙ tanh(W₁ₓ₁ ∗ [c′, s′, t′, m′])
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


class LocalAttention(nn.Module):
    """LA: every pixel attends to a window of n×n pixels around it (1×1 q, k, v without biases).

    The window extends from −⌊n/2⌋ to n − 1 − ⌊n/2⌋ in both directions. Scores are q·k without
    scaling. Positions outside the frame take part in the softmax with score 0 and value 0.

    Attention is computed per tile of pixels: the windows of a tile fit into one patch of keys, and
    a mask, the same for all tiles, selects each pixel's window. This allows torch's fused
    attention, which does not store scores, so that memory is proportional to the frame instead of
    frame × window.

    Args:
        channels: Channels of the input and output.
        window: n.
    """

    TILE = 16

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return LA(x), in the shape of x (B, C, H, W)."""
        batch, channels, height, width = x.shape
        side = self.TILE + self.window - 1  # of the patch of keys of a tile
        before = self.window // 2
        bottom, right = -height % self.TILE, -width % self.TILE
        query, key_value = self.qkv(x).split([channels, 2 * channels], dim=1)
        query = rearrange(
            F.pad(query, (0, right, 0, bottom)),
            "b c (p h) (q w) -> (b p q) 1 (h w) c",
            h=self.TILE,
            w=self.TILE,
        )
        after = side - self.TILE - before
        around = F.pad(key_value, (before, after + right, before, after + bottom))
        patches = around.unfold(2, side, self.TILE).unfold(3, side, self.TILE)
        key, value = rearrange(patches, "b (kv c) p q h w -> kv (b p q) 1 (h w) c", kv=2)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=self._mask(x), scale=1.0
        )
        attended = rearrange(
            attended,
            "(b p q) 1 (h w) c -> b c (p h) (q w)",
            b=batch,
            p=(height + bottom) // self.TILE,
            h=self.TILE,
        )
        return attended[..., :height, :width]

    def _mask(self, x: Tensor) -> Tensor:
        """Return which keys of a patch (columns) are in the window of a tile's pixels (rows)."""
        side = self.TILE + self.window - 1
        pixel = torch.arange(self.TILE, device=x.device)[:, None]
        key = torch.arange(side, device=x.device)
        near = (key >= pixel) & (key < pixel + self.window)  # (tile, side), along one axis
        both = near[:, None, :, None] & near[None, :, None, :]
        return rearrange(both, "h w i j -> (h w) (i j)")


class PrecipLSTM(zoo.RecurrentCell):
    """PrecipLSTM. The state is h, c, s, t, y, the memory m; the output is h′.

    All but y, which has the shape of x, are (B, channels, H, W).

    Args:
        kernel_size: Kernel size of all convolutions outside the attention but W₁ₓ₁.
        window: Side of the attention window.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: zoo.KernelSize = 3,
        window: Annotated[int, Field(ge=1, le=64)] = 30,
    ) -> None:
        super().__init__(in_channels, channels)

        conv = partial(zoo.convolution, kernel_size=kernel_size)

        self.attention = LocalAttention(in_channels, window)
        self.attention_mix = conv(in_channels, in_channels)
        self.gates = conv(in_channels + channels, 4 * channels)
        self.memory_gates = conv(in_channels + channels, 3 * channels)
        self.spatial_gates = conv(in_channels + channels, 3 * channels)
        self.temporal_gates = conv(in_channels + channels, 3 * channels)
        self.output_gate = conv(4 * channels, channels)
        self.mix = zoo.convolution(4 * channels, channels, 1)

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros for h, c, s, t and y."""
        return *(self.zeros(x) for _ in range(4)), torch.zeros_like(x)

    def forward(self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor) -> zoo.Step:
        """Take one step of the equations above."""
        h, c, s, t, y = state
        m = memory
        a = x + self.attention_mix(zoo.recomputed(self.attention, x))
        i, f, g, o = zoo.activate(self.gates(a, h), "ifg_")
        c = zoo.update(f, c, i, g)
        m = _update(self.memory_gates, a, m)
        s = _update(self.spatial_gates, a, s)
        t = _update(self.temporal_gates, x - y, t)
        memories = c, s, t, m
        h = zoo.gated(torch.sigmoid(o + self.output_gate(*memories)), self.mix(*memories))
        return zoo.Step(h, (h, c, s, t, x), memory=m)


def _update(gates: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    """Return the new memory, with i, f, g from x and the memory."""
    i, f, g = zoo.activate(gates(x, memory), "ifg")
    return zoo.update(f, memory, i, g)
