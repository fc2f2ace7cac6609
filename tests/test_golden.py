"""The zoo reproduces the outputs of published code with its weights."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from zoo.convert import convert

FILES = {
    "ConvLSTM": "convlstm",
    "ConvLSTM.teacher": "convlstm",
    "MS-ConvLSTM": "ms-convlstm",
    "PredRNN": "predrnn",
    "MS-PredRNN": "ms-predrnn",
    "MK-LSTM": "mklstm",
    "MS-LSTM": "ms-mklstm",
}


def find(name):
    """Return the path of a reference file, from tests/golden or the folder in ZOO_GOLDEN."""
    path = Path(__file__).parent / "golden" / f"{name}.safetensors"
    if not path.exists():
        if "ZOO_GOLDEN" not in os.environ:
            pytest.skip("set ZOO_GOLDEN to the folder of reference outputs")
        path = Path(os.environ["ZOO_GOLDEN"]) / "msrnn" / path.name
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FILES)
def test_published_outputs_are_reproduced(name, dtype, tmp_path):
    golden = load_file(find(name))
    convert("msrnn", find(name), tmp_path / "model", arch=FILES[name])
    model = zoo.load(f"local-dir:{tmp_path / 'model'}", dtype=dtype)
    frames, expected = golden["__input__"].to(dtype), golden["__output64__"]
    given, horizon = (6, 1) if name.endswith(".teacher") else (4, 3)
    with torch.no_grad():
        predictions = model(frames[:, :given], horizon).transpose(0, 1)
    assert predictions.shape == expected.shape
    bound = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    assert (predictions - expected).abs().max() < bound * expected.abs().max()
