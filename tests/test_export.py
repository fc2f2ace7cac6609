"""Exported files give the forecasts of PyTorch, describe themselves, and are checked when read."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import FEWER_REPETITIONS, Cli
from torch import nn

import zoo
import zoo.hub
from zoo.errors import ConfigError, DataError, HubError
from zoo.exporting import export as exporting
from zoo.exporting.description import KEY, axis_size
from zoo.exporting.onnx_model import OnnxForecaster
from zoo.exporting.program import state_tensors
from zoo.network import Network
from zoo.registry import architectures, heads
from zoo.topology import stack

#: The data of the small models: few frames keep the comparison short.
DATA = {"size": [8, 8], "input_frames": 2, "horizon": 2}


def create(architecture: str, **arguments) -> zoo.Forecaster:
    """A small network with large weights, so that an error in any gate shows."""
    torch.manual_seed(0)
    options = FEWER_REPETITIONS.get(architecture.removeprefix("ms-"), {})
    layers = 3 if architecture.startswith("ms-") else 2
    arguments = {"hidden": 4, "layers": layers, "data": DATA, **options, **arguments}
    model = zoo.create(architecture, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def assert_same_forecast(model: zoo.Forecaster, file: Path, *shape: int) -> None:
    frames = noise(*shape)
    expected = model.predict(frames, 3)
    np.testing.assert_allclose(OnnxForecaster(file).predict(frames, 3), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", [*(name for name in architectures() if "-" not in name), "ms-motionrnn"]
)
def test_every_cell_exports(architecture: str, tmp_path: Path) -> None:
    """Frames of other sizes than in training, and of a size that needs no padding."""
    model = create(architecture)
    file = zoo.export(model, tmp_path / "model.onnx")
    assert_same_forecast(model, file, 3, 2, 1, 7, 10)
    assert_same_forecast(model, file, 1, 2, 1, 12, 8)


@pytest.mark.slow
@pytest.mark.parametrize("head", [name for name in heads() if name != "frame"])
def test_every_head_exports(head: str, tmp_path: Path) -> None:
    model = create("ms-convlstm", head=head, patch=2, in_channels=3)
    file = zoo.export(model, tmp_path / "model.onnx")
    assert_same_forecast(model, file, 2, 2, 3, 9, 14)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"down": "average", "up": "nearest"},
        {"down": "conv", "up": "conv", "embed": False},
        {"topology": "full", "layers": 5, "hidden": 2},
    ],
    ids=str,
)
def test_every_resampling_exports(options: dict, tmp_path: Path) -> None:
    model = create("ms-convlstm", **options)
    assert_same_forecast(model, zoo.export(model, tmp_path / "model.onnx"), 2, 2, 1, 9, 14)


@pytest.mark.slow
def test_model_for_one_size_exports(tmp_path: Path) -> None:
    model = create("ms-predrnn", norm=True, size=[9, 14])
    file = zoo.export(model, tmp_path / "model.onnx")
    assert_same_forecast(model, file, 3, 2, 1, 9, 14)
    with pytest.raises(DataError, match="9×14"):
        OnnxForecaster(file).predict(noise(2, 8, 8))
    zoo.export(model, tmp_path / "rollout.pt2", horizon=1, input_frames=1)


@pytest.fixture(scope="module")
def model() -> zoo.Forecaster:
    """A small network with patches, a pyramid, and frames that need padding."""
    return create("ms-convlstm", patch=2)


@pytest.fixture(scope="module")
def file(model: zoo.Forecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its exported step."""
    return zoo.export(model, tmp_path_factory.mktemp("onnx") / "model.onnx", license="apache-2.0")


def test_every_frame_size_gives_the_same_forecast(model: zoo.Forecaster, file: Path) -> None:
    for height, width in ((1, 1), (1, 5), (4, 4), (5, 9), (16, 3)):
        assert_same_forecast(model, file, 1, 3, 1, height, width)


def test_description_has_units_sizes_and_license(model: zoo.Forecaster, file: Path) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    description = json.loads(metadata[KEY])
    assert description["kind"] == "step"
    assert description["license"] == "apache-2.0"
    assert zoo.Config(**description["config"]) == model.config
    assert description["config"]["data"]["unit"] == "1"


def test_states_are_described_by_the_axes_of_the_inputs(file: Path) -> None:
    graph = onnx.load(file).graph
    names = [state.name for state in OnnxForecaster(file).description.states]
    assert [value.name for value in graph.input] == ["frame", *names]
    axes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in graph.input
    }
    assert axes["frame"] == ["batch", 1, "height", "width"]
    assert axes["layers_0_0"] == ["batch", 4, "2*ceil(height/4)", "2*ceil(width/4)"]
    assert axes["layers_1_0"] == ["batch", 4, "1*ceil(height/4)", "1*ceil(width/4)"]


@pytest.mark.parametrize("name", [*architectures(), "unet3plus-motionrnn"])
def test_shapes_of_states_follow_from_the_frame(name: str) -> None:
    network = create(name, layers=5, patch=2, hidden=2).network
    for height, width in ((1, 1), (8, 24), (13, 50), (33, 17)):
        frame = torch.empty(3, 1, height, width, device="meta")
        tensors = [
            t for t in torch.utils._pytree.tree_leaves(network.init_state(frame)) if t is not None
        ]
        sizes = {"batch": 3, "height": height, "width": width}
        described = [[axis_size(a, sizes) for a in s.shape] for s in state_tensors(network)]
        assert described == [list(t.shape) for t in tensors]


@pytest.mark.slow
def test_units_are_converted(tmp_path: Path) -> None:
    """Reflectivity, missing values, labels and uint8 are handled as by the model."""
    rain = {**DATA, "unit": "mm/h", "reflectivity": {}, "missing": True, "time_step": 300}
    model = create("convlstm", data=rain)
    exported = OnnxForecaster(zoo.export(model, tmp_path / "rain.onnx"))
    frames = noise(3, 8, 8) * 20
    frames[:, 2, 3] = np.nan
    frames[0, 4, 4] = np.nan
    got, expected = exported.predict(frames), model.predict(frames)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(got[:, 2, 3]).all()
    with pytest.raises(DataError, match="mm/h"):
        exported.predict(frames, unit="dBZ")
    with pytest.raises(DataError, match="time step"):
        exported.predict(frames, time_step="10min")


def test_uint8_stays_uint8(model: zoo.Forecaster, file: Path) -> None:
    frames = (noise(3, 9, 7) * 255).astype(np.uint8)
    forecast = OnnxForecaster(file).predict(frames)
    assert forecast.dtype == np.uint8
    assert np.abs(forecast.astype(int) - model.predict(frames)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_rollout_gives_the_same_forecast(
    model: zoo.Forecaster, suffix: str, tmp_path: Path
) -> None:
    file = zoo.export(model, tmp_path / f"rollout{suffix}", horizon=3, input_frames=2)
    frames = noise(1, 2, 1, 9, 7)
    expected = model.predict(frames, 3)
    if suffix == ".onnx":
        rollout = OnnxForecaster(file)
        np.testing.assert_allclose(rollout.predict(frames, 3), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(rollout.predict(frames, 2), expected[:, :2], rtol=0, atol=1e-5)
        with pytest.raises(ConfigError, match="horizon"):
            rollout.predict(frames, 4)
        with pytest.raises(DataError, match="--input-frames 2"):
            rollout.predict(noise(1, 3, 1, 9, 7))
        return
    files = {KEY: ""}
    forecast = torch.export.load(file, extra_files=files).module()(torch.from_numpy(frames))
    np.testing.assert_allclose(forecast.detach().clip(0, 1), expected, rtol=0, atol=1e-5)
    assert json.loads(files[KEY])["horizon"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ms-convlstm", "cmslstm"])
def test_pt2_takes_frames_of_any_size(name: str, tmp_path: Path) -> None:
    model = create(name)
    program = torch.export.load(zoo.export(model, tmp_path / "model.pt2")).module()
    for size in ((1, 1, 1, 2), (3, 1, 9, 14)):
        frame = torch.rand(size)
        states = model.network.init_state(frame)
        leaves = tuple(t for t in torch.utils._pytree.tree_leaves(states) if t is not None)
        with torch.no_grad():
            expected, _ = model.step(frame)
            torch.testing.assert_close(program(frame, leaves)[0], expected, rtol=0, atol=1e-6)


def test_exporting_does_not_change_the_model(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_convert", lambda *_: file.read_bytes())
    model = create("ms-convlstm", patch=2).train().double()
    zoo.export(model, tmp_path / "model.onnx")
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in model.parameters())


class Bessel(zoo.RecurrentCell):
    """A cell with an operator that ONNX does not have."""

    def init_state(self, x):
        return self.zeros(x)

    def forward(self, x, state):
        h = torch.special.bessel_j0(x[:, : self.channels] + state)
        return zoo.Step(h, h)


class Decides(Bessel):
    def forward(self, x, state):
        h = x if x.sum() > 0 else state
        return zoo.Step(h, h)


class StartsAtOne(Bessel):
    def init_state(self, x):
        return self.zeros(x) + 1


def network_of(cell: type[zoo.RecurrentCell], topology=stack) -> zoo.Forecaster:
    return zoo.Forecaster(Network(cell, topology(3), hidden=2), zoo.Config(cell="toy", data=DATA))


@pytest.mark.slow
def test_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bessel_j0") as raised:
        zoo.export(network_of(Bessel), tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("cell", [Decides, StartsAtOne])
def test_cell_that_breaks_its_contract_is_rejected(cell: type, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        zoo.export(network_of(cell), tmp_path / "model.pt2")
    assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())


def test_file_that_differs_from_the_model_is_not_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_convert", lambda *_: file.read_bytes())
    other = create("ms-convlstm", patch=2)
    nn.init.constant_(other.network.head.bias, 0.1)
    with pytest.raises(ConfigError, match="in prediction 1"):
        zoo.export(other, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["model.txt", "no/model.onnx", "folder.onnx", "model"])
def test_file_that_cannot_be_written_is_rejected_at_once(
    model: zoo.Forecaster, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_convert", lambda *_: pytest.fail("the work began"))
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConfigError):
        zoo.export(model, tmp_path / target)


def test_weights_beyond_the_limit_of_onnx_are_rejected(
    model: zoo.Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.exporting.export.LARGEST", 64 << 20)
    with pytest.raises(ConfigError, match="pt2"):
        zoo.export(model, tmp_path / "model.onnx")


def changed(file: Path, target: Path, change) -> Path:
    proto = onnx.load(file)
    change(proto)
    target.write_bytes(proto.SerializeToString())
    return target


def refer_to_another_file(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def refer_from_a_subgraph(proto: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    constant = onnx.helper.make_node("Constant", [], ["other"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    node = onnx.helper.make_node("If", ["frame"], [], then_branch=branch, else_branch=branch)
    proto.graph.node.append(node)


def use_an_operator_of_others(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.microsoft"


def remove_the_description(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]


def break_the_description(proto: onnx.ModelProto) -> None:
    proto.metadata_props[0].value = "{"


def change_the_format(proto: onnx.ModelProto) -> None:
    proto.metadata_props[0].value = proto.metadata_props[0].value.replace(
        '"format":1', '"format":9'
    )


def remove_an_operator(proto: onnx.ModelProto) -> None:
    del proto.graph.node[3]


@pytest.mark.parametrize(
    "change",
    [
        refer_to_another_file,
        refer_from_a_subgraph,
        use_an_operator_of_others,
        remove_the_description,
        break_the_description,
        change_the_format,
        remove_an_operator,
    ],
)
def test_invalid_file_is_rejected(change, file: Path, tmp_path: Path) -> None:
    with pytest.raises((HubError, ConfigError)) as raised:
        OnnxForecaster(changed(file, tmp_path / "changed.onnx", change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [0, 10, 1000, -10])
def test_truncated_file_is_rejected(length: int, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.onnx"
    path.write_bytes(file.read_bytes()[:length])
    with pytest.raises(HubError):
        OnnxForecaster(path)


def test_file_that_is_too_large_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as sparse:
        sparse.truncate(2**31)
    with pytest.raises(HubError, match="bytes"):
        OnnxForecaster(path)


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(HubError):
        OnnxForecaster(tmp_path / "missing.onnx")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and one tiny built-in model."""
    cards = tmp_path / "cards"
    zoo.save(create("convlstm", patch=2), cards / "convlstm-tiny")
    (cards / "convlstm-tiny" / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    monkeypatch.setattr(zoo.hub, "builtin_folder", lambda: cards)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    np.save("clip.npy", (noise(5, 1, 9, 14) * 255).astype(np.uint8))
    return tmp_path / "here"


@pytest.mark.slow
def test_command_exports_a_file_that_zoo_predict_reads(cli: Cli, here: Path) -> None:
    cli.succeed("export", "convlstm-tiny")
    description = OnnxForecaster(here / "convlstm-tiny.onnx").description
    assert description.license == "cc0-1.0"
    assert description.source is not None
    assert description.source.startswith("convlstm-tiny")
    for name, output in (("convlstm-tiny", "torch.npy"), ("convlstm-tiny.onnx", "onnx.npy")):
        cli.succeed("predict", name, "clip.npy", "-o", output, "--horizon", 3)
    got, expected = np.load("onnx.npy"), np.load("torch.npy")
    assert got.dtype == expected.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= 1
    cli.succeed("predict", "convlstm-tiny.onnx", "clip.npy", "-o", "future.gif")


def test_command_rejects_bad_input(cli: Cli, here: Path) -> None:
    assert "nope" in cli.fail("export", "nope")
    assert "model.txt" in cli.fail("export", "convlstm-tiny", "-o", "model.txt")
    assert "pt2" in cli.fail("export", "convlstm-tiny", "--format", "pt2", "-o", "model.onnx")
    assert "horizon" in cli.fail("export", "convlstm-tiny", "--input-frames", 3)
    assert "no.onnx" in cli.fail("predict", "no.onnx", "clip.npy", "-o", "future.npy")
    Path("other.onnx").write_bytes(b"not a model")
    assert "other.onnx" in cli.fail("predict", "other.onnx", "clip.npy", "-o", "future.npy")
    arguments = ("other.onnx", "clip.npy", "-o", "future.npy", "--device", "cuda")
    assert "--device" in cli.fail("predict", *arguments)
    assert sorted(os.listdir()) == ["clip.npy", "other.onnx"]


SCRIPT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from zoo.cli import main
main()
"""


def run(blocked: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which some modules cannot be imported."""
    command = [sys.executable, "-c", SCRIPT.format(blocked=blocked), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_zoo_predict_with_a_file_needs_no_torch(here: Path, file: Path) -> None:
    for output in ("future.npy", "future.gif"):
        ran = run(["torch", "torchmetrics"], "predict", file, "clip.npy", "-o", output)
        assert ran.returncode == 0, ran.stderr
        assert (here / output).is_file()


def test_missing_runtime_names_the_extra(here: Path, file: Path) -> None:
    ran = run(["onnxruntime", "torch"], "predict", file, "clip.npy", "-o", "future.npy")
    assert ran.returncode == 2
    assert "spatiotemporal-zoo[export]" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_missing_exporter_names_the_extra(
    model: zoo.Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"spatiotemporal-zoo\[export\]"):
        zoo.export(model, tmp_path / "model.onnx")


PAGE = (Path(__file__).parents[1] / "docs" / "export.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first block of a language in the documentation."""
    match = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


@pytest.fixture
def expected(
    model: zoo.Forecaster, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """The forecast of 10 frames that a program in the documentation must make.

    It finds the model and the frames in the current folder.
    """
    monkeypatch.chdir(tmp_path)
    shutil.copy(file, "model.onnx")
    frames = (noise(3, 1, 9, 14) * 255).astype(np.uint8)
    np.save("clip.npy", frames)
    past = frames.astype(np.float32) / 255
    past.tofile("past.f32")
    return model.predict(past, 10)


def test_documented_python_makes_the_forecast(expected: np.ndarray) -> None:
    exec(compile(block("python"), "export.md", "exec"), {})
    np.testing.assert_allclose(np.load("future.npy")[:, 0], expected, rtol=0, atol=1e-5)


def assert_written_forecast(expected: np.ndarray) -> None:
    future = np.fromfile("future.f32", np.float32).reshape(expected.shape)
    np.testing.assert_allclose(future.clip(0, 1), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_documented_cpp_makes_the_forecast(expected: np.ndarray) -> None:
    """The folder ZOO_ONNXRUNTIME contains include/ and lib/ of an ONNX Runtime for C++."""
    root = Path(os.environ.get("ZOO_ONNXRUNTIME", "/usr"))
    headers = [*root.glob("include/**/onnxruntime_cxx_api.h")]
    compiler = shutil.which("c++")
    if not headers or compiler is None:
        pytest.skip("needs a C++ compiler and ONNX Runtime with headers: set ZOO_ONNXRUNTIME")
    Path("forecast.cpp").write_text(block("cpp"), encoding="utf-8")
    paths = [f"-I{headers[0].parent}", f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}"]
    command = [compiler, "-std=c++17", "forecast.cpp", *paths, "-lonnxruntime", "-o", "forecast"]
    subprocess.run(command, check=True)
    with open("past.f32", "rb") as past, open("future.f32", "wb") as future:
        subprocess.run(
            ["./forecast", "model.onnx", "9", "14"], stdin=past, stdout=future, check=True
        )
    assert_written_forecast(expected)


@pytest.mark.slow
def test_documented_javascript_makes_the_forecast(expected: np.ndarray) -> None:
    """NODE_PATH is a folder with the npm package onnxruntime-node or onnxruntime-web."""
    folders = os.environ.get("NODE_PATH", "").split(os.pathsep)
    packages = [
        package
        for package in ("onnxruntime-node", "onnxruntime-web")
        if any(folder and Path(folder, package).is_dir() for folder in folders)
    ]
    if not packages or shutil.which("node") is None:
        pytest.skip("needs Node.js and ONNX Runtime: npm install onnxruntime-node, set NODE_PATH")
    script = block("js").replace("onnxruntime-node", packages[0])
    Path("forecast.js").write_text(script, encoding="utf-8")
    arguments = ["model.onnx", "9", "14", "past.f32", "future.f32"]
    subprocess.run(["node", "forecast.js", *arguments], check=True)
    assert_written_forecast(expected)


def test_openvino_makes_the_forecast(expected: np.ndarray) -> None:
    openvino = pytest.importorskip("openvino")
    options = {"INFERENCE_PRECISION_HINT": "f32"}  # elsewhere bfloat16, where the CPU has it
    compiled = openvino.Core().compile_model("model.onnx", "CPU", options)
    sizes = {"batch": 1, "height": 9, "width": 14}
    states = OnnxForecaster(Path("model.onnx")).description.states
    values = [np.zeros([axis_size(a, sizes) for a in s.shape], np.float32) for s in states]
    past = np.fromfile("past.f32", np.float32).reshape(3, 1, 1, 9, 14)
    predictions: list[np.ndarray] = []
    for t in range(len(past) + 9):
        frame = past[t] if t < len(past) else predictions[-1]
        results = compiled([frame, *values])
        prediction, *values = (results[i].copy() for i in range(1 + len(states)))
        predictions.append(prediction)
    forecast = np.concatenate(predictions[-10:]).clip(0, 1)
    np.testing.assert_allclose(forecast, expected, rtol=0, atol=1e-5)
