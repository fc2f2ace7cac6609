"""The contract of a head: how a network makes the next frame from its top layer.

A head sees the output of the top layer and the frame that was just read. It keeps no state and
knows nothing of time or training.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["FrameHead", "Head"]


class Head(nn.Module):
    """Turns the top layer's output and the frame just read into the next frame.

    A subclass implements ``forward(features, frame)``, where features is (B, in_channels, H, W),
    frame is (B, channels, patch · H, patch · W), scaled to [0, 1], and the next frame has the
    shape of ``frame``. A frame size that the network does not divide arrives padded and is
    cropped afterwards.

    ``__init__`` takes ``in_channels``, ``channels`` and ``patch``, and ``bias`` if it names it:
    whether the network's first and last convolutions have one. Its other arguments are options;
    they need defaults that JSON can hold, and are passed as ``head_options`` of
    :func:`zoo.create`.

    starts_from_frame: whether the next frame is made from the frame just read, so that a static
        scene stays as it is. By default recipes train such heads on squared error alone, as the
        absolute error pulls them back to persistence, which is nearly the median.

    Like a cell, a head draws no random numbers and has no control flow that depends on data, so
    that it runs under torch.compile and torch.export.
    """

    starts_from_frame: ClassVar[bool] = True

    def __init__(self, in_channels: int, channels: int, patch: int = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = channels
        self.patch = patch

    def to_pixels(self, x: Tensor) -> Tensor:
        """Maps of patches (B, patch² · C, H, W) to pixels (B, C, patch · H, patch · W)."""
        return rearrange(x, "b (p q c) h w -> b c (h p) (w q)", p=self.patch, q=self.patch)

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The head's own options and their defaults, read from its ``__init__``."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(cls).parameters.items()
            if name not in ("in_channels", "channels", "patch", "bias")
        }

    @classmethod
    def build(
        cls, in_channels: int, channels: int, patch: int, *, bias: bool = True, **options: Any
    ) -> Head:
        """Make a head; pass `bias` if its ``__init__`` names it."""
        if "bias" in inspect.signature(cls).parameters:
            options["bias"] = bias
        return cls(in_channels, channels, patch, **options)


class FrameHead(Head):
    """The papers' head: a 1×1 convolution draws the next frame, x′ = W ∗ h + b.

    It is the last convolution of MS-RNN (arXiv 2206.03010, section 3). It never sees the frame
    just read, so the network has to redraw a static background in every frame.
    """

    starts_from_frame = False

    def __init__(self, in_channels: int, channels: int, patch: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, channels, patch)
        conv = nn.Conv2d(in_channels, channels * patch**2, 1, bias=bias)
        # Registered here, not as a submodule: published weights are named head.weight, head.bias.
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, features: Tensor, frame: Tensor) -> Tensor:
        """One step of the equation above."""
        return self.to_pixels(F.conv2d(features, self.weight, self.bias))
