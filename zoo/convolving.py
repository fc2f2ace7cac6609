"""The convolutions of cells, with what published networks add to them."""

from __future__ import annotations

from torch import nn

from zoo.errors import ZooError

__all__ = ["convolution"]


def convolution(
    inputs: int,
    outputs: int,
    kernel_size: int,
    *,
    bias: bool = True,
    norm: bool = False,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """A k×k convolution, (B, inputs, H, W) to (B, outputs, H, W), zero outside.

    Args:
        bias: whether it has one.
        norm: whether layer normalisation (arXiv 1607.06450) over (outputs, H, W) follows, with
            a weight and a bias for every element.
        size: the (H, W) of its maps, which `norm` needs.

    Raises ZooError for `norm` without `size`.
    """
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding="same", bias=bias)
    if not norm:
        return conv
    if size is None:
        raise ZooError(
            "layer normalisation has weights for every pixel: give the size of the frames, "
            "size=[HEIGHT, WIDTH], or norm=False"
        )
    return nn.Sequential(conv, nn.LayerNorm([outputs, *size]))
