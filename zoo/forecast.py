"""The model people hold: it rolls a network out in time.

Only here is there a loop over time. Frames 0 … T_in − 1 are read, then the network's own last
output is fed back; at every step t it predicts frame t + 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from zoo.config import Config
from zoo.errors import ZooError
from zoo.network import Network, NetworkState

__all__ = ["Forecaster", "Rollout", "scheduled_sampling"]

Frames = TypeVar("Frames", Tensor, np.ndarray)


class Rollout(NamedTuple):
    """All one-step predictions (B, T, C, H, W), and the mean over steps of the auxiliary
    losses (B,), None where the cells have none.
    """  # noqa: D205

    frames: Tensor
    loss: Tensor | None


class Forecaster(nn.Module):
    """A network with its config: what :func:`zoo.create` and :func:`zoo.load` return.

    Calling the model, :meth:`rollout` and :meth:`step` take and return frames scaled to
    [0, 1], keep gradients and clip nothing. :meth:`predict` and :meth:`stream` take and
    return the units of the data (`config.data`), clipped to its range, without gradients.
    """

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def forward(self, frames: Tensor, horizon: int) -> Tensor:
        """Frames (B, T_in, C, H, W) to all predictions (B, T_in − 1 + horizon, C, H, W).

        The last `horizon` of them are the forecast, the others the one-step predictions of
        frames 1 … T_in − 1.
        """
        return self.rollout(frames, horizon).frames

    def rollout(self, frames: Tensor, horizon: int, fed: Tensor | None = None) -> Rollout:
        """All predictions, and the cells' auxiliary losses.

        Args:
            frames: (B, T_in, C, H, W), scaled to [0, 1].
            horizon: number of frames to forecast after the last of `frames`, 1 or more.
            fed: (B, T_in) of bool, for scheduled sampling: where it is False, the network is
                fed its own last output in place of that frame. The first is always fed.

        Gradients flow through the outputs that are fed back.
        """
        self._check(frames, horizon)
        state = self.network.init_state(frames[:, 0])
        predictions: list[Tensor] = []
        losses: list[Tensor] = []
        given = frames.shape[1]
        for t in range(given - 1 + horizon):
            if t >= given:
                frame = predictions[-1]
            elif fed is None or t == 0:
                frame = frames[:, t]
            else:
                here = fed[:, t, None, None, None]  # (B,) to (B, 1, 1, 1)
                frame = torch.where(here, frames[:, t], predictions[-1])
            prediction, state, loss = self.network(frame, state)
            predictions.append(prediction)
            if loss is not None:
                losses.append(loss)
        mean = torch.stack(losses).mean(dim=0) if losses else None
        return Rollout(torch.stack(predictions, dim=1), mean)

    def step(
        self, frame: Tensor, state: NetworkState | None = None
    ) -> tuple[Tensor, NetworkState]:
        """One frame in, the next one out: (B, C, H, W), scaled to [0, 1].

        Start with no state and hand back the one returned. Its size does not grow.
        """
        self._check(frame.unsqueeze(1), 1)  # (B, C, H, W) to (B, 1, C, H, W)
        state = self.network.init_state(frame) if state is None else state
        prediction, state, _ = self.network(frame, state)
        return prediction, state

    def predict(self, frames: Frames, horizon: int | None = None) -> Frames:
        """The forecast of the `horizon` frames that follow, in the units of the data.

        Args:
            frames: (B, T, C, H, W), or (T, C, H, W) or (T, H, W) for one sequence; a tensor
                or a numpy array. For pictures, whose values are 0 to 1, also uint8.
            horizon: how many; by default what the model was trained with.

        Returns the forecast in the same form (array type, dtype of pictures, axes, device),
        clipped to the range of the data. Raises ZooError for frames that do not fit.
        """
        horizon = horizon or self.config.data.horizon or 1
        scaled, units = self._enter(frames, sequence=True)
        with torch.no_grad(), _evaluating(self):
            forecast = self(scaled, horizon)[:, -horizon:]
        return units.leave(forecast)

    def stream(self, frames: Iterable[Frames]) -> Iterator[Frames]:
        """For every frame, as it comes, the prediction of the next; in units of the data.

        Frames are (B, C, H, W), or (C, H, W) or (H, W) for one sequence. Memory is constant
        however long the stream is. Raises ZooError for frames that do not fit.
        """
        state = None
        for frame in frames:
            scaled, units = self._enter(frame, sequence=False)
            with torch.no_grad(), _evaluating(self):
                prediction, state = self.step(scaled[:, 0], state)
            yield units.leave(prediction.unsqueeze(1))  # (B, C, H, W) to (B, 1, C, H, W)

    def _check(self, frames: Tensor, horizon: int) -> None:
        channels = self.config.in_channels
        if frames.ndim != 5:
            raise ZooError(f"frames are {tuple(frames.shape)}; expected (B, T, C, H, W)")
        if frames.shape[2] != channels:
            raise ZooError(
                f"frames have {frames.shape[2]} channels (shape {tuple(frames.shape)}, axes "
                f"B, T, C, H, W); this model takes {channels}"
            )
        if 0 in frames.shape:
            raise ZooError(f"frames are empty: {tuple(frames.shape)}; give at least one frame")
        if horizon < 1:
            raise ZooError(f"horizon is {horizon}; it must be 1 or more")

    def _enter(self, frames: Tensor | np.ndarray, *, sequence: bool) -> tuple[Tensor, _Units]:
        """Frames as people give them to (B, T, C, H, W) in [0, 1], and the way back."""
        if not isinstance(frames, (Tensor, np.ndarray)):
            raise ZooError(f"frames are a {type(frames).__name__}; give a torch or numpy array")
        units = _Units(self, frames, sequence)
        return units.enter(frames), units


class _Units:
    """The way from one array of a person's, in units of the data, to the model and back."""

    def __init__(self, model: Forecaster, like: Tensor | np.ndarray, sequence: bool) -> None:
        self.model = model
        self.data = model.config.data
        self.like = like
        self.sequence = sequence
        self.is_uint8 = like.dtype in (torch.uint8, np.uint8) and self.data.is_picture

    def enter(self, frames: Tensor | np.ndarray) -> Tensor:
        parameter = next(self.model.parameters())
        if isinstance(frames, np.ndarray):
            if frames.dtype.kind not in "iufb":
                raise ZooError(f"frames are of type {frames.dtype}; expected numbers")
            frames = torch.from_numpy(np.ascontiguousarray(frames))
        x = frames.to(device=parameter.device, dtype=parameter.dtype)
        axes = x.ndim if self.sequence else x.ndim + 1
        if axes not in (3, 4, 5):
            form = "(B, T, C, H, W), (T, C, H, W) or (T, H, W)"
            if not self.sequence:
                form = "(B, C, H, W), (C, H, W) or (H, W)"
            raise ZooError(f"frames are {tuple(x.shape)}; expected {form}")
        if not self.sequence:
            x = x.unsqueeze(-4 if axes > 3 else 0)  # a T of 1 in front of C, or of H
        if axes == 3:
            x = x.unsqueeze(1)  # (T, H, W) to (T, 1, H, W)
        if axes < 5:
            x = x.unsqueeze(0)  # (T, C, H, W) to (1, T, C, H, W)
        if not torch.isfinite(x).all():
            wrong = (~torch.isfinite(x)).sum(dim=(0, 2, 3, 4))  # a number for every frame
            first = int(wrong.nonzero()[0])
            raise ZooError(
                f"frames hold {int(wrong.sum())} NaN or infinite values, the first in frame "
                f"{first}; fill them before forecasting (numpy.nan_to_num, say)"
            )
        if self.is_uint8:
            return x / 255
        low, high = self.data.low, self.data.high
        if self.data.is_picture and (x.min() < -0.01 or x.max() > 1.01):
            raise ZooError(
                f"frames range from {float(x.min()):g} to {float(x.max()):g}; this model takes "
                "intensities from 0 to 1, or uint8 from 0 to 255"
            )
        return ((x - low) / (high - low)).clamp(0, 1)

    def leave(self, frames: Tensor) -> Frames:
        x = frames.clamp(0, 1)
        x = (x * 255).round().to(torch.uint8) if self.is_uint8 else self._unscale(x)
        axes = self.like.ndim if self.sequence else self.like.ndim + 1
        if axes < 5:
            x = x.squeeze(0)  # (1, T, C, H, W) to (T, C, H, W)
        if axes == 3:
            x = x.squeeze(1)  # (T, 1, H, W) to (T, H, W)
        if not self.sequence:
            x = x.squeeze(-4 if axes > 3 else 0)  # the T of 1
        if isinstance(self.like, np.ndarray):
            return x.cpu().numpy()
        return x.to(self.like.device)

    def _unscale(self, x: Tensor) -> Tensor:
        return x * (self.data.high - self.data.low) + self.data.low


class _evaluating:  # noqa: N801
    """Put a module into evaluation mode for a while."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.was = module, module.training

    def __enter__(self) -> None:
        self.module.eval()

    def __exit__(self, *exception: object) -> None:
        self.module.train(self.was)


def scheduled_sampling(
    batch: int, steps: int, given: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Which true frames to feed in training: (B, steps) of bool for :meth:`Forecaster.rollout`.

    Frames 0 … given − 1 are always fed, each of the others with `probability`, drawn for
    every sample and step (MS-LSTM, arXiv 2304.07724, after Bengio et al. 2015).
    """
    fed = torch.rand(batch, steps, generator=generator) < probability
    fed[:, :given] = True
    return fed
