"""The forecaster: a network unrolled in time.

This is the only loop over time. The network reads frames 0 … T_in − 1 and then its own last
prediction; at step t it predicts frame t + 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.config import Config
from zoo.errors import ConfigError, DataError
from zoo.labeled import is_labeled, unlabel
from zoo.network import Network, NetworkState
from zoo.units import Array, Frames, check_data, scale, unscale

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

    :meth:`from_pretrained`, :meth:`save_pretrained` and :meth:`push_to_hub` are :func:`zoo.load`,
    :func:`zoo.save` and :func:`zoo.publish`, under the names that are usual on the Hugging Face
    Hub.

    Args:
        network: The network, which takes one step in time.
        config: Its architecture and data.
    """

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.network = network
        self.config = config

    # These use the public functions of the package, as the modules behind them need this one.

    @classmethod
    def from_pretrained(cls, ref: str | Path, **options: Any) -> Forecaster:
        """Load a pretrained model.

        Args:
            ref: A path with "/" of a model folder, "org/name" on the Hugging Face Hub, or what
                :func:`zoo.load` takes.
            options: The other arguments of :func:`zoo.load`.

        Raises:
            ZooError: As :func:`zoo.load`.
        """
        import zoo

        ref = os.fspath(ref)
        if "/" in ref and ":" not in ref:
            ref = f"local-dir:{ref}" if os.path.isdir(ref) else f"hf-hub:{ref}"
        return zoo.load(ref, **options)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors to a folder, and return it.

        Raises:
            ZooError: If they cannot be written.
        """
        import zoo

        return zoo.save(self, folder)

    def push_to_hub(self, repository: str, folder: str | Path) -> str:
        """Save the model in its folder, publish the folder, and return the address.

        Args:
            repository: "org/name" on the Hugging Face Hub.
            folder: A model folder with a complete card, such as ``zoo train --card`` makes.

        Raises:
            HubError: If the card is incomplete, with what it lacks, or the Hub rejects the model.
        """
        import zoo

        return zoo.publish(zoo.save(self, folder), repository)[0]

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
        self._check(frames, horizon)
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
            DataError: If the frames do not fit the model, or have another unit or time step.
        """
        data = self.config.data
        horizon = (data.horizon or 1) if horizon is None else horizon
        check_data(data, unit=unit, time_step=time_step)
        if not is_labeled(frames):
            return self._predict(frames, horizon)  # type: ignore[type-var]
        values, labels = unlabel(frames, unit=unit, time_step=time_step)
        check_data(data, unit=labels.unit, time_step=labels.time_step)
        return labels.label(self._predict(values, horizon), data)  # type: ignore[return-value]

    def _predict(self, frames: Array, horizon: int) -> Array:
        """Forecast from a tensor or numpy array in the units of the data."""
        with _evaluating(self):
            past = self._scale(frames)
            forecast = self(past.nan_to_num(nan=0.0), horizon)[:, -horizon:]
            if self.config.data.missing:
                unseen = past.isnan().all(dim=1, keepdim=True)  # (B, 1, C, H, W)
                forecast = forecast.masked_fill(unseen, float("nan"))
        return unscale(forecast, self.config.data, like=frames)

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
            following = unscale(prediction[:, None], self.config.data, like=sequence)
            yield following[:, 0] if batched else following[0]

    def _check(self, frames: Tensor, horizon: int) -> None:
        channels = self.config.in_channels
        if frames.ndim != 5:
            raise DataError(f"frames are {tuple(frames.shape)}; expected (B, T, C, H, W)")
        if frames.shape[2] != channels:
            raise DataError(
                f"frames have {frames.shape[2]} channels (shape {tuple(frames.shape)}, axes "
                f"B, T, C, H, W); this model expects {channels}"
            )
        if 0 in frames.shape:
            raise DataError(f"frames are empty: {tuple(frames.shape)}; give at least one frame")
        if horizon < 1:
            raise ConfigError(f"horizon is {horizon}; expected 1 or more")

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
