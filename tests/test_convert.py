"""Conversion of checkpoints of the MS-RNN repository, compared with its own forecasts."""

import json
import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from zoo.convert import convert
from zoo.convert.msrnn import CELLS
from zoo.network import Network
from zoo.plugins import names
from zoo.registry import find_cell, find_topology
from zoo.weights import load_weights

HERE = Path(__file__).parent / "golden"

#: Architectures by the name of the published network in the metadata.
ARCHITECTURES = {
    "ConvLSTM": "convlstm",
    "TrajGRU": "trajgru",
    "PredRNN": "predrnn",
    "PredRNN++": "predrnnpp",
    "PredRNN-V2": "predrnnv2",
    "MIM": "mim",
    "MotionRNN": "motionrnn",
    "PrecipLSTM": "preciplstm",
    "CMS-LSTM": "cmslstm",
    "MoDeRNN": "modernn",
    "MK-LSTM": "mklstm",
}
ARCHITECTURES |= {f"MS-{name}": f"ms-{arch}" for name, arch in ARCHITECTURES.items()}
ARCHITECTURES |= {
    "MS-LSTM": "mslstm",
    "MS-ConvLSTM-WO-Skip": "noskip",
    "MS-ConvLSTM-UNet3+": "unet3plus",
    "MS-ConvLSTM-FC": "full",
}


def golden_files():
    """Two files are in the repository; ZOO_GOLDEN names a folder with all of them."""
    folder = Path(os.environ["ZOO_GOLDEN"], "msrnn") if "ZOO_GOLDEN" in os.environ else HERE
    files = sorted(folder.glob("*.safetensors"))
    skipped = [] if "ZOO_GOLDEN" in os.environ else ["ZOO_GOLDEN is not set"]
    return [pytest.param(file, id=file.stem) for file in files] + [
        pytest.param(None, id="others", marks=pytest.mark.skip(reason=why)) for why in skipped
    ]


def arguments(metadata):
    """Arguments to convert a golden file."""
    name = ARCHITECTURES[metadata["model"]]
    if name in names("topologies"):
        return {"arch": "convlstm", "topology": name}
    if name.endswith("preciplstm"):
        return {"arch": name, "options": {"window": int(metadata["la_num"])}}
    return {"arch": name}


def read_golden(file):
    with safe_open(file, "pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118


def run(model, golden, metadata):
    """Return all one-step outputs, (T−1, B, C, H, W), and the auxiliary loss."""
    given = int(metadata["in_len"])
    if metadata["feeding"].startswith("teacher"):
        given = golden["__input__"].shape[1] - 1
    frames = golden["__input__"][:, :given].to(next(model.parameters()).dtype)
    with torch.no_grad():
        outcome = model.rollout(frames, golden["__output__"].shape[0] + 1 - given)
    return outcome.frames.transpose(0, 1), outcome.loss


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("file", golden_files())
def test_converted_checkpoint_reproduces_golden_forecast(file, dtype, tmp_path):
    golden, metadata = read_golden(file)
    converted = convert("msrnn", file, tmp_path / "model", **arguments(metadata))
    model = zoo.load(f"local-dir:{tmp_path / 'model'}")
    assert model.config == converted.config
    if dtype == torch.float64:  # the file holds the sums of biases in float64
        load_weights(model.double().network, tmp_path / "model" / "model.safetensors")
    bound = 1e-9 if dtype == torch.float64 else 1e-4 if "Precip" in file.stem else 2e-5
    outputs, _ = run(model, golden, metadata)
    expected = golden["__output64__"]
    assert outputs.shape == expected.shape
    assert (outputs - expected).abs().max() < bound * expected.abs().max()
    if "__decouple_loss__" in golden:
        outputs, loss = run(model.train(), golden, metadata)
        decouple = golden["__decouple64__"].sum(dim=(1, 3)).mean()  # (T−1, L, B, C)
        torch.testing.assert_close(loss.mean().double(), 0.01 * decouple, rtol=bound, atol=0)
        whole = golden["__loss__"][0].to(dtype)  # stored in float32
        error = outputs - golden["__input__"][:, 1:].transpose(0, 1)
        error = (error**2 + error.abs()).sum(dim=(2, 3, 4)).mean()
        torch.testing.assert_close(error + loss.mean(), whole, rtol=1e-5, atol=0)


def publish(arch, topology="stack", stem="lstm", hidden=4, layers=6, **options):
    """Return a random state dict of the repository, with sizes from our network and its table."""
    cell, _ = find_cell(arch)
    network = Network(cell, find_topology(topology)[0](layers), hidden=hidden, **options)
    spec, published = CELLS[arch], {}
    joins = spec.joins(f"rnns.{stem}", layers)
    for name, tensor in network.state_dict().items():
        module, _, kind = name.rpartition(".")
        join = joins[module]
        for part in join.parts:
            shape = list(tensor.shape)
            if join.axis == 0:
                shape[0] //= len(join.parts)
            elif kind == "weight":
                shape[1] //= len(join.parts)
            if part.gates:
                shape[0] = shape[0] // len(part.keep) * len(part.gates)
            published[f"{part.name}.{kind}"] = torch.randn(shape)
    return published


def write(path, tensors):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("topology", names("topologies"))
@pytest.mark.parametrize("arch", CELLS)
def test_every_network_is_converted(arch, topology, tmp_path):
    stem = "lstm" if topology in ("stack", "mirror") else "lstms"
    sizes = {"kernel_sizes": (3, 5)} if arch == "mklstm" else {"kernel_size": 5}
    file = write(tmp_path / "f.pth", publish(arch, topology, stem, 8, in_channels=2, **sizes))
    options = {"window": 3} if arch == "preciplstm" else {}
    converted = convert(
        "msrnn", file, tmp_path / "model", arch=arch, topology=topology, options=options
    )
    config = zoo.load(f"local-dir:{tmp_path / 'model'}").config
    assert (config.cell, config.topology) == (arch, topology)
    assert (config.hidden, config.in_channels, config.layers) == (8, 2, 6)
    assert {**config.options, **sizes}.items() >= options.items()
    assert config.options.get("kernel_size", 5) == 5
    assert config.options.get("published_order", True)
    assert config.data == zoo.Data()
    assert all("gate f" in name for name in converted.dropped)


def test_sizes_of_options_are_inferred(tmp_path):
    for arch, option, value in (("trajgru", "links", 7), ("motionrnn", "motion_kernel", 5)):
        file = write(tmp_path / f"{arch}.pth", publish(arch, hidden=8, **{option: value}))
        config = convert("msrnn", file, tmp_path / arch, arch=arch).config
        assert config.options[option] == value


def in_one_buffer(tensors):
    """Return the tensors as views of one buffer, like flattened parameters."""
    buffer = torch.cat([tensor.flatten() for tensor in tensors.values()])
    pieces = buffer.split([tensor.numel() for tensor in tensors.values()])
    shapes = [tensor.shape for tensor in tensors.values()]
    return dict(zip(tensors, map(torch.Tensor.view, pieces, shapes), strict=True))


@pytest.fixture
def published():
    return publish("predrnn", layers=3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        OrderedDict,
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": {f"module.{n}": t for n, t in tensors.items()}, "step": 1},
        lambda tensors: {"state_dict": {f"model.{n}": t for n, t in tensors.items()}},
        lambda tensors: {n: torch.nn.Parameter(t) for n, t in tensors.items()},
        in_one_buffer,
    ],
    ids=["plain", "ordered", "ddp", "lightning", "accelerate", "model", "parameters", "flat"],
)
@pytest.mark.parametrize("suffix", ["pth", "pt", "ckpt"])
def test_wrappers_of_trainers_are_removed(published, wrap, suffix, tmp_path):
    plain = write(tmp_path / "plain.safetensors", published)
    convert("msrnn", plain, tmp_path / "expected", arch="predrnn")
    convert(
        "msrnn", write(tmp_path / f"f.{suffix}", wrap(published)), tmp_path / "got", arch="predrnn"
    )
    expected, got = weights(tmp_path / "expected"), weights(tmp_path / "got")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_summed_biases_are_stored_in_float64(published, tmp_path):
    convert("msrnn", write(tmp_path / "f.pth", published), tmp_path / "model", arch="predrnn")
    got = weights(tmp_path / "model")
    biases = [published[f"rnns.lstm.0._conv_{name}.bias"].double() for name in ("x2h", "h2h")]
    assert torch.equal(got["layers.0.gates.bias"], sum(biases))
    assert got["layers.0.gates.weight"].dtype == got["layers.0.mix.bias"].dtype == torch.float32


def test_float64_tensors_stay_float64(published, tmp_path):
    double = {name: tensor.double() for name, tensor in published.items()}
    convert("msrnn", write(tmp_path / "f.pth", double), tmp_path / "model", arch="predrnn")
    assert {tensor.dtype for tensor in weights(tmp_path / "model").values()} == {torch.float64}


def test_conversion_leaves_the_random_state_unchanged(published, tmp_path):
    file = write(tmp_path / "f.pth", published)
    before = torch.get_rng_state()
    convert("msrnn", file, tmp_path / "model", arch="predrnn")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arch", "modules", "reason"),
    [
        ("predrnnpp", ["0._conv_x", "2._conv_z"], "highway"),
        ("mim", ["0._conv_x2h_n", "0._conv_s2o"], "bottom layer"),
        ("motionrnn", ["2._conv_u", "2._deconv_dec", "0._conv_diff2o"], ""),
    ],
)
def test_unused_weights_are_dropped_with_a_reason(arch, modules, reason, tmp_path):
    published = publish(arch, layers=3, hidden=8)
    dead = [f"rnns.lstm.{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    file = write(tmp_path / "f.pth", published | {name: torch.zeros(3) for name in dead})
    dropped = convert("msrnn", file, tmp_path / "model", arch=arch).dropped
    whole = {name: why for name, why in dropped.items() if "gate" not in name}
    assert sorted(whole) == sorted(dead)
    assert all(reason in why for why in whole.values())
    if arch != "predrnnpp":
        assert "rnns.lstm.1._conv_x2h.bias, gate f" in dropped


class Code:
    def __reduce__(self):
        return os.system, ("touch written",)


@pytest.fixture
def refuse(tmp_path, monkeypatch, cli):
    """Check that zoo convert fails with one line with all words, and writes nothing.

    The test runs in an empty folder.
    """
    monkeypatch.chdir(tmp_path)

    def check(arguments, *words):
        before = sorted(Path().rglob("*"))
        message = cli.fail("convert", *arguments)
        for word in words:
            assert word in message
        assert sorted(Path().rglob("*")) == before
        return message

    return check


def bad_tensors(change):
    tensors = publish("predrnn", layers=3)
    change(tensors)
    return tensors


class TestBadInput:
    def test_missing_file(self, refuse):
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "out"], "f.pth")

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    @pytest.mark.parametrize("where", [lambda code: code, lambda code: {"state_dict": {"a": code}}])
    def test_code(self, refuse, legacy, where):
        torch.save(where(Code()), "f.pth", _use_new_zipfile_serialization=not legacy)
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "out"], "f.pth", "code", "system")

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_bare_pickle_with_code(self, refuse, protocol):
        Path("f.pth").write_bytes(pickle.dumps(Code(), protocol))
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "out"], "f.pth")
        assert not Path("written").exists()

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize("kept", [0, 1, 20, 500, 2000, -1])
    def test_truncated_file(self, refuse, published, suffix, kept):
        file = write(Path(f"f.{suffix}"), published)
        file.write_bytes(file.read_bytes()[:kept])
        refuse(["msrnn", file, "--arch", "predrnn", "-o", "out"], str(file))

    @pytest.mark.parametrize(
        "content",
        [
            None,
            {},
            [1, 2],
            {"a": 1},
            {"state_dict": {"a": "b"}},
            {"embed.conv_embed.weight": torch.ones(3, dtype=torch.long)},
            torch.zeros(3),
        ],
        ids=["none", "empty", "list", "number", "words", "integers", "tensor"],
    )
    def test_checkpoint_without_weights(self, refuse, content):
        torch.save(content, "f.pth")
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "out"], "f.pth", "state dict")

    def test_checkpoint_of_another_code_base(self, refuse):
        write(Path("f.pth"), {"cell_list.0.conv_x.0.weight": torch.zeros(4, 4, 3, 3)})
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "out"], "MS-RNN", "cell_list")

    @pytest.mark.parametrize(("arch", "prefix"), [(a, p) for a in CELLS for p in ("", "ms-")])
    def test_wrong_architecture(self, refuse, arch, prefix):
        write(Path("f.pth"), publish(arch, layers=3, hidden=8))
        for other in CELLS:
            if other != arch:
                words = ["msrnn", "f.pth", "--arch", prefix + other, "-o", "out"]
                message = refuse(words, f"{arch}, not {other}")
                assert message.endswith(f"--arch {prefix}{arch}")

    def test_unknown_names(self, refuse):
        write(Path("f.pth"), publish("predrnn", layers=3))
        refuse(["msrnn", "f.pth", "--arch", "predrn", "-o", "out"], "predrnn")
        refuse(["msrn", "f.pth", "--arch", "predrnn", "-o", "out"], "msrnn")
        words = ["msrnn", "f.pth", "--arch", "predrnn", "--topology", "mirrored", "-o", "out"]
        refuse(words, "topology", "mirror, noskip")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                lambda t: t.pop("rnns.lstm.1._conv_h2h.bias"),
                ["missing: rnns.lstm.1._conv_h2h.bias"],
            ),
            (lambda t: t.pop("embed.conv_embed.weight"), ["embed.conv_embed.weight is missing"]),
            (
                lambda t: t.update({"rnns.lstm.1.norm.weight": torch.ones(3)}),
                ["not understood: rnns.lstm.1.norm.weight"],
            ),
            (
                lambda t: t.update({"rnns.lstm.2._conv_c_m.bias": torch.ones(3)}),
                ["another shape: rnns.lstm.2._conv_c_m.bias [3]", "[4]"],
            ),
            (
                lambda t: t.update({"rnns.lstm.2._conv_h2h.bias": torch.ones(1)}),
                ["another shape: rnns.lstm.2._conv_x2h.bias [16] and ", "_conv_h2h.bias [1]"],
            ),
            (
                lambda t: t.update({"rnns.lstm.0._conv_x2h.weight": torch.ones(3)}),
                ["rnns.lstm.0._conv_x2h.weight", "[3]"],
            ),
            (
                lambda t: [t.pop(name) for name in list(t) if ".1." in name],
                ["missing: rnns.lstm.1.", "more"],
            ),
            (
                lambda t: t.update({"rnns.lstm.4096._conv_c_m.bias": torch.ones(4)}),
                ["layers", "64"],
            ),
        ],
        ids=["bias", "embed", "unknown", "shape", "broadcast", "axes", "layer", "layers"],
    )
    def test_tensors_that_do_not_fit(self, refuse, change, words):
        write(Path("f.pth"), bad_tensors(change))
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "out"], "f.pth", *words)

    def test_missing_window(self, refuse):
        write(Path("f.pth"), publish("preciplstm", layers=3))
        words = ["msrnn", "f.pth", "--arch", "preciplstm", "-o", "out"]
        for setting in ([], ["--set", "window=wide"], ["--set", "window=0"]):
            refuse(words + setting, "window", "--set window=NUMBER")

    def test_ambiguous_topology(self, refuse):
        write(Path("f.pth"), publish("convlstm", stem="lstms"))
        words = ["msrnn", "f.pth", "--arch", "ms-convlstm", "-o", "out"]
        refuse(words, "--topology", "noskip", "unet3plus", "full")

    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ("hidden=5", ["hidden=5 contradicts 4"]),
            ("kernel_size=5", ["kernel_size=5 contradicts 3"]),
            ("kernal=5", ["kernal"]),
            ("down=conv", ["resamplers.0_1.weight"]),
            ("down=narrow", ["down='narrow'"]),
            ("halvings=5", ["halvings"]),
            ('data={"low": 2}', ["low"]),
        ],
    )
    def test_settings_that_do_not_fit(self, refuse, published, setting, words):
        write(Path("f.pth"), published)
        refuse(["msrnn", "f.pth", "--arch", "ms-predrnn", "--set", setting, "-o", "out"], *words)

    def test_folder_with_other_files(self, refuse, published):
        write(Path("f.pth"), published)
        Path("out").mkdir()
        Path("out/thesis.txt").write_text("mine")
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "out"], "thesis.txt")
        refuse(["msrnn", "f.pth", "--arch", "predrnn", "-o", "f.pth"], "f.pth")


class TestCommand:
    def test_prints_dropped_tensors_and_the_architecture(self, tmp_path, monkeypatch, cli):
        monkeypatch.chdir(tmp_path)
        published = publish("predrnnpp", layers=3)
        published |= {"rnns.lstm.2._conv_x.bias": torch.zeros(8)}
        write(Path("f.pth"), published)
        words = ["convert", "msrnn", "f.pth", "--arch", "ms-predrnnpp", "-o", "out/model"]
        words += ["--set", "halvings=1", "--set", 'data={"unit": "dBZ", "high": 70}']
        printed = cli.succeed(*words)
        assert "rnns.lstm.2._conv_x.bias" in printed
        assert "highway" in printed
        assert "ms-predrnnpp, 3 layers of 4" in printed
        config = zoo.load("local-dir:out/model").config
        assert (config.halvings, config.data.unit, config.data.high) == (1, "dBZ", 70)
        again = json.loads(cli.succeed(*words, "--json"))  # into the same folder
        assert list(again["dropped"]) == ["rnns.lstm.2._conv_x.bias"]
        assert (again["folder"], again["config"]["cell"]) == ("out/model", "predrnnpp")
        assert sorted(path.name for path in Path("out/model").iterdir()) == [
            "config.json",
            "model.safetensors",
        ]

    def test_setting_without_a_value_is_refused(self, cli):
        words = ["convert", "msrnn", "f.pth", "--arch", "predrnn", "--set", "window", "-o", "out"]
        result = cli(*words)
        assert result.exit_code == 2
        assert "OPTION=VALUE" in result.output


def test_command_converts_a_golden_file(tmp_path, cli):
    file = shutil.copy(HERE / "MS-LSTM.safetensors", tmp_path)
    words = ["convert", "msrnn", file, "--arch", "mslstm", "-o", str(tmp_path / "model")]
    cli.succeed(*words)
    golden, metadata = read_golden(file)
    model = zoo.load(f"local-dir:{tmp_path / 'model'}")
    assert model.config.architecture == "ms-mklstm"
    outputs, _ = run(model, golden, metadata)
    expected = golden["__output64__"]
    assert (outputs - expected).abs().max() < 2e-5 * expected.abs().max()
