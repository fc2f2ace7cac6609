"""Compare the speed of one step in PyTorch, ONNX Runtime and OpenVINO, on one thread.

`python docs/export_speed.py model.onnx` prints the table in export.md, where model.onnx is
ms-predrnn-kth. The runtimes take turns, and CPU time is measured, so that other programs on the
machine have little influence.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime
import openvino
import torch

import zoo
from zoo.exporting.description import axis_size
from zoo.exporting.onnx_model import OnnxForecaster

ROUNDS, STEPS = 9, 10
SIZES = {"batch": 1, "height": 64, "width": 64}

Advance = Callable[[list[np.ndarray]], list[np.ndarray]]


def in_pytorch(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that reads frames (T, 1, C, H, W) and predicts the next after each."""
    model = zoo.load(name)

    def run(frames: np.ndarray) -> np.ndarray:
        state, predictions = None, []
        with torch.no_grad():
            for frame in torch.from_numpy(frames):
                prediction, state = model.step(frame, state)
                predictions.append(prediction.numpy())
        return np.stack(predictions)

    return run


def with_states(advance: Advance, file: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return such a function for a runtime that maps all inputs to all outputs."""
    states = OnnxForecaster(Path(file)).description.states

    def run(frames: np.ndarray) -> np.ndarray:
        values = [np.zeros([axis_size(a, SIZES) for a in s.shape], np.float32) for s in states]
        predictions = []
        for frame in frames:
            prediction, *values = advance([frame, *values])
            predictions.append(prediction)
        return np.stack(predictions)

    return run


def in_onnxruntime(file: str) -> Advance:
    """Open the file with ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda values: session.run(None, dict(zip(names, values, strict=True)))


def in_openvino(file: str, precision: str) -> Advance:
    """Open the file with OpenVINO."""
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(file, "CPU", options)
    request = model.create_infer_request()

    def advance(values: list[np.ndarray]) -> list[np.ndarray]:
        results = request.infer(dict(enumerate(values)))
        return [results[i].copy() for i in range(len(values))]

    return advance


def main(file: str) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    runs = {
        "PyTorch, eager": in_pytorch("ms-predrnn-kth"),
        "ONNX Runtime": with_states(in_onnxruntime(file), file),
        "OpenVINO, float32": with_states(in_openvino(file, "f32"), file),
    }
    frames = np.random.default_rng(0).random((STEPS, 1, 1, 64, 64), dtype=np.float32)
    expected = {name: run(frames) for name, run in runs.items()}  # and a warm-up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.process_time()
            run(frames)
            seconds[name].append((time.process_time() - started) / STEPS)
    eager = expected["PyTorch, eager"]
    reference = statistics.median(seconds["PyTorch, eager"])
    print("| runtime | ms of CPU a step | speed | difference |\n|---|---|---|---|")
    for name, times in seconds.items():
        median = statistics.median(times)
        difference = np.abs(expected[name] - eager).max()
        print(f"| {name} | {1e3 * median:.1f} | {reference / median:.2f} | {difference:.0e} |")


if __name__ == "__main__":
    main(sys.argv[1])
