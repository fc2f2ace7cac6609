"""What an exported file says about its model: JSON in the metadata of the file.

This module needs no torch.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from zoo.config import Config, Count, Validated

__all__ = ["KEY", "Axis", "Description", "StateTensor", "axis_size", "split_axis"]

#: The key of the description in the metadata of an ONNX file; its name in a pt2 file.
KEY = "zoo"

#: An axis of a tensor: its size, or how it follows from the frame: "batch", "height", "width" or
#: "4*ceil(height/16)". Dimensions of ONNX files have these names.
Axis = (
    int
    | Annotated[
        str, Field(pattern=r"^(batch|height|width|\d{1,9}\*ceil\((height|width)/[1-9]\d{0,8}\))$")
    ]
)


class StateTensor(Validated):
    """A tensor of the state. It is zero before the first frame.

    Attributes:
        name: the name of the input.
        next: the name of the output that is the next step's input.
        shape: its axes.
    """

    name: str
    next: str
    shape: tuple[Axis, ...]


class Description(Validated):
    """The description of an exported file.

    Attributes:
        format: the version of this format.
        kind: "step" maps a frame and the state to the next frame and state; "rollout" maps past
            frames to the forecast.
        name: the name of the model.
        license: the license of the weights, as an identifier of the Hugging Face Hub.
        source: where the weights are from.
        zoo: the version of the zoo that wrote the file.
        config: the architecture of the model, and the meaning and scaling of its data.
        input_frames: the number of frames that a rollout reads.
        horizon: the number of frames that a rollout forecasts.
        states: the state, which a rollout keeps inside.
    """

    format: Literal[1] = 1
    kind: Literal["step", "rollout"]
    name: str
    license: str | None = None
    source: str | None = None
    zoo: str
    config: Config
    input_frames: Count | None = None
    horizon: Count | None = None
    states: tuple[StateTensor, ...] = ()

    @property
    def frame_shape(self) -> tuple[Axis, ...]:
        """The axes of a frame, (B, C, H, W)."""
        size: tuple[Axis, ...] = self.config.size or ("height", "width")
        return "batch", self.config.in_channels, *size


def split_axis(axis: str) -> tuple[int, str, int]:
    """Return factor, source and divisor of an axis: "4*ceil(height/16)" is 4, "height", 16."""
    match = re.fullmatch(r"(\d+)\*ceil\((\w+)/(\d+)\)", axis)
    return (int(match[1]), match[2], int(match[3])) if match else (1, axis, 1)


def axis_size(axis: Axis, sizes: dict[str, int]) -> int:
    """Return the size of an axis, given those of "batch", "height" and "width"."""
    if isinstance(axis, int):
        return axis
    factor, source, divisor = split_axis(axis)
    return factor * -(-sizes[source] // divisor)
