"""Conversion of checkpoints of OpenSTL and predrnn-pytorch, compared with their forecasts."""

import os
from pathlib import Path

import pytest
import test_convert
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file
from test_convert import read_golden, write

import zoo
from zoo.convert import convert
from zoo.convert.openstl import CELLS
from zoo.weights import load_weights

refuse = test_convert.refuse  # a fixture

ARCHITECTURES = {
    "ConvLSTM_Model": "convlstm",
    "PredRNN_Model": "predrnn",
    "PredRNNv2_Model": "predrnnv2",
    "PredRNNpp_Model": "predrnnpp",
    "MIM_Model": "mim",
    "predrnn": "predrnn",
    "predrnn_memory_decoupling": "predrnnv2",
    "predrnn_v2": "predrnnv2",
}


def golden_files():
    """Those in the folder ZOO_GOLDEN; they are too large for the repository."""
    if "ZOO_GOLDEN" not in os.environ:
        why = "ZOO_GOLDEN is not set"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=why))]
    folder = Path(os.environ["ZOO_GOLDEN"])
    files = [file for d in ("openstl", "predrnn") for file in (folder / d).glob("*.safetensors")]
    return [pytest.param(file, id=f"{file.parent.name}-{file.stem}") for file in sorted(files)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("file", golden_files())
def test_converted_checkpoint_reproduces_golden_forecast(file, dtype, tmp_path):
    golden, metadata = read_golden(file)
    options = {}
    if golden["__input__"].shape[2] > 1:
        options["in_channels"] = golden["__input__"].shape[2]
    arch = ARCHITECTURES[metadata["model"]]
    convert(file.parent.name, file, tmp_path / "model", arch=arch, options=options)
    model = zoo.load(f"local-dir:{tmp_path / 'model'}").to(dtype)
    assert model.config.patch == int(metadata["patch_size"])
    given = int(metadata.get("pre_seq_length") or metadata["input_length"])
    expected = golden["__output64__"]  # (B, T−1, C, H, W)
    with torch.no_grad():
        outputs = model(golden["__input__"][:, :given].to(dtype), expected.shape[1] + 1 - given)
    assert outputs.shape == expected.shape
    bound = 1e-9 if dtype == torch.float64 else 2e-5
    assert (outputs - expected).abs().max() < bound * expected.abs().max()


def publish(arch, norm, hidden=(4, 4, 4), pixels=4, k=3, grid=(4, 6)):
    """Return a random state dict with the keys and shapes of those repositories."""
    tensors = {}

    def conv(name, inputs, outputs):
        tensors[f"{name}.0.weight"] = torch.randn(outputs, inputs, k, k) / 2
        if norm:
            tensors[f"{name}.1.weight"] = torch.randn(outputs, *grid)
            tensors[f"{name}.1.bias"] = torch.randn(outputs, *grid)

    def one(name, inputs, outputs):
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, 1, 1)

    def cell(name, inputs, c, convs):
        for part, (gates, reads) in convs.items():
            conv(f"{name}.{part}", {"x": inputs, "h": c, "2": 2 * c}[reads], gates * c)
        one(f"{name}.conv_last", 2 * c, c)

    lstm = {"conv_x": (7, "x"), "conv_h": (4, "h"), "conv_m": (3, "h"), "conv_o": (1, "2")}
    peephole = {"conv_x_concat": (4, "x"), "conv_h_concat": (4, "h")}
    for j, c in enumerate(hidden):
        inputs = hidden[j - 1] if j else pixels
        if arch == "convlstm":
            some = {"conv_x": (4, "x"), "conv_h": (4, "h"), "conv_o": (1, "2")}
            cell(f"cell_list.{j}", inputs, c, some)
        elif arch in ("predrnn", "predrnnv2"):
            cell(f"cell_list.{j}", inputs, c, lstm)
        elif arch == "predrnnpp":
            more = {"conv_c": (3, "h"), "conv_c2m": (4, "h"), "conv_om": (1, "h")}
            cell(f"cell_list.{j}", inputs, c, lstm | more)
        elif j == 0:
            cell("stlstm_layer.0", inputs, c, lstm)
        else:
            block = {"conv_t_cc": (3, "h"), "conv_s_cc": (4, "h"), "conv_x_cc": (4, "x")}
            cell(f"stlstm_layer.{j}", inputs, c, block | peephole)
            cell(f"stlstm_layer_diff.{j - 1}", inputs, c, peephole)
            for name in (f"stlstm_layer.{j}", f"stlstm_layer_diff.{j - 1}"):
                tensors[f"{name}.ct_weight"] = torch.randn(2 * c, *grid)
                tensors[f"{name}.oc_weight"] = torch.randn(c, *grid)
    if arch == "predrnnpp":
        conv("gradient_highway.x_concat", hidden[0], 2 * hidden[0])
        conv("gradient_highway.z_concat", hidden[0], 2 * hidden[0])
    if arch == "predrnnv2":
        one("adapter", hidden[0], hidden[0])
    one("conv_last", hidden[-1], pixels)
    return tensors


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("arch", CELLS)
def test_every_network_is_converted(arch, norm, tmp_path):
    file = write(tmp_path / "f.pth", publish(arch, norm, k=5))
    converted = convert("openstl", file, tmp_path / "model", arch=arch)
    config = zoo.load(f"local-dir:{tmp_path / 'model'}").config
    assert config.cell in (arch, f"openstl_{arch}")
    assert (config.hidden, config.layers, config.in_channels, config.patch) == (4, 3, 1, 2)
    assert config.size == ((8, 12) if norm or arch == "mim" else None)
    assert (config.options["kernel_size"], config.options["norm"]) == (5, norm)
    assert config.options["forget_bias"] == (0 if arch == "convlstm" else 1)
    expected = {"convlstm": "conv_o", "predrnnpp": "conv_o", "mim": "diff"}.get(arch, "nothing")
    assert all(expected in name or name.endswith("conv_last.weight") for name in converted.dropped)
    assert bool(converted.dropped) == (arch in ("convlstm", "predrnnpp", "mim"))


@pytest.mark.parametrize("norm", [False, True])
def test_predrnnpp_has_the_equations_of_openstl(norm, tmp_path):
    """There is no golden file: compute the published equations with the published tensors."""
    p = {n: t.double() for n, t in publish("predrnnpp", norm).items()}
    convert("openstl", write(tmp_path / "f.pth", p), tmp_path / "model", arch="predrnnpp")
    model = zoo.load(f"local-dir:{tmp_path / 'model'}")
    frames = torch.rand(2, 3, 1, 8, 12, dtype=torch.float64)

    def conv(name, x):
        y = F.conv2d(x, p[f"{name}.0.weight"], padding="same")
        if norm:
            y = F.layer_norm(y, y.shape[1:], p[f"{name}.1.weight"], p[f"{name}.1.bias"])
        return y

    h, c = [torch.zeros(2, 4, 4, 6).double()] * 3, [torch.zeros(2, 4, 4, 6).double()] * 3
    m = z = h[0]
    outputs = []
    for t in range(4):
        frame = frames[:, t] if t < 3 else outputs[-1]
        x = rearrange(frame, "b c (h p) (w q) -> b (p q c) h w", p=2, q=2)
        for j in range(3):
            if j == 1:
                gates = conv("gradient_highway.x_concat", x) + conv("gradient_highway.z_concat", z)
                p_gate, u = gates.chunk(2, dim=1)
                x = z = u.sigmoid() * p_gate.tanh() + (1 - u.sigmoid()) * z
            it = f"cell_list.{j}."
            ix, fx, gx, ixm, fxm, gxm, ox = conv(it + "conv_x", x).chunk(7, dim=1)
            ih, fh, gh, oh = conv(it + "conv_h", h[j]).chunk(4, dim=1)
            im, fm, mm = conv(it + "conv_m", m).chunk(3, dim=1)
            ic, fc, gc = conv(it + "conv_c", c[j]).chunk(3, dim=1)
            new = (fx + fh + fc + 1).sigmoid() * c[j]
            new = new + (ix + ih + ic).sigmoid() * (gx + gh + gc).tanh()
            ic, gc, fc, oc = conv(it + "conv_c2m", new).chunk(4, dim=1)
            m = (fxm + fm + fc + 1).sigmoid() * mm.tanh()
            m = m + (ixm + im + ic).sigmoid() * (gxm + gc).tanh()
            o = (ox + oh + oc + conv(it + "conv_om", m)).tanh()
            x = o * F.conv2d(torch.cat([new, m], dim=1), p[it + "conv_last.weight"]).tanh()
            h, c = [*h[:j], x, *h[j + 1 :]], [*c[:j], new, *c[j + 1 :]]
        y = F.conv2d(x, p["conv_last.weight"])
        outputs.append(rearrange(y, "b (p q c) h w -> b c (h p) (w q)", p=2, q=2))
    expected = torch.stack(outputs, dim=1)
    torch.testing.assert_close(model(frames, 2), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"net_param": tensors},
        lambda tensors: {"state_dict": {f"model.{n}": t for n, t in tensors.items()}, "epoch": 1},
        lambda tensors: {"state_dict": {f"method.model.{n}": t for n, t in tensors.items()}},
        lambda tensors: {"net_param": {f"module.{n}": t for n, t in tensors.items()}},
    ],
    ids=["predrnn", "lightning", "method", "ddp"],
)
@pytest.mark.parametrize("dialect", ["predrnn", "openstl"])
def test_wrappers_of_trainers_are_removed(dialect, wrap, tmp_path):
    tensors = publish("predrnnv2", norm=True)
    for name, content in (("plain", tensors), ("wrapped", wrap(tensors))):
        torch.save(content, tmp_path / f"{name}.ckpt")
        convert(dialect, tmp_path / f"{name}.ckpt", tmp_path / name, arch="predrnnv2")
    plain, wrapped = (
        load_file(tmp_path / name / "model.safetensors") for name in ("plain", "wrapped")
    )
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)


def test_float64_tensors_stay_float64(tmp_path):
    double = {name: tensor.double() for name, tensor in publish("mim", norm=True).items()}
    convert("openstl", write(tmp_path / "f.pth", double), tmp_path / "model", arch="mim")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float64}
    load_weights(
        zoo.load(f"local-dir:{tmp_path / 'model'}").network, tmp_path / "model/model.safetensors"
    )


def test_layers_of_different_width_are_converted(tmp_path):
    for norm in (False, True):
        file = write(tmp_path / "f.pth", publish("convlstm", norm, hidden=(4, 6, 3)))
        config = convert("openstl", file, tmp_path / f"{norm}", arch="convlstm").config
        assert config.hidden == (4, 6, 3)
        frames = torch.rand(1, 2, 1, 8, 12)
        assert zoo.load(f"local-dir:{tmp_path / f'{norm}'}")(frames, 1).shape[1] == 2


@pytest.mark.parametrize(
    ("pixels", "options", "sizes"),
    [
        (16, {}, (1, 4)),
        (32, {"in_channels": 2}, (2, 4)),
        (12, {"in_channels": 3}, (3, 2)),
        (12, {"patch": 2}, (3, 2)),
        (16, {"in_channels": 4, "patch": 2}, (4, 2)),
        (2, {"patch": 1}, (2, 1)),
    ],
)
def test_patch_size_is_inferred(pixels, options, sizes, tmp_path):
    file = write(tmp_path / "f.pth", publish("predrnn", norm=True, pixels=pixels))
    config = convert("openstl", file, tmp_path / "m", arch="predrnn", options=options).config
    assert (config.in_channels, config.patch) == sizes
    assert config.size == (4 * config.patch, 6 * config.patch)


class TestBadInput:
    @pytest.mark.parametrize("prefix", ["", "ms-"])
    @pytest.mark.parametrize("arch", CELLS)
    def test_wrong_architecture(self, refuse, arch, prefix):
        write(Path("f.pth"), publish(arch, norm=True))
        for other in CELLS:
            if other != arch:
                words = ["openstl", "f.pth", "--arch", prefix + other, "-o", "out"]
                message = refuse(words, f"{arch}, not {other}")
                assert message.endswith(f"--arch {prefix}{arch}")

    def test_checkpoint_of_another_code_base(self, refuse):
        write(Path("f.pth"), {"embed.conv_embed.weight": torch.zeros(4, 4, 1, 1)})
        refuse(["openstl", "f.pth", "--arch", "mim", "-o", "out"], "OpenSTL", "embed.conv_embed")

    def test_architecture_that_the_dialect_lacks(self, refuse):
        write(Path("f.pth"), publish("mim", norm=False))
        refuse(["predrnn", "f.pth", "--arch", "mim", "-o", "out"], "no mim", "predrnnv2")
        refuse(["openstl", "f.pth", "--arch", "mklstm", "-o", "out"], "no mklstm")

    def test_ambiguous_patch(self, refuse):
        write(Path("f.pth"), publish("predrnn", norm=False, pixels=32))
        words = ["openstl", "f.pth", "--arch", "predrnn", "-o", "out"]
        for setting in ([], ["in_channels=3"], ["in_channels=0"], ["patch=5"], ["patch=wide"]):
            given = ["--set", *setting] if setting else []
            refuse(words + given, "32", "--set in_channels=NUMBER")

    @pytest.mark.parametrize(
        ("arch", "change", "words"),
        [
            ("predrnn", lambda t: t.pop("cell_list.1.conv_h.1.bias"), ["missing: cell_list.1"]),
            ("predrnn", lambda t: t.update({"a.weight": torch.ones(2)}), ["understood: a.weight"]),
            (
                "predrnn",
                lambda t: t.update({"cell_list.0.conv_x.1.weight": torch.ones(4)}),
                ["cell_list.0.conv_x.1.weight is [4]", "three axes"],
            ),
            (
                "predrnn",
                lambda t: t.update({"cell_list.2.conv_m.1.weight": torch.ones(12, 4, 5)}),
                ["another shape: cell_list.2.conv_m.1.weight [12, 4, 5]"],
            ),
            (
                "predrnnpp",
                lambda t: t.update({"gradient_highway.x_concat.1.weight": torch.ones(4, 4, 6)}),
                ["another shape: gradient_highway.x_concat.1.weight"],
            ),
            ("mim", lambda t: t.pop("stlstm_layer.1.ct_weight"), ["stlstm_layer.1.ct_weight"]),
            ("mim", lambda t: t.pop("stlstm_layer.2.oc_weight"), ["stlstm_layer.2.oc_weight"]),
            ("mim", lambda t: t.update({"stlstm_layer.1.d": torch.ones(1)}), ["understood"]),
        ],
    )
    def test_tensors_that_do_not_fit(self, refuse, arch, change, words):
        tensors = publish(arch, norm=True)
        change(tensors)
        write(Path("f.pth"), tensors)
        refuse(["openstl", "f.pth", "--arch", arch, "-o", "out"], "f.pth", *words)

    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ("norm=false", ["norm=False", "True"]),
            ("size=[4, 4]", ["size=[4, 4]", "[8, 12]"]),
            ("bias=true", ["bias"]),
            ("in_channels=4", ["size=[8, 12]", "[4, 6]"]),
        ],
    )
    def test_settings_that_do_not_fit(self, refuse, setting, words):
        write(Path("f.pth"), publish("predrnn", norm=True))
        settings = ["--set", setting]
        if setting.startswith("in_channels"):  # changes the patch
            settings += ["--set", "size=[8, 12]"]
        refuse(["openstl", "f.pth", "--arch", "predrnn", *settings, "-o", "out"], *words)
