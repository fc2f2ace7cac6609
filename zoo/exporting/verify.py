"""Check of an exported model against PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.exporting.description import Description
from zoo.exporting.onnx_model import OnnxForecaster
from zoo.exporting.program import tensors_of
from zoo.forecast import Forecaster

__all__ = ["TOLERANCE", "verify"]

#: The largest difference to PyTorch, for predictions from 0 to 1.
TOLERANCE = 1e-5

#: The largest side of the frames that are forecast for the check.
LARGEST_SIDE = 128

#: From frames (B, T, C, H, W) and a horizon, the predictions of all steps, or the forecast.
Predict = Callable[[Tensor, int], Tensor]


def verify(content: bytes, description: Description, model: Forecaster) -> float:
    """Compare an exported model with PyTorch at every lead time, and return the difference.

    The frames are noise of the size of the training frames, and two sequences of another size
    that needs padding.

    Args:
        content: The exported file.
        description: Its description.
        model: The model, on the CPU and in evaluation mode.

    Raises:
        ConfigError: If the difference exceeds TOLERANCE.
    """
    predict = _opened(content, description, model)
    data, multiple = model.config.data, model.network.multiple
    given = description.input_frames or data.input_frames or 10
    horizon = description.horizon or data.horizon or 10
    side = max(multiple, LARGEST_SIDE // multiple * multiple)
    usual = data.size or (64, 64)
    sizes = {1: (min(usual[0], side), min(usual[1], side)), 2: (multiple + 1, 2 * multiple + 1)}
    if model.config.size:
        sizes = dict.fromkeys(sizes, model.config.size)
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, size in sizes.items():
        frames = torch.rand(batch, given, model.config.in_channels, *size, generator=generator)
        with torch.no_grad():
            expected = model(frames, horizon)
        got = predict(frames, horizon)
        expected = expected[:, -got.shape[1] :]
        differences = (got - expected).abs().amax((0, 2, 3, 4))  # (T,)
        allowed = TOLERANCE * max(1.0, expected.abs().max().item())
        for number, difference in enumerate(differences.tolist(), start=1):
            if not difference <= allowed:  # NaN, too
                raise ConfigError(
                    f"{description.name}: the exported {description.kind} differs from PyTorch by "
                    f"{difference:.2g} in prediction {number} of frames of {size[0]}×{size[1]}; at "
                    f"most {allowed:.2g} is allowed, so nothing was written"
                )
            largest = max(largest, difference)
    return largest


def _opened(content: bytes, description: Description, model: Forecaster) -> Predict:
    """Open an exported file with its runtime."""
    if not content.startswith(b"PK"):  # a pt2 file is a zip archive
        session = OnnxForecaster(content)
        return lambda frames, horizon: torch.from_numpy(session(frames.numpy(), horizon))
    program = torch.export.load(io.BytesIO(content)).module()
    if description.kind == "rollout":
        return lambda frames, horizon: program(frames)

    def predict(frames: Tensor, horizon: int) -> Tensor:
        frame, predictions = frames[:, 0], []
        states = tensors_of(model.network.init_state(frame))
        for t in range(frames.shape[1] - 1 + horizon):
            frame = frames[:, t] if t < frames.shape[1] else frame
            frame, *states = program(frame, tuple(states))
            predictions.append(frame)
        return torch.stack(predictions, dim=1)

    return predict
