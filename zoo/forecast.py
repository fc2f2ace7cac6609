"""The forecaster: a network unrolled in time.

This is the only loop over time. The network reads frames 0 … T_in − 1 and then its own last
prediction; at step t it predicts frame t + 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.config import Config
from zoo.errors import DataError
from zoo.network import Network, NetworkState
from zoo.prediction import check_finite, check_frames, predict
from zoo.units import Array, Frames, scale, unscale

__all__ = ["Forecaster", "Rollout"]


class Rollout(NamedTuple):
    """The result of a rollout.

    Attributes:
        frames: (B, T_in − 1 + horizon, C, H, W), the predictions of all steps.
        loss: (B,), the cells' auxiliary losses, averaged over the steps. None if they have none.
    """

    frames: Tensor
    loss: Tensor | None


class Forecaster(nn.Module):
    """A forecasting model, as returned by :func:`zoo.create` and :func:`zoo.load`.

    There are two interfaces. :meth:`predict` and :meth:`stream` work in the units of the data
    (`config.data`), clip to its range and compute no gradients. Calling the model,
    :meth:`rollout` and :meth:`step` work on frames scaled to [0, 1], keep gradients and do not
    clip.

    Args:
        network: The network, which takes one step in time.
        config: Its architecture and data.
    """

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def forward(self, frames: Tensor, horizon: int) -> Tensor:
        """Return the predictions of all steps.

        Args:
            frames: (B, T_in, C, H, W), scaled to [0, 1].
            horizon: Number of frames to forecast after the last of `frames`, at least 1.

        Returns:
            (B, T_in − 1 + horizon, C, H, W): one-step predictions of frames 1 … T_in − 1, then the
            forecast.
        """
        return self.rollout(frames, horizon).frames

    def rollout(
        self,
        frames: Tensor,
        horizon: int,
        fed: Tensor | None = None,
        *,
        checkpoint_every: int | None = None,
    ) -> Rollout:
        """Return the predictions of all steps and the cells' auxiliary losses.

        Gradients flow through the predictions that are fed back.

        Args:
            frames: (B, T_in, C, H, W), scaled to [0, 1].
            horizon: Number of frames to forecast after the last of `frames`, at least 1.
            fed: (B, T_in) of bool, for scheduled sampling. Where False, the network reads its own
                last prediction instead of the frame. The first frame is always read.
            checkpoint_every: Save memory in training by keeping the state only once every N steps
                and repeating the steps in between in the backward pass.

        Raises:
            DataError: If the frames do not fit the model.
        """
        check_frames(self.config, tuple(frames.shape), horizon)
        state = self.network.init_state(frames[:, 0])
        last = frames[:, 0]
        predictions: list[Tensor] = []
        losses: list[Tensor] = []
        steps = range(frames.shape[1] - 1 + horizon)
        segment = checkpoint_every or len(steps)
        for start in range(0, len(steps), segment):
            arguments = (frames, fed, steps[start : start + segment], last, state)
            if checkpoint_every and torch.is_grad_enabled():
                new, state, new_losses = checkpoint(self._advance, *arguments, use_reentrant=False)
            else:
                new, state, new_losses = self._advance(*arguments)
            last = new[-1]
            predictions += new
            losses += new_losses
        mean = torch.stack(losses).mean(dim=0) if losses else None
        return Rollout(torch.stack(predictions, dim=1), mean)

    def _advance(
        self, frames: Tensor, fed: Tensor | None, steps: range, last: Tensor, state: NetworkState
    ) -> tuple[list[Tensor], NetworkState, list[Tensor]]:
        """Take some steps of a rollout, the first after the prediction `last`."""
        predictions: list[Tensor] = []
        losses: list[Tensor] = []
        for t in steps:
            if t >= frames.shape[1]:
                frame = last
            elif fed is None or t == 0:
                frame = frames[:, t]
            else:
                is_fed = fed[:, t, None, None, None]  # (B,) to (B, 1, 1, 1)
                frame = torch.where(is_fed, frames[:, t], last)
            last, state, loss = self.network(frame, state)
            predictions.append(last)
            if loss is not None:
                losses.append(loss)
        return predictions, state, losses

    def step(self, frame: Tensor, state: NetworkState | None = None) -> tuple[Tensor, NetworkState]:
        """Predict the next frame from one frame and the state.

        Args:
            frame: (B, C, H, W), scaled to [0, 1].
            state: The state returned by the previous step; None at the first.

        Returns:
            The prediction (B, C, H, W) and the new state, whose size is constant.
        """
        batch, *shape = frame.shape
        check_frames(self.config, (batch, 1, *shape), 1)
        state = self.network.init_state(frame) if state is None else state
        prediction, state, _ = self.network(frame, state)
        return prediction, state

    def predict(
        self,
        frames: Frames,
        horizon: int | None = None,
        *,
        unit: str | None = None,
        time_step: object = None,
    ) -> Frames:
        """Forecast the frames that follow, in the units of the data.

        Args:
            frames: (B, T, C, H, W), or (T, C, H, W) or (T, H, W) for one sequence; a tensor,
                a numpy array, or an xarray.DataArray with a dimension "time" and the grid as
                its last two dimensions. Images with values from 0 to 1 may also be uint8. If
                values can be missing (`config.data.missing`), they are NaN; no frame may be
                missing completely.
            horizon: Number of frames to forecast. Defaults to the horizon of training.
            unit: Unit of `frames`. Defaults to the attribute "units" of a DataArray.
            time_step: Time between two frames: a timedelta, seconds, or a string such as "5min".
                Defaults to the time steps of a DataArray.

        Returns:
            The forecast in the same form (array type, dtype of images, axes, device), clipped to
            the range of the data. Pixels missing in all `frames` are missing in the forecast. A
            DataArray has the coordinates of `frames`, the times that follow, and lead times.

        Raises:
            DataError: If the frames do not fit the model, or have another unit or time step, or
                the forecast is not finite.
        """
        data, like = self.config.data, next(self.parameters())
        with _evaluating(self):
            return predict(
                self._forecast, data, frames, horizon, like=like, unit=unit, time_step=time_step
            )

    def _forecast(self, frames: Tensor, horizon: int) -> Tensor:
        return self(frames, horizon)[:, -horizon:]

    def stream(self, frames: Iterable[Array]) -> Iterator[Array]:
        """Predict the next frame for each frame as it arrives, in constant memory.

        Args:
            frames: Tensors or numpy arrays (B, C, H, W), or (C, H, W) or (H, W) for one sequence,
                in the units of the data, with NaN for missing values (`config.data.missing`).

        Yields:
            The prediction of the next frame, in the same form.

        Raises:
            DataError: If a frame does not fit the model, or differs in shape from the first.
        """
        state, shape = None, None
        for frame in frames:
            shape = shape or frame.shape
            if frame.shape != shape:
                raise DataError(
                    f"a frame is {tuple(frame.shape)}, but the first was {tuple(shape)}; the "
                    "frames of a stream must have the same shape"
                )
            batched = frame.ndim == 4
            sequence = frame[:, None] if batched else frame[None]  # T = 1
            with _evaluating(self):
                scaled = self._scale(sequence)[:, 0].nan_to_num(nan=0.0)
                prediction, state = self.step(scaled, state)
            check_finite(prediction)
            following = unscale(prediction[:, None], self.config.data, like=sequence)
            yield following[:, 0] if batched else following[0]

    def _scale(self, frames: Tensor | np.ndarray) -> Tensor:
        return scale(frames, self.config.data, like=next(self.parameters()))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients, and back."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
