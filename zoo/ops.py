"""Operations that several cells and heads share: convolution, activations and warping."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError

__all__ = ["activate", "convolution", "gated", "tanh", "warp"]

#: Bytes of feature maps below which time counts more than memory: nothing is computed twice.
SMALL = 2**22


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
    pass, but repeated.

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
        if len(inputs) == 1:
            return super().forward(*inputs)
        odd = all(k % 2 for k in self.kernel_size)
        if odd and torch.is_grad_enabled() and not (_is_transformed() or _are_small(*inputs)):
            dtype = _autocast_dtype(inputs[0])
            return _convolve_joint.apply(self.weight, self.bias, dtype, *inputs)
        return super().forward(torch.cat(inputs, dim=1))


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
        joint, weight, bias = _cast(dtype, torch.cat(inputs, dim=1), weight, bias)
        return F.conv2d(joint, weight, bias, padding=_padding(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, bias, ctx.dtype, *parts = inputs
        ctx.outputs = None if bias is None else [len(weight)]
        ctx.save_for_backward(weight, *parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *parts = ctx.saved_tensors
        for_weight, for_bias, _, *for_parts = ctx.needs_input_grad
        joint, cast_weight, _ = _cast(ctx.dtype, torch.cat(parts, dim=1), weight, None)
        of_joint, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            joint,
            cast_weight,
            ctx.outputs,
            *([1, 1], _padding(weight), [1, 1], False, [0, 0], 1),  # no stride and no dilation
            [any(for_parts), for_weight, for_bias],
        )
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


def activate(gates: Tensor, names: str, forget_bias: float = 0.0) -> tuple[Tensor, ...]:
    """Apply the activations of an LSTM to its gates, in place.

    Nothing but the result is kept for the backward pass. Few and large blocks of memory also leave
    fewer holes between them.

    Args:
        gates: (B, N·C, H, W), the result of a convolution, which is overwritten.
        names: One letter per gate, such as "ifgo": g becomes tanh(g), "_" stays as it is, and all
            others become their sigmoid.
        forget_bias: Number added to f before.

    Returns:
        The gates, (B, C, H, W) each, views of one tensor.
    """
    if _is_transformed():
        return tuple(
            _activation(name, gate, forget_bias)
            for name, gate in zip(names, gates.chunk(len(names), dim=1), strict=True)
        )
    return _activate.apply(gates, names, forget_bias).chunk(len(names), dim=1)


class _activate(torch.autograd.Function):  # noqa: N801 (a function)
    """The activations of :func:`activate`, in place."""

    @staticmethod
    def forward(gates: Tensor, names: str, forget_bias: float) -> Tensor:
        for name, gate in zip(names, gates.chunk(len(names), dim=1), strict=True):
            if name == "f" and forget_bias:
                gate.add_(forget_bias)
            if name == "g":
                _tanh_in_place(gate)
            elif name != "_":
                gate.sigmoid_()
        return gates

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_dirty(inputs[0])
        ctx.names = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (gates,) = ctx.saved_tensors
        chunks = (x.chunk(len(ctx.names), dim=1) for x in (gradient, gates))
        parts = [
            _slope(name, *of_gate_and_gate)
            for name, *of_gate_and_gate in zip(ctx.names, *chunks, strict=True)
        ]
        return torch.cat(parts, dim=1), None, None


def _slope(name: str, gradient: Tensor, y: Tensor) -> Tensor:
    """Return the gradient before an activation with the result y."""
    if name == "g":
        return torch.ops.aten.tanh_backward(gradient, y)
    return gradient if name == "_" else torch.ops.aten.sigmoid_backward(gradient, y)


def _activation(name: str, gate: Tensor, forget_bias: float) -> Tensor:
    if name == "g":
        return torch.tanh(gate)
    if name == "f":
        gate = gate + forget_bias
    return gate if name == "_" else torch.sigmoid(gate)


def gated(gate: Tensor, x: Tensor) -> Tensor:
    """Return gate ⊙ tanh(x). For large maps, the backward pass computes tanh(x) again.

    Args:
        gate: (B, C, H, W), already between 0 and 1.
        x: (B, C, H, W).
    """
    if _is_transformed() or _are_small(gate, x):
        return gate * tanh(x)
    return _gated.apply(gate, x)


class _gated(torch.autograd.Function):  # noqa: N801 (a function)
    @staticmethod
    def forward(gate: Tensor, x: Tensor) -> Tensor:
        return gate * tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, x = ctx.saved_tensors
        y = tanh(x)
        of_x = torch.ops.aten.tanh_backward(gradient * gate, y)
        return (gradient * y).to(gate.dtype), of_x.to(x.dtype)


def tanh(x: Tensor) -> Tensor:
    """Return tanh(x), in float32 on a CPU as 1 − 2σ(−2x), which takes less than half the time.

    The absolute error is below 2e-7.
    """
    if _is_transformed() or not _uses_sigmoid(x):
        return torch.tanh(x)
    return _tanh.apply(x)


class _tanh(torch.autograd.Function):  # noqa: N801 (a function)
    """tanh from the sigmoid; keeps its result, as torch.tanh does."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _tanh_in_place(x.clone())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(gradient, y)


def _is_transformed() -> bool:
    """Return whether torch.compile, torch.export, torch.jit or torch.func read the operations."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def _are_small(*maps: Tensor) -> bool:
    return sum(x.numel() * x.element_size() for x in maps) < SMALL


def _uses_sigmoid(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu"


def _tanh_in_place(x: Tensor) -> Tensor:
    if not _uses_sigmoid(x):
        return x.tanh_()
    return x.mul_(-2).sigmoid_().mul_(-2).add_(1)


def warp(x: Tensor, flow: Tensor, *, align_corners: bool = False, padding: str = "zeros") -> Tensor:
    """Sample a feature map at every pixel's position + flow, bilinearly (backward warping).

    Coordinates and sampling are in float32 or better, whatever the dtypes of `x` and `flow`:
    bfloat16 cannot represent every pixel position above 256.

    Args:
        x: (B, C, H, W).
        flow: (B, L, 2, H, W), L fields of displacements in pixels, first along W, then along H.
        align_corners: Whether sampling uses the coordinates in which the flow is normalized, so
            that zero flow returns `x`. The published code of TrajGRU and MotionRNN normalizes
            to the centers of the corner pixels, but samples as if to their outer corners, which
            stretches the frame by one pixel; its checkpoints need False.
        padding: Value outside the frame: "zeros", or "border" for the nearest pixel.

    Returns:
        (B, L, C, H, W) in the dtype of `x`.
    """
    height, width = x.shape[-2:]
    u, v = flow.unbind(dim=2)  # (B, L, H, W) each
    precise = torch.promote_types(x.dtype, torch.float32)
    u, v = u.to(precise), v.to(precise)
    columns = torch.arange(width, device=x.device, dtype=precise)
    rows = torch.arange(height, device=x.device, dtype=precise)[:, None]
    across = 2 * (columns + u) / max(width - 1, 1) - 1
    along = 2 * (rows + v) / max(height - 1, 1) - 1
    # All fields sample the same map: one tall grid avoids copying it.
    grid = rearrange([across, along], "yx b l h w -> b (l h) w yx")
    # Contiguous, because torch samples half-precision channels_last maps wrongly on CPUs.
    sampled = F.grid_sample(
        x.to(precise).contiguous(), grid, padding_mode=padding, align_corners=align_corners
    )
    return rearrange(sampled.to(x.dtype), "b c (l h) w -> b l c h w", h=height)
