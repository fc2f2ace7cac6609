"""The model people hold: it rolls a network out in time.

Only here is there a loop over time. Frames 0 … T_in − 1 are read, then the network's own last
output is fed back; at every step t it predicts frame t + 1.
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
from zoo.errors import ZooError
from zoo.labelled import is_labelled, unlabel
from zoo.network import Network, NetworkState
from zoo.units import Array, Frames, check_data, scale, unscale

__all__ = ["Forecaster", "Rollout"]


class Rollout(NamedTuple):
    """What a rollout gives.

    frames: all one-step predictions, (B, T_in − 1 + horizon, C, H, W).
    loss: the mean over steps of the cells' auxiliary losses, (B,); None where they have none.
    """

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

    def rollout(
        self,
        frames: Tensor,
        horizon: int,
        fed: Tensor | None = None,
        *,
        checkpoint_every: int | None = None,
    ) -> Rollout:
        """All predictions, and the cells' auxiliary losses.

        Args:
            frames: (B, T_in, C, H, W), scaled to [0, 1].
            horizon: number of frames to forecast after the last of `frames`, 1 or more.
            fed: (B, T_in) of bool, for scheduled sampling: where it is False, the network is
                fed its own last output in place of that frame. The first is always fed.
            checkpoint_every: for training in less memory: of so many steps only the state
                before the first is kept, and the steps are taken again in the backward pass.

        Gradients flow through the outputs that are fed back.
        """
        self._check(frames, horizon)
        state = self.network.init_state(frames[:, 0])
        last = frames[:, 0]
        predictions: list[Tensor] = []
        losses: list[Tensor] = []
        steps = range(frames.shape[1] - 1 + horizon)
        size = checkpoint_every or len(steps)
        for first in range(0, len(steps), size):
            part = steps[first : first + size]
            if checkpoint_every and torch.is_grad_enabled():
                made, state, told = checkpoint(
                    self._advance, frames, fed, part, last, state, use_reentrant=False
                )
            else:
                made, state, told = self._advance(frames, fed, part, last, state)
            last = made[-1]
            predictions += made
            losses += told
        mean = torch.stack(losses).mean(dim=0) if losses else None
        return Rollout(torch.stack(predictions, dim=1), mean)

    def _advance(
        self, frames: Tensor, fed: Tensor | None, steps: range, last: Tensor, state: NetworkState
    ) -> tuple[list[Tensor], NetworkState, list[Tensor]]:
        """Take some steps of a rollout after the prediction `last`."""
        predictions: list[Tensor] = []
        losses: list[Tensor] = []
        for t in steps:
            if t >= frames.shape[1]:
                frame = last
            elif fed is None or t == 0:
                frame = frames[:, t]
            else:
                here = fed[:, t, None, None, None]  # (B,) to (B, 1, 1, 1)
                frame = torch.where(here, frames[:, t], last)
            last, state, loss = self.network(frame, state)
            predictions.append(last)
            if loss is not None:
                losses.append(loss)
        return predictions, state, losses

    def step(self, frame: Tensor, state: NetworkState | None = None) -> tuple[Tensor, NetworkState]:
        """One frame in, the next one out: (B, C, H, W), scaled to [0, 1].

        Start with no state and hand back the one returned. Its size does not grow.
        """
        self._check(frame.unsqueeze(1), 1)  # (B, C, H, W) to (B, 1, C, H, W)
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
        """The forecast of the `horizon` frames that follow, in the units of the data.

        Args:
            frames: (B, T, C, H, W), or (T, C, H, W) or (T, H, W) for one sequence; a tensor,
                a numpy array, or an xarray.DataArray with a dimension "time" and the grid as
                its last two. For pictures, whose values are 0 to 1, also uint8. Where values
                can be missing (`config.data.missing`), NaN are, but no frame whole.
            horizon: how many; by default what the model was trained with.
            unit: that of `frames`; by default the attribute "units" of a DataArray.
            time_step: from one frame to the next, as a timedelta, in seconds or as "5min"; by
                default what the times of a DataArray say.

        Returns the forecast in the same form (array type, dtype of pictures, axes, device),
        clipped to the range of the data; a place that is missing in all of `frames` is missing
        in it. A DataArray has the coordinates of `frames`, the times that follow, and their
        lead times. Raises ZooError for frames that do not fit, in another unit or time step.
        """
        if horizon is None:
            horizon = self.config.data.horizon or 1
        data = self.config.data
        check_data(data, unit=unit, time_step=time_step)
        if is_labelled(frames):
            values, labels = unlabel(frames, unit=unit, time_step=time_step)
            check_data(data, unit=labels.unit, time_step=labels.time_step)
            return labels.label(self.predict(values, horizon), data)  # type: ignore[return-value]
        with _forecasting(self):
            past = self._scale(frames)  # type: ignore[arg-type]
            forecast = self(past.nan_to_num(nan=0.0), horizon)[:, -horizon:]
            if data.missing:
                unseen = past.isnan().all(dim=1, keepdim=True)  # (B, 1, C, H, W)
                forecast = forecast.masked_fill(unseen, float("nan"))
        return unscale(forecast, data, like=frames)  # type: ignore[type-var]

    def stream(self, frames: Iterable[Array]) -> Iterator[Array]:
        """For every frame, as it comes, the prediction of the next; in units of the data.

        Frames are (B, C, H, W), or (C, H, W) or (H, W) for one sequence: tensors or numpy
        arrays. Memory is constant however long the stream is. Missing values are taken where
        they can be (`config.data.missing`). Raises ZooError for frames that do not fit.
        """
        state, shape = None, None
        for frame in frames:
            shape = shape or frame.shape
            if frame.shape != shape:
                raise ZooError(
                    f"a frame is {tuple(frame.shape)} and the first was {tuple(shape)}; the frames "
                    "of a stream have one shape"
                )
            batched = frame.ndim == 4
            sequence = frame[:, None] if batched else frame[None]  # a T of 1
            with _forecasting(self):
                scaled = self._scale(sequence)[:, 0].nan_to_num(nan=0.0)
                prediction, state = self.step(scaled, state)
            following = unscale(prediction[:, None], self.config.data, like=sequence)
            yield following[:, 0] if batched else following[0]

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

    def _scale(self, frames: Tensor | np.ndarray) -> Tensor:
        return scale(frames, self.config.data, like=next(self.parameters()))


@contextmanager
def _forecasting(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, for a while."""
    was = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was)
