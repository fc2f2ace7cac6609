"""Export of a model to a file that other runtimes execute."""

from __future__ import annotations

import copy
import importlib
import io
from pathlib import Path
from typing import Literal

import torch

import zoo
from zoo.atomic import atomic_path
from zoo.data.files import check_writable
from zoo.errors import ConfigError
from zoo.exporting.description import KEY, Description
from zoo.exporting.onnx_file import to_onnx
from zoo.exporting.onnx_model import LARGEST
from zoo.exporting.program import RolloutProgram, StepProgram, capture, state_tensors, tensors_of
from zoo.exporting.verify import verify
from zoo.extras import suggest_extra
from zoo.forecast import Forecaster

__all__ = ["FORMATS", "export"]

#: Suffixes of the formats.
FORMATS = (".onnx", ".pt2")


def export(
    model: Forecaster,
    file: str | Path,
    *,
    horizon: int | None = None,
    input_frames: int | None = None,
    name: str | None = None,
    license: str | None = None,
    source: str | None = None,
) -> Path:
    """Write a model to a file that onnxruntime, or torch without the zoo, executes.

    By default, the file contains one step: the inputs are a frame and the state, the outputs the
    next frame and the next state. Batch, height and width may vary. With a horizon, it contains a
    whole forecast. Frames are scaled to [0, 1], in float32; the metadata say how.

    The file is compared with the model at every lead time before it is written.

    Args:
        model: The model.
        file: The file to write; its suffix, ".onnx" or ".pt2", selects the format.
        horizon: Number of frames to forecast, for a whole forecast.
        input_frames: Number of frames that a whole forecast reads. Defaults to that of training.
        name: Name of the model, for the metadata. Defaults to its architecture.
        license: License of the weights, for the metadata.
        source: Where the weights are from, for the metadata.

    Returns:
        The file.

    Raises:
        ConfigError: If an operator cannot be exported, or the result differs from the model.
    """
    path = _check_target(Path(file))
    if horizon is None and input_frames is not None:
        raise ConfigError("input_frames is for a whole forecast; set horizon, too")
    kind: Literal["step", "rollout"] = "step" if horizon is None else "rollout"
    if model.config.known_channels:
        raise ConfigError(
            f"{name or model.config.architecture} reads {model.config.known_channels} channels "
            "besides the frames; export supports models that read frames only"
        )
    # On the CPU in float32, whatever the model is on; the model itself does not change.
    exact = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    description = Description(
        kind=kind,
        name=name or model.config.architecture,
        license=license,
        source=source,
        zoo=zoo.__version__,
        config=model.config,
        input_frames=None
        if horizon is None
        else input_frames or model.config.data.input_frames or 10,
        horizon=horizon,
        states=state_tensors(exact.network),
    )
    with suggest_extra():
        if path.suffix == ".onnx":
            _check_onnx(exact)
        content = _convert(exact, description, path.suffix)
        verify(content, description, exact)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def _convert(model: Forecaster, description: Description, suffix: str) -> bytes:
    """Return the contents of the file."""
    network = model.network
    # All sizes of the example differ, and none is 1, on any grid.
    size = network.size or (2 * network.multiple + 1, 4 * network.multiple + 1)
    frame = torch.zeros(2, model.config.in_channels, *size)
    fixed_size = network.size is not None
    if description.kind == "step" or suffix == ".onnx":
        states = tensors_of(network.init_state(frame))
        program = capture(StepProgram(network), (frame, states), fixed_size=fixed_size)
    else:
        past = torch.stack([frame] * (description.input_frames or 1), dim=1)
        rollout = RolloutProgram(network, description.horizon or 1)
        program = capture(rollout, (past,), fixed_size=fixed_size)
    if suffix == ".onnx":
        return to_onnx(program, description)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={KEY: description.model_dump_json()})
    return buffer.getvalue()


def _check_onnx(model: Forecaster) -> None:
    """Raise ConfigError for weights that no ONNX file can contain, and for missing packages."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        importlib.import_module(package)
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size > LARGEST - (64 << 20):  # the rest of the file needs some room
        raise ConfigError(
            f"{model.config.architecture} has {size / 1e9:.1f} GB of weights, and an ONNX file at "
            "most 2 GB; use --format pt2"
        )


def _check_target(path: Path) -> Path:
    """Raise ConfigError if a file cannot be written, before the long work."""
    if path.suffix not in FORMATS:
        raise ConfigError(
            f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(FORMATS)}"
        )
    check_writable(path, FORMATS)
    return path
