"""ONNX files: conversion of captured programs."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch

from zoo.errors import ConfigError
from zoo.exporting.description import KEY, Axis, Description

__all__ = ["LARGEST", "to_onnx"]

#: The largest ONNX file in bytes: what protobuf can read.
LARGEST = 2**31 - 1


def to_onnx(program: torch.export.ExportedProgram, description: Description) -> bytes:
    """Convert a captured program to an ONNX file that contains its weights and description.

    Raises:
        ConfigError: If ONNX has no equivalent of an operator, or the file would be too large.
    """
    import onnx
    import onnxscript  # noqa: F401  # torch.onnx needs it and would report it in its own way

    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    if weights > LARGEST - (64 << 20):
        raise ConfigError(
            f"{description.name} has {weights / 1e9:.1f} GB of weights, and an ONNX file at most "
            "2 GB; use --format pt2"
        )
    inputs, outputs = _signature(description)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(
                program, input_names=[*inputs], output_names=[*outputs], verbose=False
            )
        model = converted.model_proto  # type: ignore[union-attr]
    except torch.onnx.OnnxExporterError as error:
        raise ConfigError(
            f"{description.name} cannot be exported to ONNX: {_explain(error)}; use --format pt2"
        ) from error
    del model.graph.value_info[:]  # its names of axes contradict those given here
    for value in (*model.graph.input, *model.graph.output):
        _name_axes(value, {**inputs, **outputs}[value.name])
    model.producer_name, model.producer_version = "spatiotemporal-zoo", description.zoo
    onnx.helper.set_model_props(model, {KEY: description.model_dump_json()})
    return model.SerializeToString()


def _signature(
    description: Description,
) -> tuple[dict[str, tuple[Axis, ...]], dict[str, tuple[Axis, ...]]]:
    """Return the inputs and the outputs by name, with their axes."""
    batch, *frame = description.frame_shape
    if description.kind == "rollout":
        given, horizon = description.input_frames or 1, description.horizon or 1
        return {"past": (batch, given, *frame)}, {"forecast": (batch, horizon, *frame)}
    states = description.states
    return (
        {"frame": (batch, *frame)} | {state.name: state.shape for state in states},
        {"prediction": (batch, *frame)} | {state.next: state.shape for state in states},
    )


def _name_axes(value: Any, shape: tuple[Axis, ...]) -> None:
    """Set the shape of an input or output of an ONNX graph."""
    dimensions = value.type.tensor_type.shape
    del dimensions.dim[:]
    for axis in shape:
        name = "dim_value" if isinstance(axis, int) else "dim_param"
        setattr(dimensions.dim.add(), name, axis)


def _explain(error: BaseException | None) -> str:
    """Name the operator that has no equivalent, from the chain of exceptions of torch.onnx."""
    last = "unknown reason"
    while error is not None:
        if match := re.search(r"OpOverload\(op='([\w.:]+)'", str(error)):
            return f"ONNX has no operator for {match[1]}"
        last = (str(error).strip() or last).splitlines()[0][:300]
        error = error.__cause__ or error.__context__
    return last
