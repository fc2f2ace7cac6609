"""Fast settings for a model on its device: chosen by rules, and checked against the plain model.

The measurements behind the rules are in docs/speed.md.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.forecast import Forecaster, evaluating

__all__ = ["MODES", "check_mode", "optimize"]

#: What users choose from.
MODES = ("auto", "off")

#: Cells that are faster in the channels-last memory format on a CPU, and up to how many positions
#: of the finest grid, of all sequences of a batch: 256 are 16×16.
CHANNELS_LAST = {
    "mim": 256,
    "motionrnn": 256,
    "preciplstm": 2048,
    "predrnn": 256,
    "predrnnpp": 256,
    "predrnnv2": 2048,
}

#: The largest kernel in that format. zoo.convolve computes larger ones by Fourier transforms, which
#: need the default format.
LARGEST_KERNEL = 3

#: Steps below which nothing is chosen, as the check takes up to 12.
FEW = 500

#: Seconds of work from which on compilation pays for itself, by device.
LONG = {"cpu": 1800.0, "cuda": 300.0}

#: Arguments of torch.compile. A step is compiled for one shape; see :func:`zoo.evaluate.evaluate`.
COMPILE: dict[str, Any] = {"dynamic": False}

#: Largest difference from the plain model, relative to its largest value and at least to 1.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.05}

FRAMES = 2  # input frames of the check, and as many forecast frames
STEPS = 2 * FRAMES - 1


def check_mode(mode: str | None) -> bool:
    """Return whether to choose fast settings: whether `mode` is "auto" and not None or "off".

    Raises:
        ConfigError: If it is something else.
    """
    if mode is not None and mode not in MODES:
        raise ConfigError(f"optimize={mode!r} is not valid; expected one of {', '.join(MODES)}")
    return mode == "auto"


def optimize(
    model: Forecaster,
    size: tuple[int, int] | None = None,
    *,
    batch: int = 1,
    steps: int | None = None,
) -> tuple[str, ...]:
    """Choose fast settings for a model on its device, and keep them if its results stay the same.

    The settings are "channels_last", the memory format of the weights, and "compile". Three steps
    with them are compared with three before, in the precision in effect. If they differ, in
    float32 by more than 1e-5, or if a setting fails, the model is left as it was, with a warning.
    Weights keep their values, so that the model is saved as before.

    Args:
        model: The model, on its device. Its attribute `optimized` becomes the result.
        size: Height and width of the frames; by default those of training.
        batch: Number of sequences in a batch.
        steps: Number of steps that will be taken. By default many, but too few to compile.

    Returns:
        The settings chosen; () for none.
    """
    if model.optimized:
        _reset(model)
    size = model.config.size or size or model.config.data.size or (64, 64)
    chosen = _choose(model, size, batch, steps)
    if not chosen:
        return ()
    try:
        expected = _run(model, size, batch)
        for apply in chosen.values():
            apply()
        problem = _compare(_run(model, size, batch), expected, _tolerance(model))
    except Exception as error:  # compilers raise anything
        problem = f"{type(error).__name__}: {' '.join(str(error).splitlines()[:2])}"
    if problem:
        _reset(model)
        warnings.warn(f"not optimized ({', '.join(chosen)}): {problem}", stacklevel=2)
        return ()
    model.optimized = tuple(chosen)
    return model.optimized


def _choose(
    model: Forecaster, size: tuple[int, int], batch: int, steps: int | None
) -> dict[str, Callable[[], object]]:
    """Return the settings to try by name, each as a function that applies it."""
    network, device = model.network, _device(model)
    chosen: dict[str, Callable[[], object]] = {}
    if steps is not None and steps < FEW:
        return chosen
    positions = batch * math.prod(-(-side // network.patch) for side in size)
    kernels = [weight.shape[-1] for weight in network.parameters() if weight.ndim == 4]
    few_positions = positions <= CHANNELS_LAST.get(model.config.cell, 0)
    if device == "cpu" and few_positions and max(kernels, default=1) <= LARGEST_KERNEL:
        chosen["channels_last"] = lambda: network.to(memory_format=torch.channels_last)
    if steps and device in LONG and steps * _step_time(model, size, batch) > LONG[device]:
        chosen["compile"] = lambda: network.compile(**COMPILE)
    return chosen


def _step_time(model: Forecaster, size: tuple[int, int], batch: int) -> float:
    """Measure the seconds of a step, after a first run."""
    _run(model, size, batch)
    start = time.perf_counter()
    _run(model, size, batch).sum().item()  # waits for a GPU
    return (time.perf_counter() - start) / STEPS


def _run(model: Forecaster, size: tuple[int, int], batch: int) -> Tensor:
    """Forecast from random frames, the same every time."""
    generator, config = torch.Generator().manual_seed(0), model.config
    frames = torch.rand(batch, FRAMES, config.in_channels, *size, generator=generator)
    known = torch.rand(1, STEPS, config.known_channels, *size, generator=generator)
    like = next(model.parameters())
    with evaluating(model):
        return model(frames.to(like), FRAMES, known.to(like))


def _compare(actual: Tensor, expected: Tensor, tolerance: float) -> str:
    """Return how the forecasts differ, "" if they do not."""
    error = (actual - expected).abs().max().item() / max(1.0, expected.abs().max().item())
    return "" if error <= tolerance else f"the forecast differs by {error:.1g}"


def _tolerance(model: Forecaster) -> float:
    device = _device(model)
    if torch.is_autocast_enabled(device):
        return TOLERANCES[torch.get_autocast_dtype(device)]
    return TOLERANCES[next(model.parameters()).dtype]


def _reset(model: Forecaster) -> None:
    """Undo all settings."""
    model.optimized = ()
    model.network.to(memory_format=torch.contiguous_format)
    model.network._compiled_call_impl = None  # as Module.compile has no reverse


def _device(model: Forecaster) -> str:
    return next(model.parameters()).device.type
