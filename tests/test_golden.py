"""Outputs of the published code, reproduced from its own weights."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo

#: The convolutions of our cells, and the published ones that each of them joins.
JOINED = {
    "convlstm": {"gates": ["_conv_x2h", "_conv_h2h"]},
    "predrnn": {
        "gates": ["_conv_x2h", "_conv_h2h"],
        "memory_gates": ["_conv_x2h_m", "_conv_m2h_m"],
        "output_gate": ["_conv_c2o", "_conv_m2o"],
        "mix": ["_conv_c_m"],
    },
    "mklstm": {
        "gates.0": ["_conv_x2h_3", "_conv_h2h_3"],
        "gates.1": ["_conv_x2h_5", "_conv_h2h_5"],
        "output_gates.0": ["_conv_c2o_3"],
        "output_gates.1": ["_conv_c2o_5"],
        "mix": ["_conv_out"],
    },
}

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
    """Here are two of the files; the others are where ZOO_GOLDEN says."""
    path = Path(__file__).parent / "golden" / f"{name}.safetensors"
    if not path.exists():
        if "ZOO_GOLDEN" not in os.environ:
            pytest.skip("ZOO_GOLDEN names no folder of reference outputs")
        path = Path(os.environ["ZOO_GOLDEN"]) / "msrnn" / path.name
    return path


def translate(published, cell):
    """Our state dict, in float64 so that the sums of biases are exact."""
    weights = {key: value.double() for key, value in published.items()}
    joined = {"embed": ["embed.conv_embed"], "head": ["fc.conv_fc"]} | {
        f"layers.{j}.{ours}": [f"rnns.lstm.{j}.{name}" for name in theirs]
        for j in range(6)
        for ours, theirs in JOINED[cell].items()
    }
    ours = {}
    for name, parts in joined.items():
        ours[f"{name}.weight"] = torch.cat([weights[f"{part}.weight"] for part in parts], dim=1)
        ours[f"{name}.bias"] = sum(weights[f"{part}.bias"] for part in parts)
    return ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FILES)
def test_published_outputs_are_reproduced(name, dtype):
    golden = load_file(find(name))
    model = zoo.create(FILES[name], hidden=8).to(dtype).eval()
    model.network.load_state_dict(translate(golden, model.config.cell))
    frames, expected = golden["__input__"].to(dtype), golden["__output64__"]
    given, horizon = (6, 1) if name.endswith(".teacher") else (4, 3)
    with torch.no_grad():
        predictions = model(frames[:, :given], horizon).transpose(0, 1)
    assert predictions.shape == expected.shape
    bound = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    assert (predictions - expected).abs().max() < bound * expected.abs().max()
