"""The ONNX graph of a rollout: a loop around the graph of a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.exporting.description import Axis, Description, split_axis

__all__ = ["make_tensor", "roll_out"]


def roll_out(step: Any, description: Description) -> Any:
    """Return a graph from past frames to the forecast.

    Args:
        step: The graph of a step, from "frame" and the state to "prediction" and the next state.
        description: The description of the rollout.
    """
    from onnx import TensorProto, helper

    given, horizon = description.input_frames or 1, description.horizon or 1
    batch, *frame = description.frame_shape
    body, main = _Nodes("loop"), _Nodes("rollout")
    # The frame of a step: the input frame if there is one, and otherwise the last prediction.
    index = body.add("Min", "step", body.constant(given - 1))
    known = body.add("Gather", "past", index, axis=1)
    is_known = body.add("Less", "step", body.constant(given))
    body.add("Where", is_known, known, "last", output="frame")
    carried = ["last", *(state.name for state in description.states)]
    following = ["prediction", *(state.next for state in description.states)]
    step_inputs = {value.name: value for value in step.input}
    loop = helper.make_graph(
        [
            *body.nodes,
            *step.node,
            helper.make_node("Identity", ["go_on"], ["still_go_on"]),
            helper.make_node("Identity", ["prediction"], ["made"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            make_tensor("last", description.frame_shape),
            *(step_inputs[name] for name in carried[1:]),
        ],
        [
            helper.make_tensor_value_info("still_go_on", TensorProto.BOOL, []),
            *step.output,
            make_tensor("made", description.frame_shape),
        ],
    )
    shape = main.add("Shape", "past")
    sizes = {
        name: main.add("Gather", shape, main.constant([axis]), axis=0)
        for name, axis in (("batch", 0), ("height", 3), ("width", 4))
    }
    first = main.add("Gather", "past", main.constant(0), axis=1)
    zeros = [main.zeros(state.shape, sizes) for state in description.states]
    steps, go_on = main.constant(given - 1 + horizon), main.constant(True)
    ends = [f"final_{name}" for name in following]
    main.nodes.append(
        helper.make_node("Loop", [steps, go_on, first, *zeros], [*ends, "predictions"], body=loop)
    )
    last = main.add("Slice", "predictions", main.constant([given - 1]), main.constant([2**31]))
    main.add("Transpose", last, output="forecast", perm=[1, 0, 2, 3, 4])
    return helper.make_graph(
        main.nodes,
        "rollout",
        [make_tensor("past", (batch, given, *frame))],
        [make_tensor("forecast", (batch, horizon, *frame))],
        step.initializer,
    )


def make_tensor(name: str, shape: tuple[Axis, ...]) -> Any:
    """Return the declaration of a float32 tensor with named axes."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


class _Nodes:
    """Nodes of a graph under construction, with names that start with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node, and return the name of its output."""
        from onnx import helper

        output = output or f"{self.prefix}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value: int | bool | list[int]) -> str:
        """Append a constant."""
        from onnx import numpy_helper

        return self.add("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def zeros(self, shape: tuple[Axis, ...], sizes: dict[str, str]) -> str:
        """Append zeros of a shape that follows from the sizes of the frames."""
        from onnx import numpy_helper

        axes = [self._size(axis, sizes) for axis in shape]
        zero = numpy_helper.from_array(np.zeros(1, np.float32))
        return self.add("ConstantOfShape", self.add("Concat", *axes, axis=0), value=zero)

    def _size(self, axis: Axis, sizes: dict[str, str]) -> str:
        if isinstance(axis, int):
            return self.constant([axis])
        factor, source, divisor = split_axis(axis)
        rounded = self.add("Add", sizes[source], self.constant([divisor - 1]))
        quotient = self.add("Div", rounded, self.constant([divisor]))
        return self.add("Mul", quotient, self.constant([factor]))
