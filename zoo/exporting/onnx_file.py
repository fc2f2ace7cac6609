"""ONNX files: conversion of captured programs."""

from __future__ import annotations

import re
import warnings

import torch

from zoo.errors import ConfigError
from zoo.exporting.description import KEY, Description
from zoo.exporting.onnx_loop import make_tensor, roll_out

__all__ = ["to_onnx"]


def to_onnx(program: torch.export.ExportedProgram, description: Description) -> bytes:
    """Convert a captured step to an ONNX file that contains its weights and description.

    Args:
        program: The step.
        description: The description of the file. For a rollout, a loop around the step is added.

    Raises:
        ConfigError: If ONNX has no equivalent of an operator.
    """
    import onnx

    names = [state.name for state in description.states]
    following = [state.next for state in description.states]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(
                program,
                input_names=["frame", *names],
                output_names=["prediction", *following],
                verbose=False,
            )
        model = converted.model_proto  # type: ignore[union-attr]
    except torch.onnx.OnnxExporterError as error:
        raise ConfigError(
            f"{description.name} cannot be exported to ONNX: {_explain(error)}; use --format pt2"
        ) from error
    del model.graph.value_info[:]  # its names of axes contradict those given here
    shapes = {"frame": description.frame_shape, "prediction": description.frame_shape}
    for state in description.states:
        shapes |= {state.name: state.shape, state.next: state.shape}
    for value in (*model.graph.input, *model.graph.output):
        value.CopyFrom(make_tensor(value.name, shapes[value.name]))
    if description.kind == "rollout":
        model.graph.CopyFrom(roll_out(model.graph, description))
    model.producer_name, model.producer_version = "spatiotemporal-zoo", description.zoo
    onnx.helper.set_model_props(model, {KEY: description.model_dump_json()})
    return model.SerializeToString()


def _explain(error: BaseException | None) -> str:
    """Name the operator that has no equivalent, from the chain of exceptions of torch.onnx."""
    last = "unknown reason"
    while error is not None:
        if match := re.search(r"OpOverload\(op='([\w.:]+)'", str(error)):
            return f"ONNX has no operator for {match[1]}"
        last = (str(error).strip() or last).splitlines()[0][:300]
        error = error.__cause__ or error.__context__
    return last
