"""MyCell: describe here what is new about it, and cite its paper.

As a starting point, this is the minimal gated unit (Zhou et al. 2016, arXiv 1603.09420) with
convolutions:

    f = σ(W ∗ [x, h])
    h′ = (1 − f) ⊙ h + f ⊙ tanh(V ∗ [x, f ⊙ h])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import zoo

#: The version of the zoo's hooks that this plugin is written for.
ZOO_HOOKS = 1


class MyCell(zoo.RecurrentCell):
    """A convolutional minimal gated unit.

    The state is h, (B, channels, H, W); the output is h′.

    Args:
        in_channels: the number of input channels.
        channels: the number of output channels.
        kernel_size: the size of both kernels. Every argument with a default is an option of
            `zoo.create`.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, channels)
        self.gate = nn.Conv2d(in_channels + channels, channels, kernel_size, padding="same")
        self.new = nn.Conv2d(in_channels + channels, channels, kernel_size, padding="same")

    def init_state(self, x: Tensor) -> Tensor:
        """Start from zeros."""
        return self.zeros(x)

    def forward(self, x: Tensor, state: Tensor) -> zoo.Step:
        """Compute one step of the equations above."""
        h = state
        f = torch.sigmoid(self.gate(torch.cat([x, h], dim=1)))
        h = (1 - f) * h + f * torch.tanh(self.new(torch.cat([x, f * h], dim=1)))
        return zoo.Step(output=h, state=h)


@zoo.hookimpl
def zoo_cells() -> dict[str, type[zoo.RecurrentCell]]:
    """Offer the cell, which becomes the architectures `mycell` and `ms-mycell`."""
    return {"mycell": MyCell}


# To make published weights loadable by name, `zoo.load("ms-mycell-mmnist")`, add:
#
# @zoo.hookimpl
# def zoo_pretrained():
#     return {
#         "ms-mycell-mmnist": zoo.Pretrained(
#             "hf-hub:me/ms-mycell-mmnist", sha256="the output of: sha256sum model.safetensors"
#         )
#     }
