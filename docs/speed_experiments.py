"""Measure what could make models faster on a CPU, and often does not.

`python docs/speed_experiments.py` prints the table in speed.md (with names such as `fourier`, these
rows only): how many times as long the
first way takes as the second, in CPU time on one thread, as the median of interleaved pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from zoo.bench.speed import compare

STEPS = 19
Pair = tuple[str, Callable[[], object], Callable[[], object]]


def weight_gradients() -> Iterator[Pair]:
    """One weight gradient per step, or one over all steps, each with the input gradients."""
    for grid, batch, size in (
        (16, 8, 3),
        (16, 8, 5),
        (16, 32, 3),
        (8, 8, 3),
        (4, 8, 3),
        (4, 32, 3),
    ):
        weight = torch.randn(128, 64, size, size)
        inputs = list(torch.randn(STEPS, batch, 64, grid, grid))
        outputs = list(torch.randn(STEPS, batch, 128, grid, grid))

        def backward(output: Tensor, x: Tensor, *wanted: bool, weight: Tensor = weight) -> object:
            padding = [weight.shape[-1] // 2] * 2
            return torch.ops.aten.convolution_backward(
                output, x, weight, [128], [1, 1], padding, [1, 1], False, [0, 0], 1, [*wanted]
            )

        def per_step(outputs=outputs, inputs=inputs, backward=backward) -> None:
            for output, x in zip(outputs, inputs, strict=True):
                backward(output, x, True, True, True)

        def at_once(outputs=outputs, inputs=inputs, backward=backward) -> None:
            for output, x in zip(outputs, inputs, strict=True):
                backward(output, x, True, False, False)
            backward(torch.cat(outputs), torch.cat(inputs), False, True, True)

        label = f"{size}×{size} on {grid}×{grid}, batch {batch}"
        yield f"weight gradients per step / over {STEPS} steps at once, {label}", per_step, at_once


def small_convolutions() -> Iterator[Pair]:
    """PyTorch's choice for one small image, or oneDNN, also with weights in its own layout."""
    for grid, size in ((16, 3), (8, 3), (4, 3), (64, 1), (16, 1)):
        x, weight = torch.randn(1, 64, grid, grid), torch.randn(128, 64, size, size)
        padding = [size // 2] * 2
        yield (
            f"convolution / by oneDNN, {size}×{size} on {grid}×{grid}, batch 1",
            lambda x=x, w=weight, p=padding: F.conv2d(x, w, padding=p),
            lambda x=x, w=weight, p=padding: torch.mkldnn_convolution(
                x, w, None, p, [1, 1], [1, 1], 1
            ),
        )
    for grid in (16, 8):
        x, weight, bias = (
            torch.randn(1, 64, grid, grid),
            torch.randn(128, 64, 3, 3),
            torch.randn(128),
        )
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
            weight.to_mkldnn(), [1, 1], [1, 1], [1, 1], 1, list(x.shape)
        )
        yield (
            f"convolution / with packed weights, 3×3 on {grid}×{grid}, batch 1",
            lambda x=x, w=weight, b=bias: F.conv2d(x, w, b, padding=1),
            lambda x=x, w=packed, b=bias: torch.ops.mkldnn._convolution_pointwise(
                x, w, b, [1, 1], [1, 1], [1, 1], 1, "none", [], ""
            ),
        )


def activations() -> Iterator[Pair]:
    """torch.tanh, or tanh from the sigmoid; the gates of an LSTM, or all of them in place."""
    c, gates = torch.randn(4, 32, 64, 64), torch.randn(4, 128, 64, 64)
    yield "torch.tanh / zoo.tanh", lambda: torch.tanh(c), lambda: zoo.tanh(c)

    def plain() -> Tensor:
        i, f, g, o = gates.chunk(4, dim=1)
        new = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(new)

    def shared() -> Tensor:
        i, f, g, o = zoo.activate(gates, "ifgo")
        return zoo.gated(o, f * c + i * g)

    yield (
        "the equations of ConvLSTM but the convolution / with zoo.activate, zoo.gated",
        plain,
        shared,
    )


def attention() -> Iterator[Pair]:
    """The attention of CMS-LSTM on one 64×64 frame: 8,192 positions of 32 channels."""
    query, key, value = torch.randn(3, 1, 8192, 32)

    def whole() -> Tensor:
        return torch.softmax(query @ key.mT, dim=-1) @ value

    def blocks() -> Tensor:
        parts = query.split(64, dim=1)
        return torch.cat([torch.softmax(part @ key.mT, dim=-1) @ value for part in parts], dim=1)

    def fused() -> Tensor:
        return F.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)

    yield "attention with all scores / fused", whole, fused
    yield "attention in blocks of 64 rows / fused", blocks, fused


def fourier() -> Iterator[Pair]:
    """Convolutions of large kernels: PyTorch's, or by Fourier transforms as in zoo.convolve."""
    for kernel, inputs, outputs, grid, batch in (
        (5, 64, 128, 64, 1),
        (5, 64, 128, 64, 4),
        (5, 64, 128, 16, 8),
        (7, 32, 32, 64, 1),
    ):
        x, bias = torch.randn(batch, inputs, grid, grid), torch.randn(outputs)
        weight = torch.randn(outputs, inputs, kernel, kernel)
        exact = F.conv2d(x.double(), weight.double(), bias.double(), padding="same")

        def first(x=x, w=weight, b=bias) -> Tensor:
            return F.conv2d(x, w, b, padding="same")

        def second(x=x, w=weight, b=bias) -> Tensor:
            return zoo.convolve(x, weight=w, bias=b)

        slow, fast = ((f() - exact).abs().max() / exact.abs().max() for f in (first, second))
        yield (
            f"F.conv2d / zoo.convolve (relative errors {slow:.0e}, {fast:.0e}), "
            f"{kernel}×{kernel}, {inputs} to {outputs} channels on {grid}×{grid}, batch {batch}",
            first,
            second,
        )


def winograd() -> Iterator[Pair]:
    """oneDNN's direct convolution, or NNPACK's Winograd transformation."""
    for grid, batch in ((64, 4), (16, 8)):
        x = torch.randn(batch, 64, grid, grid)
        weight, bias = torch.randn(128, 64, 3, 3), torch.randn(128)
        exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
        fast = torch._nnpack_spatial_convolution(x, weight, bias, 1)
        error = (fast - exact).abs().max() / exact.abs().max()
        yield (
            f"convolution / Winograd (NNPACK, relative error {error:.0e}), "
            f"3×3 on {grid}×{grid}, batch {batch}",
            lambda x=x, w=weight, b=bias: F.conv2d(x, w, b, padding=1),
            lambda x=x, w=weight, b=bias: torch._nnpack_spatial_convolution(x, w, b, 1),
        )


EXPERIMENTS = (activations, weight_gradients, small_convolutions, attention, fourier, winograd)


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        for experiment in EXPERIMENTS:
            if len(sys.argv) > 1 and experiment.__name__ not in sys.argv:
                continue
            for label, first, second in experiment():
                first(), second()
                rounds = compare([first, second], "cpu", seconds=1.5, least=5)
                ratio = median(a.cpu / b.cpu for a, b in rounds)
                print(f"| {label} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
