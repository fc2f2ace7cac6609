"""The forecaster: a network unrolled in time.

This is the only loop over time. The network reads frames 0 … T_in − 1 and then its own last
prediction; at step t it predicts frame t + 1.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from zoo.config import Config
from zoo.errors import ConfigError, DataError
from zoo.extrapolation import RECENT
from zoo.known_inputs import draw_noise, known_inputs, predicted_times, with_noise
from zoo.labeled import stack_members
from zoo.memory import trim
from zoo.network import Network, NetworkState
from zoo.ops import are_small, is_transformed
from zoo.prediction import check_finite, check_frames, predict
from zoo.units import Array, Frames, duration, scale, seconds, unscale

__all__ = ["Forecaster", "Rollout", "evaluating"]

#: Number of steps after which a rollout with gradients returns freed memory. Operations leave holes
#: between the maps that are kept for the backward pass.
TRIM_EVERY = 4


class Rollout(NamedTuple):
    """The result of a rollout.

    Attributes:
        frames: (B, T_in − 1 + horizon, C_out, H, W), the predictions of all steps.
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

    Attributes:
        optimized: The fast settings in use, see :func:`zoo.load`.
    """

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.optimized: tuple[str, ...] = ()

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

    def forward(self, frames: Tensor, horizon: int, known: Tensor | None = None) -> Tensor:
        """Return the predictions of all steps.

        Args:
            frames: (B, T_in, C, H, W), scaled to [0, 1].
            horizon: Number of frames to forecast after the last of `frames`, at least 1.
            known: The known inputs of all steps, if the model has any; see :meth:`rollout`.

        Returns:
            (B, T_in − 1 + horizon, C_out, H, W): one-step predictions of frames 1 … T_in − 1, then
            the forecast.
        """
        return self.rollout(frames, horizon, known=known).frames

    def sample(
        self,
        frames: Tensor,
        horizon: int,
        known: Tensor | None = None,
        seed: int = 0,
        member: int = 0,
        numbers: Sequence[int] = (0,),
    ) -> Tensor:
        """Return the predictions of all steps by one member of an ensemble.

        Args:
            frames: (B, T_in, C, H, W), scaled to [0, 1].
            horizon: Number of frames to forecast after the last of `frames`, at least 1.
            known: The known inputs of all steps without noise; see :meth:`rollout`.
            seed: Seed of the ensemble.
            member: Number of the member. Without noise all members are the same.
            numbers: Numbers of the B sequences, each of which has its own noise; by default all
                have the same.

        Returns:
            As :meth:`forward`.
        """
        if self.config.noise:
            steps, size = frames.shape[1] - 1 + horizon, frames.shape[-2:]
            draws = [draw_noise(self.config, size, seed, member, number) for number in numbers]
            noise = torch.cat([torch.stack([*islice(draw, steps)], dim=1) for draw in draws])
            known = with_noise(known, noise.to(frames))
        return self(frames, horizon, known)

    def rollout(
        self,
        frames: Tensor,
        horizon: int,
        fed: Tensor | None = None,
        *,
        known: Tensor | None = None,
        checkpoint_every: int | None = None,
    ) -> Rollout:
        """Return the predictions of all steps and the cells' auxiliary losses.

        Gradients flow through the predictions that are fed back.

        Args:
            frames: (B, T_in, C, H, W), scaled to [0, 1].
            horizon: Number of frames to forecast after the last of `frames`, at least 1.
            fed: (B, T_in) of bool, for scheduled sampling. Where False, the network reads its own
                last prediction instead of the frame. The first frame is always read.
            known: (B, T_in − 1 + horizon, K, H, W), of which B, H and W may be 1: what is known of
                the frames to be predicted besides `frames`, as computed by
                :func:`zoo.known_inputs.known_inputs`. By default it is computed from `frames`, if
                the model needs no times, noise or channels whose future is known.
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
        known = self.computed_inputs(frames, horizon) if known is None else known
        known = self._checked(known, len(steps))
        segment = checkpoint_every or len(steps)
        for start in range(0, len(steps), segment):
            arguments = (frames, fed, known, steps[start : start + segment], last, state)
            if checkpoint_every and torch.is_grad_enabled():
                advanced = checkpoint(self._advance, *arguments, use_reentrant=False)
            else:
                advanced = self._advance(*arguments)
            new, last, state, new_losses = advanced
            predictions += new
            losses += new_losses
        mean = torch.stack(losses).mean(dim=0) if losses else None
        return Rollout(torch.stack(predictions, dim=1), mean)

    def computed_inputs(self, frames: Tensor, horizon: int) -> Tensor | None:
        """Return the known inputs of a rollout that frames (B, T_in, C, H, W) determine.

        Returns:
            The inputs as in :meth:`rollout`. None if the model has none, or needs more than frames.
        """
        config = self.config
        if config.needs_times or config.noise or config.future_channels:
            return None
        steps = frames.shape[1] - 1 + horizon
        return known_inputs(config, steps, frames.shape[1], past=frames)

    def _advance(
        self,
        frames: Tensor,
        fed: Tensor | None,
        known: Tensor | None,
        steps: range,
        last: Tensor,
        state: NetworkState,
    ) -> tuple[list[Tensor], Tensor, NetworkState, list[Tensor]]:
        """Take some steps of a rollout, the first after the frame `last`, which may be predicted.

        Returns:
            The predictions, the last of them as a frame with all channels, the state and the
            auxiliary losses.
        """
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
            inputs = None if known is None else known[:, t]
            prediction, state, loss = self.network(_with_inputs(frame, inputs), state)
            last = self._complete(prediction, frame, inputs)
            predictions.append(prediction)
            if loss is not None:
                losses.append(loss)
            if t % TRIM_EVERY == TRIM_EVERY - 1 and _keeps_large_maps(state):
                trim()
        return predictions, last, state, losses

    def _complete(self, prediction: Tensor, frame: Tensor, inputs: Tensor | None) -> Tensor:
        """Append the channels that are only inputs to a prediction, so that it can be read.

        They keep their values in the frame before, unless their future is known.
        """
        future = self.config.future_channels
        kept = frame[:, prediction.shape[1] : frame.shape[1] - future]
        parts = [prediction, kept] if kept.shape[1] else [prediction]
        if future and inputs is not None:
            parts.append(_as_large(inputs[:, :future], frame))
        return torch.cat(parts, dim=1) if len(parts) > 1 else prediction

    def step(
        self, frame: Tensor, state: NetworkState | None = None, known: Tensor | None = None
    ) -> tuple[Tensor, NetworkState]:
        """Predict the next frame from one frame and the state.

        Args:
            frame: (B, C, H, W), scaled to [0, 1].
            state: The state returned by the previous step; None at the first.
            known: The known inputs of the step, (B, K, H, W), if the model has any.

        Returns:
            The prediction (B, C_out, H, W) and the new state, whose size is constant.
        """
        batch, *shape = frame.shape
        check_frames(self.config, (batch, 1, *shape), 1)
        checked = self._checked(None if known is None else known.unsqueeze(1), 1)
        inputs = None if checked is None else checked[:, 0]
        state = self.network.init_state(frame) if state is None else state
        prediction, state, _ = self.network(_with_inputs(frame, inputs), state)
        return prediction, state

    def predict(
        self,
        frames: Frames,
        horizon: int | None = None,
        *,
        unit: str | None = None,
        time_step: object = None,
        times: object = None,
        future: Tensor | np.ndarray | None = None,
        members: int | None = None,
        seed: int = 0,
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
            times: Times of `frames`, (T,) or (B, T) of anything that numpy.datetime64 takes, or
                that of the first frame. Defaults to the times of a DataArray. Needed by models
                that read the hour or the day.
            future: Values of the channels whose future is known (`config.future_channels`) in the
                forecast frames, (horizon, C, H, W) or (B, horizon, C, H, W), in the unit of the
                data.
            members: Number of forecasts of an ensemble, by a model that reads noise
                (`config.noise`). By default one forecast without the axis of members.
            seed: Seed of the noise. Each member depends on it and on its own number only; the
                sequences of a batch have the same noise.

        Returns:
            The forecast in the same form (array type, dtype of images, axes, device), clipped to
            the range of the data, with the channels that the model forecasts. Pixels missing in
            all `frames` are missing in the forecast. A DataArray has the coordinates of `frames`,
            the times that follow, and lead times. With `members` there is a first axis more, the
            dimension "member" of a DataArray.

        Raises:
            ConfigError: If members are asked of a model that does not read noise.
            DataError: If the frames do not fit the model, or have another unit or time step, or
                the forecast is not finite.
        """
        like = next(self.parameters())

        def forecast(
            past: Tensor, horizon: int, *, labeled: object, step: float | None, member: int
        ) -> Tensor:
            known = self._known(past, horizon, labeled if times is None else times, step, future)
            return self.sample(past, horizon, known, seed, member)[:, -horizon:]

        with evaluating(self):
            forecasts: list[Any] = [
                predict(
                    partial(forecast, member=member),
                    self.config.data,
                    frames,
                    horizon,
                    like=like,
                    unit=unit,
                    time_step=time_step,
                )
                for member in range(self._count(members))
            ]
        forecasts = [_normal(forecast) for forecast in forecasts]
        return forecasts[0] if members is None else stack_members(forecasts)

    def _count(self, members: int | None) -> int:
        """Return the number of forecasts to make."""
        if members is None:
            return 1
        if not self.config.noise:
            raise ConfigError(
                "this model has one forecast, not members; an ensemble needs a model trained with "
                "model.noise and the loss crps"
            )
        if members < 1:
            raise ConfigError(f"members is {members}; expected 1 or more")
        return members

    def _known(
        self,
        past: Tensor,
        horizon: int,
        times: object,
        step: float | None,
        future: Tensor | np.ndarray | None,
        earlier: Iterable[Tensor] = (),
    ) -> Tensor | None:
        """Return the known inputs of all steps; arguments are as for :meth:`predict`.

        Args:
            past: The input frames (B, T, C, H, W), scaled.
            horizon: Number of frames to forecast.
            times: Times of the frames.
            step: Seconds between them; by default those of the training.
            future: Values of the channels whose future is known.
            earlier: Frames (B, 1, C, H, W) before the input frames, in which motion is seen.
        """
        length, predicted = past.shape[1], None
        if times is not None and self.config.needs_times:
            step = self.config.data.time_step if step is None else step
            predicted = predicted_times(times, step, length, horizon)
        channels = None if future is None else self._future(past, horizon, future)
        steps = length - 1 + horizon
        known = known_inputs(
            self.config,
            steps,
            length,
            times=predicted,
            channels=channels,
            past=torch.cat([*earlier, past], dim=1) if self.config.extrapolates else None,
        )
        return None if known is None else known.to(past)

    def _future(self, past: Tensor, horizon: int, future: Tensor | np.ndarray) -> Tensor:
        """Return the known channels of all frames but the first, (B, steps, F, H, W), scaled."""
        count = self.config.future_channels
        if not count:
            raise DataError("this model has no channel whose future is known; leave out `future`")
        values = self._scale(future)
        if values.shape[1:] != (horizon, count, *past.shape[-2:]):
            raise DataError(
                f"future is {tuple(future.shape)}; expected the {count} known channels of "
                f"{horizon} frames, ({horizon}, {count}, {past.shape[-2]}, {past.shape[-1]})"
            )
        values = values.expand(len(past), -1, -1, -1, -1)
        return torch.cat([past[:, 1:, past.shape[2] - count :], values], dim=1).nan_to_num(nan=0.0)

    def stream(
        self,
        frames: Iterable[Array],
        *,
        times: Iterable[object] | None = None,
        future: Iterable[Array] | None = None,
        seed: int = 0,
    ) -> Iterator[Array]:
        """Predict the next frame for each frame as it arrives, in constant memory.

        Args:
            frames: Tensors or numpy arrays (B, C, H, W), or (C, H, W) or (H, W) for one sequence,
                in the units of the data, with NaN for missing values (`config.data.missing`).
            times: The time of each frame, for models that read the hour or the day.
            future: For each frame, the channels of the next one whose future is known
                (`config.future_channels`), in the form of the frames.
            seed: Seed of the noise, for models that read it.

        Yields:
            The prediction of the next frame, in the same form.

        Raises:
            DataError: If a frame does not fit the model, or differs in shape from the first.
        """
        state, shape, last, noise = None, None, None, None
        recent: deque[Tensor] = deque(maxlen=RECENT - 1)
        clock = iter(() if times is None else times)
        ahead = iter(() if future is None else future)
        for frame in frames:
            shape = shape or frame.shape
            if frame.shape != shape:
                raise DataError(
                    f"a frame is {tuple(frame.shape)}, but the first was {tuple(shape)}; the "
                    "frames of a stream must have the same shape"
                )
            batched = frame.ndim == 4
            sequence = frame[:, None] if batched else frame[None]  # T = 1
            time, values = next(clock, None), next(ahead, None)
            self._check_gap(last, time)
            last = time
            if values is not None:
                values = values[:, None] if batched else values[None]  # T = 1
            with evaluating(self):
                scaled = self._scale(sequence)
                known = self._known(scaled, 1, time, None, values, recent)
                recent.append(scaled)
                if self.config.noise:
                    noise = noise or draw_noise(self.config, scaled.shape[-2:], seed)
                    known = with_noise(known, next(noise)[:, None].to(scaled))  # of one step
                inputs = None if known is None else known[:, 0]
                prediction, state = self.step(scaled[:, 0].nan_to_num(nan=0.0), state, inputs)
            check_finite(prediction)
            following = _normal(unscale(prediction[:, None], self.config.data, like=sequence))
            yield following[:, 0] if batched else following[0]

    def _check_gap(self, last: object, time: object) -> None:
        """Raise DataError if two times of a stream are not one time step apart."""
        step = self.config.data.time_step
        if last is None or time is None or step is None:
            return
        gap = seconds(np.datetime64(time, "ms") - np.datetime64(last, "ms"))  # type: ignore[call-overload]
        if abs(gap - step) > 1e-3 * step:
            raise DataError(
                f"a frame of the stream is {duration(gap)} after the one before; the model expects "
                f"{duration(step)}: start a stream after a gap"
            )

    def _checked(self, known: Tensor | None, steps: int) -> Tensor | None:
        """Return the known inputs, or None if the model has none."""
        channels = self.config.known_channels
        if not channels:
            return None
        if known is None:
            raise DataError(
                f"this model reads {channels} channels of known inputs; use predict, or give them "
                "as `known`"
            )
        if known.ndim != 5 or known.shape[1:3] != (steps, channels):
            raise DataError(
                f"known inputs are {tuple(known.shape)}; expected {channels} channels of {steps} "
                f"steps, (B, {steps}, {channels}, H, W)"
            )
        return known

    def _scale(self, frames: Tensor | np.ndarray) -> Tensor:
        return scale(frames, self.config.data, like=next(self.parameters()))


def _with_inputs(frame: Tensor, inputs: Tensor | None) -> Tensor:
    """Append inputs (B, K, H, W), of which B, H and W may be 1, to a frame (B, C, H, W)."""
    return frame if inputs is None else torch.cat([frame, _as_large(inputs, frame)], dim=1)


def _as_large(inputs: Tensor, frame: Tensor) -> Tensor:
    return inputs.to(frame).expand(len(frame), -1, *frame.shape[-2:])


def _keeps_large_maps(state: NetworkState) -> bool:
    """Return whether a step on a CPU keeps maps for the backward pass, and large ones."""
    if is_transformed() or not torch.is_grad_enabled():
        return False
    maps = [x for x in tree_leaves(state) if isinstance(x, Tensor)]
    return all(x.device.type == "cpu" for x in maps) and not are_small(*maps)


def _normal(frames: Any) -> Any:
    """Return frames that may enter computations with gradients, which inference tensors may not."""
    return frames.clone() if isinstance(frames, Tensor) and frames.is_inference() else frames


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation and inference mode, and back. Tensors made inside have no gradients."""
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(training)
