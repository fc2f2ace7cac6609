"""Forecasts from an ONNX file that the zoo wrote, with onnxruntime and without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import Config
from zoo.errors import ConfigError, DataError, HubError
from zoo.exporting.description import KEY, Description, axis_size
from zoo.labeled import is_labeled
from zoo.prediction import check_frames, predict
from zoo.units import Frames

__all__ = ["LARGEST", "OnnxForecaster"]

#: The largest ONNX file in bytes: what protobuf can read.
LARGEST = 2**31 - 1

AGAIN = "export the model again: zoo export NAME -o FILE"


class OnnxForecaster:
    """A forecasting model in an ONNX file, with the same `predict` as :class:`zoo.Forecaster`.

    Args:
        file: The file, or its contents.

    Attributes:
        description: What the file says about the model.
        config: The architecture of the model, and the meaning of its data.

    Raises:
        HubError: If the file cannot be read, was not written by the zoo, or refers to others.
    """

    def __init__(self, file: Path | bytes) -> None:
        self.name = "the ONNX file" if isinstance(file, bytes) else str(file)
        content = file if isinstance(file, bytes) else _read(file)
        self.description = _check(content, self.name)
        self.config: Config = self.description.config
        self._session = _open(content, self.name)

    def predict(
        self,
        frames: Frames,
        horizon: int | None = None,
        *,
        unit: str | None = None,
        time_step: object = None,
    ) -> Frames:
        """Forecast the frames that follow, as :meth:`zoo.Forecaster.predict` does.

        A file with a rollout reads exactly the number of frames that it was exported for.

        Args:
            frames: A numpy array or an xarray.DataArray.
            horizon: Number of frames to forecast.
            unit: Unit of `frames`.
            time_step: Time between two frames.

        Raises:
            DataError: If the frames do not fit the model.
            ConfigError: If the horizon exceeds that of the rollout.
        """
        is_known = isinstance(frames, np.ndarray) or is_labeled(frames)
        if not is_known:
            raise DataError(
                f"got frames of type {type(frames).__name__}; an ONNX file takes a numpy array or "
                "an xarray.DataArray"
            )
        return predict(
            lambda past, steps, **_: self(past, steps)[:, -steps:],
            self.config.data,
            frames,
            horizon,
            like=np.zeros((), np.float32),
            unit=unit,
            time_step=time_step,
        )

    def __call__(self, frames: np.ndarray, horizon: int) -> np.ndarray:
        """Return predictions on the model's scale.

        Args:
            frames: (B, T, C, H, W), scaled to [0, 1].
            horizon: Number of frames to forecast.

        Returns:
            The predictions of all steps (B, T − 1 + horizon, C, H, W), as a
            :class:`zoo.Forecaster` returns them; of a rollout only the forecast.
        """
        check_frames(self.config, frames.shape, horizon)
        size = self.config.size
        if size and frames.shape[-2:] != size:
            raise DataError(
                f"frames are {frames.shape[-2]}×{frames.shape[-1]}, but this model has weights for "
                f"every pixel of {size[0]}×{size[1]}; crop or resize the frames to that"
            )
        if self.description.kind == "rollout":
            return self._roll_out(frames, horizon)
        return np.stack(list(self._steps(frames, horizon)), axis=1)

    def _steps(self, frames: np.ndarray, horizon: int) -> Iterator[np.ndarray]:
        """Yield the prediction of every step."""
        batch, given, _, height, width = frames.shape
        sizes = {"batch": batch, "height": height, "width": width}
        states = self.description.states
        values = [np.zeros([axis_size(a, sizes) for a in s.shape], np.float32) for s in states]
        names = [state.name for state in states]
        frame = frames[:, 0]
        for t in range(given - 1 + horizon):
            if 0 < t < given:
                frame = frames[:, t]
            frame, *values = self._run({"frame": frame, **dict(zip(names, values, strict=True))})
            yield frame

    def _roll_out(self, frames: np.ndarray, horizon: int) -> np.ndarray:
        given, longest = self.description.input_frames, self.description.horizon or 1
        if frames.shape[1] != given:
            raise DataError(
                f"got {frames.shape[1]} frames; {self.name} reads {given}: give that number "
                f"(--input-frames {given}), or export a step"
            )
        if horizon > longest:
            raise ConfigError(
                f"horizon is {horizon}; {self.name} forecasts {longest} frames: ask for fewer, or "
                "export a step"
            )
        return self._run({"past": frames})[0][:, :horizon]

    def _run(self, inputs: dict[str, np.ndarray]) -> list[Any]:
        contiguous = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        try:
            return self._session.run(None, contiguous)
        except Exception as error:  # onnxruntime raises exceptions of many classes
            raise HubError(f"{self.name} cannot be run: {_first_line(error)}; {AGAIN}") from error


def _read(file: Path) -> bytes:
    """Read a file that may not be an ONNX file."""
    if not os.path.isfile(file):
        raise HubError(f"{file}: no such file; check the path, or write it: zoo export NAME")
    if (size := os.path.getsize(file)) > LARGEST:
        raise HubError(f"{file} has {size:,} bytes; an ONNX file has at most {LARGEST:,}")
    return file.read_bytes()


def _check(content: bytes, name: str) -> Description:
    """Return the description of an ONNX file, if it stands for itself.

    onnxruntime would read other files that an ONNX file names, so they are rejected.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf
        raise HubError(f"{name} is not an ONNX file or is incomplete; {AGAIN}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in metadata:
        raise HubError(f"{name} was not written by zoo export: it has no metadata {KEY!r}; {AGAIN}")
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and message.data_location == message.EXTERNAL:
            raise HubError(f"{name} refers to data in other files, which are not read; {AGAIN}")
        if isinstance(message, onnx.NodeProto) and message.domain not in ("", "ai.onnx"):
            raise HubError(
                f"{name} uses the operator {message.domain}.{message.op_type}, which is not a "
                f"standard one; {AGAIN}"
            )
    return Description.parse(_parse(metadata[KEY], name), source=f"metadata of {name}")


def _parse(text: str, name: str) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HubError(f"metadata of {name} cannot be read as JSON: {error}; {AGAIN}") from error


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if hasattr(value, "__len__") else [value]:
                yield from _messages(child)


def _open(content: bytes, name: str) -> Any:
    """Open an ONNX file with onnxruntime, quietly."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, too
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    # Threads that wait actively slow each other down where other programs run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises exceptions of many classes
        raise HubError(f"{name} cannot be opened: {_first_line(error)}; {AGAIN}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
