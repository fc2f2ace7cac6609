"""MotionRNN (Wu et al. 2021, arXiv 2103.02243): MIM with a MotionGRU between layers.

Given MIM's h′ and output gate o, k² motion fields F are tracked on a grid of half the size:

    e = 2×2 convolution of stride 2 of h′, C → C/4 (at least 1)
    u = σ(Wᵤ ∗ [e, F]);   r = σ(Wᵣ ∗ [e, F]);   q = tanh(W_q ∗ [e, r ⊙ F])
    D′ = D + α (F − D)                                            the trend, α = 0.5
    F′ = u ⊙ q + (1 − u) ⊙ F + D′                                 k² pairs (u, v) of pixels
    w = [mask_j ⊙ warp(e, F′_j)],   mask = σ(W_m ∗ e)
    d = transposed convolution (4, stride 2) of W_d ∗ w, back to C and full size
    g = σ(W_g ∗ [d, h′]);   X = g ⊙ h′ + (1 − g) ⊙ d
    h″ = X + (1 − o) ⊙ x                          the motion highway; all W are 1×1

h″ is the output and the next step's h. The last layer has no MotionGRU: h″ = h′. (The published
code creates one there, but does not use it.)

The published code has two bugs. The first, mixing the samples of a batch, is not reproduced; the
second is the option `published_order`.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from zoo_mim import MIM

import zoo


class MotionGRU(nn.Module):
    """The MotionGRU above, for feature maps of any height and width."""

    def __init__(
        self, channels: int, fields: int, alpha: float, align_corners: bool, published_order: bool
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.align_corners = align_corners
        self.published_order = published_order
        narrow, flow = max(1, channels // 4), 2 * fields
        self.encode = nn.Conv2d(channels, narrow, 2, stride=2)
        self.gates = zoo.convolution(narrow + flow, 2 * flow, 1)
        self.candidate = zoo.convolution(narrow + flow, flow, 1)
        self.mask = nn.Conv2d(narrow, fields, 1)
        self.mix = nn.Conv2d(narrow * fields, narrow, 1)
        self.decode = nn.ConvTranspose2d(narrow, channels, 4, stride=2, padding=1)
        self.gate = zoo.convolution(2 * channels, channels, 1)

    def forward(self, h: Tensor, flow: Tensor, trend: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return X, F′ and D′, given h′, F and D."""
        height, width = h.shape[-2:]
        # Odd sizes are made even by repeating the border, and cropped below.
        even = F.pad(h, (0, width % 2, 0, height % 2), mode="replicate")
        e = self.encode(even)
        u, r = torch.sigmoid(self.gates(e, flow)).chunk(2, dim=1)
        q = zoo.tanh(self.candidate(e, r * flow))
        trend = trend + self.alpha * (flow - trend)
        flow = u * q + (1 - u) * flow + trend
        fields = rearrange(flow, "b (j uv) h w -> b j uv h w", uv=2)
        warped = zoo.warp(e, fields, align_corners=self.align_corners)
        w = warped * torch.sigmoid(self.mask(e)).unsqueeze(2)  # (B, k², C/4, h, w)
        if self.published_order:
            # The published code reads the buffer (C/4, h, w, k²) as if it were (C/4·k², h, w).
            buffer = rearrange(w, "b j c h w -> b (c h w j)")
            w = buffer.reshape(w.shape[0], -1, *w.shape[3:])  # (B, C/4·k², h, w)
        else:
            w = rearrange(w, "b j c h w -> b (c j) h w")
        d = self.decode(self.mix(w))[..., :height, :width]
        g = torch.sigmoid(self.gate(d, h))
        return g * h + (1 - g) * d, flow, trend


class MotionRNN(MIM):
    """MotionRNN. The state is F, D (B, 2k², H/2, W/2), except in the last layer, and MIM's.

    The memory is MIM's m; the output is h″.

    Args:
        kernel_size: Kernel size of MIM.
        motion_kernel: k.
        alpha: α.
        align_corners: See :func:`zoo.warp`.
        published_order: Whether to permute the warped features like the published code, whose
            checkpoints need it.

    Raises:
        ZooError: If in_channels and channels differ.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        place: zoo.Place,
        kernel_size: zoo.KernelSize = 3,
        motion_kernel: Annotated[int, Field(ge=1, le=15)] = 3,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
        align_corners: bool = False,
        published_order: bool = False,
    ) -> None:
        super().__init__(in_channels, channels, place, kernel_size)
        if in_channels != channels:
            raise zoo.ZooError(
                f"layer {place.index} of MotionRNN has {in_channels} input and {channels} hidden "
                "channels; they must be equal"
            )
        self.fields = motion_kernel**2
        self.motion = (
            None
            if place.last
            else MotionGRU(channels, self.fields, alpha, align_corners, published_order)
        )

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros for F and D, followed by the state of MIM."""
        if self.motion is None:
            return super().init_state(x)
        batch, _, height, width = x.shape
        flow = x.new_zeros(batch, 2 * self.fields, (height + 1) // 2, (width + 1) // 2)
        return flow, torch.zeros_like(flow), *super().init_state(x)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...], memory: Tensor, below: Tensor | None
    ) -> zoo.Step:
        """Take one step of MIM and of the equations above."""
        if self.motion is None:
            return super().forward(x, state, memory, below)
        flow, trend, *mim_state = state
        step, o = self.advance(x, tuple(mim_state), memory, below)
        moved, flow, trend = self.motion(step.output, flow, trend)
        h = moved + (1 - o) * x
        return zoo.Step(h, (flow, trend, h, *step.state[1:]), memory=step.memory)
