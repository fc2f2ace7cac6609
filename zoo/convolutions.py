"""Convolutions of one or several feature maps."""

from __future__ import annotations

from threading import local
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.ops import are_small, is_transformed

__all__ = ["convolution", "convolve"]


def convolution(
    inputs: int,
    outputs: int,
    kernel_size: int,
    *,
    bias: bool = True,
    norm: bool = False,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """Return a k×k convolution that keeps the size of its input, which it pads with zeros.

    It takes one feature map or several, W ∗ [x, h], which it concatenates. In training this needs
    less memory than ``torch.cat``: the concatenation of large maps is not kept for the backward
    pass, but repeated. Kernels of 5×5 and more are faster on CPUs than those of ``nn.Conv2d``.

    Args:
        inputs: Number of input channels, of all feature maps together.
        outputs: Number of output channels.
        kernel_size: k, odd.
        bias: Whether the convolution adds a bias.
        norm: Whether to append layer normalization (arXiv 1607.06450) over (outputs, H, W), with
            a weight and a bias per element.
        size: (H, W) of the feature maps. Required by `norm`.

    Returns:
        A module from one or more (B, C, H, W) to (B, outputs, H, W).

    Raises:
        ConfigError: If `norm` is set and `size` is missing.
    """
    conv = JointConvolution(inputs, outputs, kernel_size, padding="same", bias=bias)
    if not norm:
        return conv
    if size is None:
        raise ConfigError(
            "layer normalization has weights for every pixel and needs the size of the frames: "
            "pass size=[HEIGHT, WIDTH], or norm=False"
        )
    return _Normalized(conv, nn.LayerNorm([outputs, *size]))


class JointConvolution(nn.Conv2d):
    """A convolution of the concatenation of feature maps; see :func:`convolution`."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return W ∗ [inputs] + b."""
        return convolve(*inputs, weight=self.weight, bias=self.bias)


def convolve(*inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W ∗ [inputs] + b, as :func:`convolution` does, with given weights.

    Args:
        inputs: One or more (B, C, H, W), of which the result is that of the concatenation.
        weight: (outputs, C of all inputs, k, k).
        bias: (outputs,).
    """
    odd = all(k % 2 for k in weight.shape[2:])
    if odd and not is_transformed():
        dtype = _autocast_dtype(inputs[0])
        fourier = dtype is None and _prefers_fourier(inputs[0], weight)
        large = len(inputs) > 1 and not are_small(*inputs)
        if torch.is_grad_enabled() and (fourier or large):
            return _convolve_joint.apply(weight, bias, dtype, *inputs)
        if fourier:
            return _convolve(_joint(inputs), weight, bias)
    return F.conv2d(_joint(inputs), weight, bias, padding="same")


def _joint(inputs: tuple[Tensor, ...]) -> Tensor:
    return torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]


def _prefers_fourier(x: Tensor, weight: Tensor) -> bool:
    """Return whether to convolve by the Fourier transforms of NNPACK.

    For 5×5 kernels they take half the time of other convolutions, and their rounding errors are a
    tenth; transforming the kernels pays off from 16×16 grids, in larger batches from 8×8. For 3×3
    kernels NNPACK has Winograd transforms, with large rounding errors.
    """
    least = 8 if len(x) >= 16 else 16
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and 5 <= min(weight.shape[2:]) <= max(weight.shape[2:]) <= 15  # NNPACK's limit is 16
        and min(x.shape[2:]) >= least
        and torch.backends.nnpack.is_available()
    )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padding = _padding(weight)
    if _prefers_fourier(x, weight):
        return torch._nnpack_spatial_convolution(x, weight, bias, padding)
    return F.conv2d(x, weight, bias, padding=padding)


class _Normalized(nn.Sequential):
    """A joint convolution and its normalization."""

    def forward(self, *inputs: Tensor) -> Tensor:
        conv, norm = self
        return norm(conv(*inputs))


class _convolve_joint(torch.autograd.Function):  # noqa: N801 (a function)
    """The convolution of a concatenation that keeps only the parts.

    The parts need no further memory: they are outputs and states, which other operations keep.
    """

    @staticmethod
    def forward(
        weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None, *inputs: Tensor
    ) -> Tensor:
        return _convolve(*_cast(dtype, _joint_for_now(inputs), weight, bias))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, bias, ctx.dtype, *parts = inputs
        ctx.outputs = None if bias is None else [len(weight)]
        ctx.save_for_backward(weight, *parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *parts = ctx.saved_tensors
        for_weight, for_bias, _, *for_parts = ctx.needs_input_grad
        joint, cast_weight, _ = _cast(ctx.dtype, _joint_for_now(tuple(parts)), weight, None)
        of_joint = None
        fourier = _prefers_fourier(gradient, cast_weight)
        if fourier and any(for_parts):
            flipped = cast_weight.flip(2, 3).transpose(0, 1).contiguous()
            of_joint = _convolve(gradient, flipped, None)
        rest, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            joint,
            cast_weight,
            ctx.outputs,
            *([1, 1], _padding(weight), [1, 1], False, [0, 0], 1),  # no stride and no dilation
            [any(for_parts) and not fourier, for_weight, for_bias],
        )
        of_joint = rest if of_joint is None else of_joint
        splits = [None] * len(parts)
        if of_joint is not None:
            sizes = [part.shape[1] for part in parts]
            splits = [
                split.to(part.dtype)
                for split, part in zip(of_joint.split(sizes, dim=1), parts, strict=True)
            ]
        of_weight, of_bias = (
            None if grad is None else grad.to(weight.dtype) for grad in (of_weight, of_bias)
        )
        return of_weight, of_bias, None, *splits


class _Scratch(local):
    """The memory of the last concatenation, of each thread."""

    memory = torch.empty(0)


_scratch = _Scratch()


def _joint_for_now(inputs: tuple[Tensor, ...]) -> Tensor:
    """Concatenate maps until the next call, which overwrites the result on a CPU.

    A new block each time would leave holes in the heap between the maps that are kept.
    """
    first = inputs[0]
    if len(inputs) == 1 or first.device.type != "cpu" or not first.is_contiguous():
        return _joint(inputs)
    channels, numbers = sum(x.shape[1] for x in inputs), sum(x.numel() for x in inputs)
    if _scratch.memory.numel() < numbers or _scratch.memory.dtype != first.dtype:
        with torch.inference_mode(False):  # else only inference could use it
            _scratch.memory = torch.empty(numbers, dtype=first.dtype, device="cpu")
    shape = (first.shape[0], channels, *first.shape[2:])
    return torch.cat(inputs, dim=1, out=_scratch.memory[:numbers].view(shape))


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype of automatic mixed precision, if it is on and casts `x`."""
    kind = x.device.type
    available = torch.amp.is_autocast_available(kind)  # the meta device has none
    if x.dtype == torch.float64 or not (available and torch.is_autocast_enabled(kind)):
        return None
    return torch.get_autocast_dtype(kind)


def _cast(
    dtype: torch.dtype | None, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    if dtype is None:
        return x, weight, bias
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _padding(weight: Tensor) -> list[int]:
    return [k // 2 for k in weight.shape[2:]]
