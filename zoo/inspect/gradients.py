"""Which pixels of the past matter: receptive fields and attributions, by gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from zoo.errors import ConfigError
from zoo.forecast import Forecaster
from zoo.inspect.recording import layer_scales, recording, scaled_past
from zoo.registry import build
from zoo.units import Frames

__all__ = ["Field", "attribution", "fields", "lag_influence"]

#: The share of the mass of a receptive field within its radius.
MASS = 0.95

STEPS_AT_ONCE = 8  # points of the path from the baseline to the input, per batch


@dataclass(frozen=True)
class Field:
    """The receptive field of one layer, in pixels of the frame that the network reads.

    Attributes:
        name: "layer 0" (bottom), …, or "forecast".
        heat: (H, W), the root mean square gradient of the central output with respect to every
            pixel, with a sum of 1.
        center: (y, x) of the central output.
        radius: Radius around the center that holds 95 % of the mass; NaN if all gradients are 0.
        theoretical: (height, width) of the pixels that can have an influence within one step.
    """

    name: str
    heat: np.ndarray
    center: tuple[float, float]
    radius: float
    theoretical: tuple[int, int]


def fields(model: Forecaster, frames: Frames) -> list[Field]:
    """Return the effective receptive field of every layer and of the forecast, within one step.

    The step reads the last of `frames`, with the state that the others left behind. The effective
    field (Luo et al. 2016, arXiv 1701.04128) is averaged over the sequences and over channels with
    random signs. The theoretical field is where gradients can differ from zero: it is found with
    random weights and average pooling, since maximum pooling passes gradients to one pixel only.

    Args:
        model: The model.
        frames: Input frames in the unit of the data, as for :meth:`zoo.Forecaster.predict`.

    Raises:
        DataError: If the frames do not fit the model.
    """
    past = scaled_past(model, frames)
    theoretical = [_extent(heat != 0) for heat in _theoretical_heats(model, past)]
    layers: list[int] = layer_scales(model)
    scales = [*layers, 1]
    names = [*(f"layer {j}" for j in range(len(layers))), "forecast"]
    found = []
    for name, heat, scale, extent in zip(
        names, _heats(model, past), scales, theoretical, strict=True
    ):
        height, width = past.shape[-2:]
        y, x = ((_middle(size, scale) + 0.5) * scale - 0.5 for size in (height, width))
        heat = heat / heat.sum() if heat.any() else heat
        found.append(Field(name, heat, (y, x), _radius(heat, (y, x)), extent))
    return found


def lag_influence(model: Forecaster, frames: Frames, horizon: int | None = None) -> np.ndarray:
    """Return how much every input frame matters for every forecast frame.

    Args:
        model: The model.
        frames: Input frames in the unit of the data, as for :meth:`zoo.Forecaster.predict`.
        horizon: Number of frames to forecast; by default that of training.

    Returns:
        (horizon, T), the root mean square gradient of the central forecast pixel with respect to
        each input frame; each row has the sum 1.
    """
    horizon = (model.config.data.horizon or 1) if horizon is None else horizon
    past = scaled_past(model, frames).requires_grad_()
    with _frozen(model):
        forecast = model(past, horizon)[:, -horizon:]
        y, x = (size // 2 for size in past.shape[-2:])
        rows = []
        for t in range(horizon):
            target = (forecast[:, t, :, y, x] * _signs(forecast[:, t, :, y, x])).sum()
            (gradient,) = torch.autograd.grad(target, past, retain_graph=t < horizon - 1)
            rows.append(gradient.square().sum(dim=(0, 2, 3, 4)).sqrt().cpu().numpy())
    influence = np.stack(rows)
    return influence / np.maximum(influence.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)


def attribution(
    model: Forecaster,
    frames: Frames,
    at: tuple[int, int, int],
    *,
    baseline: str = "black",
    steps: int = 32,
) -> tuple[np.ndarray, float]:
    """Attribute a forecast pixel to the pixels of the past by integrated gradients.

    Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) add up to the difference
    between the forecasts from the input and from the baseline.

    Args:
        model: The model.
        frames: Input frames of one sequence in the unit of the data.
        at: (y, x, t): row and column of the pixel, and its lead time, 1 for the first forecast
            frame. The channels of the pixel are added up.
        baseline: The input to compare with: "black" for zeros, or "mean" for the mean of the input
            frames in every frame, that is, the same scene without motion.
        steps: Number of points on the straight path from the baseline to the input.

    Returns:
        (T, C, H, W), the attributions of scaled values; and the gap, which is the difference
        between their sum and the difference of the forecasts. It shrinks with more steps.

    Raises:
        ConfigError: If the pixel is outside the forecast, or the baseline is unknown.
        DataError: If the frames do not fit the model.
    """
    past = scaled_past(model, frames)[:1]
    y, x, lead = at
    height, width = past.shape[-2:]
    if not (0 <= y < height and 0 <= x < width and lead >= 1):
        raise ConfigError(
            f"pixel y={y}, x={x} at t+{lead} is outside the forecast; expected y below {height}, "
            f"x below {width} and t of at least 1"
        )
    if baseline not in ("black", "mean"):
        raise ConfigError(f"baseline {baseline!r} is not valid; expected black or mean")
    start = past.mean(dim=1, keepdim=True) if baseline == "mean" else torch.zeros_like(past)
    change = past - start

    def pixel(sequences: Tensor) -> Tensor:
        return model(sequences, lead)[:, -1, :, y, x].sum()

    total = torch.zeros_like(past)
    with _frozen(model):
        points = (torch.arange(steps, device=past.device) + 0.5) / steps
        for some in points.split(STEPS_AT_ONCE):
            inputs = (start + some.view(-1, 1, 1, 1, 1) * change).requires_grad_()
            total += torch.autograd.grad(pixel(inputs), inputs)[0].sum(dim=0)
        with torch.no_grad():
            difference = float(pixel(past) - pixel(start.expand_as(past)))
    attributed = (change * total / steps)[0]
    return attributed.cpu().numpy(), float(attributed.sum()) - difference


@contextmanager
def _frozen(model: Forecaster) -> Iterator[None]:
    """Evaluation mode, and no gradients for parameters, which saves time."""
    was_training = model.training
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter in wanted:
            parameter.requires_grad_(True)


def _heats(model: Forecaster, past: Tensor) -> list[np.ndarray]:
    """Root mean square gradients (H, W) of every layer's central output, then of the forecast's."""
    outputs: list[Tensor] = []
    last = past[:, -1:].clone().requires_grad_()
    past = torch.cat([past[:, :-1], last], dim=1)
    known = model.computed_inputs(past, horizon=1)
    with _frozen(model):
        state = None
        for t in range(past.shape[1] - 1):
            with torch.no_grad():
                inputs = None if known is None else known[:, t]
                _, state = model.step(past[:, t], state, inputs)
        with recording(model, lambda j, step: outputs.append(step.output)):
            prediction, _ = model.step(past[:, -1], state, None if known is None else known[:, -1])
        heats = []
        for j, output in enumerate([*outputs, prediction]):
            scale = [*layer_scales(model), 1][j]
            y, x = (_middle(size, scale) for size in past.shape[-2:])
            center = output[:, :, y, x]  # (B, C)
            target = (center * _signs(center)).sum()
            (gradient,) = torch.autograd.grad(target, last, retain_graph=True)
            heats.append(gradient.square().mean(dim=(0, 1, 2)).sqrt().cpu().numpy())
    return heats


def _theoretical_heats(model: Forecaster, past: Tensor) -> list[np.ndarray]:
    """As :func:`_heats`, for random inputs and weights, and average pooling."""
    config = model.config.model_copy(update={"down": "average"})
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        copy = build(config).double()
    noise = torch.rand(past[:1, :2].shape, generator=generator, dtype=torch.float64)
    return _heats(copy, repeat(noise, "b t c h w -> (n b) t c h w", n=2))


def _middle(size: int, scale: int) -> int:
    """The central position of a grid whose points cover `scale` pixels of `size`."""
    return -(-size // scale) // 2


def _signs(like: Tensor) -> Tensor:
    """Random signs, the same on every call."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


def _radius(heat: np.ndarray, center: tuple[float, float]) -> float:
    """Radius of the circle around the center that holds 95 % of the mass; NaN without mass."""
    if not heat.any():
        return float("nan")
    rows, columns = np.indices(heat.shape)
    distance = np.hypot(rows - center[0], columns - center[1]).ravel()
    order = distance.argsort()
    mass = heat.ravel()[order].cumsum()
    return float(distance[order][np.searchsorted(mass, MASS * mass[-1])])


def _extent(mask: np.ndarray) -> tuple[int, int]:
    """Height and width of the smallest box around all True values."""
    sides = []
    for axis in (1, 0):
        indices = np.flatnonzero(mask.any(axis=axis))
        sides.append(int(indices[-1] - indices[0] + 1) if indices.size else 0)
    return sides[0], sides[1]
