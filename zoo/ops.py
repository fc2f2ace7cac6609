"""Activations of cells, and what they save of time and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["activate", "are_small", "gated", "is_transformed", "recomputed", "tanh", "update"]

#: Bytes of feature maps below which time counts more than memory: nothing is computed twice.
SMALL = 2**22


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
    if is_transformed():
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


def update(f: Tensor, c: Tensor, i: Tensor, g: Tensor) -> Tensor:
    """Return f ⊙ c + i ⊙ g, the new memory of an LSTM, without maps in between.

    Args:
        f: (B, C, H, W), as all others.
        c: The memory.
        i: What is added of `g`, and `f` what is kept of `c`.
        g: The candidates.
    """
    new = i * g
    if is_transformed() or new.dtype != c.dtype:
        return f * c + new
    return new.addcmul_(f, c)


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return ``function(*inputs)``. For large maps, the backward pass computes it again.

    For functions that would keep several maps besides their inputs and results.

    Args:
        function: Draws no random numbers.
        inputs: Feature maps.
    """
    if is_transformed() or not torch.is_grad_enabled() or are_small(*inputs, *inputs):
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def gated(gate: Tensor, x: Tensor) -> Tensor:
    """Return gate ⊙ tanh(x). For large maps, the backward pass computes tanh(x) again.

    Args:
        gate: (B, C, H, W), already between 0 and 1.
        x: (B, C, H, W).
    """
    if is_transformed() or are_small(gate, x):
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
    if is_transformed() or not _uses_sigmoid(x):
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


def is_transformed() -> bool:
    """Return whether torch.compile, torch.export, torch.jit or torch.func read the operations."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def are_small(*maps: Tensor) -> bool:
    """Return whether feature maps together are below :data:`SMALL`."""
    return sum(x.numel() * x.element_size() for x in maps) < SMALL


def _uses_sigmoid(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu"


def _tanh_in_place(x: Tensor) -> Tensor:
    if not _uses_sigmoid(x):
        return x.tanh_()
    return x.mul_(-2).sigmoid_().mul_(-2).add_(1)
