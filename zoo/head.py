"""The contract of a head: how a network produces the next frame from its top layer.

A head sees the output of the top layer and the current frame. It keeps no state and is
independent of time and training.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.options import Option, declared_options, requested

__all__ = ["FrameHead", "Head"]


class Head(nn.Module):
    """Produces the next frame from the top layer's output and the current frame.

    A subclass implements ``forward(features, frame)``, where ``features`` is
    (B, in_channels, H, W) and ``frame`` is (B, channels, patch · H, patch · W), scaled to [0, 1].
    It returns the next frame, in the shape of ``frame``. The network pads frames that it cannot
    divide before the head sees them, and crops the result. In models that read an extrapolation
    (:mod:`zoo.extrapolation`), ``frame`` is the current frame, moved to where the next one is.

    ``__init__`` takes ``in_channels``, ``channels`` and ``patch``. It may also name ``bias``:
    whether the network's first and last convolutions have a bias. All other arguments are options
    (:mod:`zoo.options`): they need a default and a type that JSON can represent, and users set them
    with ``head_options`` of :func:`zoo.create`.

    Like a cell, a head draws no random numbers and has no data-dependent control flow, so that it
    runs under torch.compile and torch.export.

    Args:
        in_channels: Channels of the top layer.
        channels: Channels of a frame.
        patch: Side of the patches: the frame is that much larger than the features.

    Attributes:
        starts_from_frame: Whether the next frame is made from the current one, so that a static
            scene stays static. By default, recipes train such heads with the squared error only:
            the absolute error favors the median, which is close to persistence.
    """

    starts_from_frame: ClassVar[bool] = True

    def __init__(self, in_channels: int, channels: int, patch: int = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = channels
        self.patch = patch

    def to_pixels(self, x: Tensor) -> Tensor:
        """Rearrange patches (B, patch² · C, H, W) into pixels (B, C, patch · H, patch · W)."""
        return rearrange(x, "b (p q c) h w -> b c (h p) (w q)", p=self.patch, q=self.patch)

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Return the head's own options, read from its ``__init__``."""
        return declared_options(cls, ("in_channels", "channels", "patch", "bias"))

    @classmethod
    def build(
        cls, in_channels: int, channels: int, patch: int, *, bias: bool = True, **options: Any
    ) -> Head:
        """Construct a head, passing `bias` only if its ``__init__`` names it."""
        return cls(in_channels, channels, patch, **requested(cls, bias=bias), **options)


class FrameHead(Head):
    """The papers' head: a 1×1 convolution, x′ = W ∗ h + b.

    This is the last convolution of MS-RNN (arXiv 2206.03010, section 3). It never sees the
    current frame, so the network has to redraw a static background in every step.
    """

    starts_from_frame = False

    def __init__(self, in_channels: int, channels: int, patch: int = 1, bias: bool = True) -> None:
        super().__init__(in_channels, channels, patch)
        conv = nn.Conv2d(in_channels, channels * patch**2, 1, bias=bias)
        # Registered here, not as a submodule: published weights are named head.weight, head.bias.
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, features: Tensor, frame: Tensor) -> Tensor:
        """Compute the next frame by the equation above."""
        return self.to_pixels(F.conv2d(features, self.weight, self.bias))
