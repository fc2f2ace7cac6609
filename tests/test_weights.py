"""Weights are written atomically and read strictly."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from zoo.errors import HubError, ZooError
from zoo.weights import DTYPES, load_weights, save_weights


def make(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 1))


def raises(expected, error=HubError):
    """An error whose message is one line with these names or numbers."""
    return pytest.raises(error, match=rf"\A[^\n]*{expected}[^\n]*\Z")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(make(), path)
    return path


def same(a, b):
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_saved_weights_load_bit_for_bit(path):
    module = make(seed=1)
    assert not same(module, make())
    load_weights(module, path)
    assert same(module, make())


def test_equal_weights_give_equal_files(path, tmp_path):
    for number in range(8):
        save_weights(make(), tmp_path / f"{number}.safetensors")
        assert (tmp_path / f"{number}.safetensors").read_bytes() == path.read_bytes()


def test_tensors_that_are_not_contiguous_are_saved(tmp_path):
    module = make().to(memory_format=torch.channels_last)
    assert not module[0].weight.is_contiguous()
    save_weights(module, tmp_path / "a.safetensors")
    again = make(seed=1)
    load_weights(again, tmp_path / "a.safetensors")
    assert same(module, again)


def test_other_precision_is_converted_to_the_modules(tmp_path):
    save_weights(make().double(), tmp_path / "a.safetensors")
    module = make(seed=1)
    load_weights(module, tmp_path / "a.safetensors")
    assert module[0].weight.dtype == torch.float32
    assert same(module, make())


def test_tensors_that_do_not_fit_are_named(path, tmp_path):
    tensors = load_file(path)
    changed = {
        "missing: 0.bias": {k: v for k, v in tensors.items() if k != "0.bias"},
        ": 2.extra": tensors | {"2.extra": torch.ones(1)},
        r": 1.weight \[1, 3, 3, 3\] \(expected \[1, 3, 1, 1\]\)": tensors
        | {"1.weight": torch.ones(1, 3, 3, 3)},
        "missing: 0.bias, 0.weight, 1.bias and 1 more; .*: x": {"x": torch.ones(1)},
        "F64, F32, F16, BF16: 1.bias": tensors | {"1.bias": torch.ones(1, dtype=torch.int8)},
        "F64, F32, F16, BF16: 0.bias": tensors | {"0.bias": torch.ones(3, dtype=torch.complex64)},
    }
    for number, (named, content) in enumerate(changed.items()):
        save_file(content, tmp_path / f"{number}.safetensors")
        module = make(seed=1)
        with raises(named):
            load_weights(module, tmp_path / f"{number}.safetensors")
        assert same(module, make(seed=1)), "the module must be unchanged"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        b"\x80\x02}q\x00.",
        bytes(1000),
        b"\xff" * 100,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 10**15) + b"{}",
    ],
)
def test_file_of_another_format_is_rejected(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with raises("model.safetensors"):
        load_weights(make(), path)


def test_torch_checkpoint_is_rejected(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save(make().state_dict(), path)
    with raises("model.safetensors"):
        load_weights(make(), path)


def test_missing_file_is_rejected(tmp_path):
    with raises("no weights at .*model.safetensors"):
        load_weights(make(), tmp_path / "model.safetensors")


def test_folder_is_rejected(tmp_path):
    with raises(f"{tmp_path} is not"):
        load_weights(make(), tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_truncated_file_is_rejected(path, tmp_path_factory, data):
    content = path.read_bytes()
    cut = tmp_path_factory.getbasetemp() / "cut.safetensors"
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with raises("cut.safetensors is not"):
        load_weights(make(), cut)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_corrupt_header_gives_an_error_of_one_line_or_loads(path, tmp_path_factory, data):
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 8 + length - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    damaged.write_bytes(content)
    module = make()
    try:
        load_weights(module, damaged)
    except ZooError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16", "F4", "F8_E4M3", "I64", "BOOL", "X"])
def test_floating_point_weights_load_and_others_are_rejected(tmp_path, dtype):
    bits = {"F64": 64, "F16": 16, "BF16": 16, "F4": 4, "I64": 64}.get(dtype, 8)
    size = 4 * bits // 8
    header = {"weight": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    module = nn.Linear(2, 2, bias=False)
    if dtype in DTYPES:
        load_weights(module, path)
        assert not module.weight.any()
    else:
        with raises(path.name):
            load_weights(module, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_are_rejected(tmp_path, value):
    """Neither as stored, nor in the precision of the module: 1e300 is infinite in float32."""
    damaged = make().double()
    with torch.no_grad():
        damaged[1].bias[0] = value
    save_weights(damaged, tmp_path / "a.safetensors")
    module = make(seed=1)
    with raises("1.bias"):
        load_weights(module, tmp_path / "a.safetensors")
    assert same(module, make(seed=1))


@pytest.mark.parametrize(
    "header",
    [
        b"{" * 5000,
        b"[" * 5000,
        b'{"__metadata__":' * 5000,
        b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"__metadata__":{"sha256":3},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"sha256":"x"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"\\n\\u001b[2J":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b" " * 1_000_000,
        b"{}" + b" " * 50_000_000,
    ],
    ids=lambda header: header[:40],
)
def test_hostile_header_is_rejected(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with raises("model.safetensors"):
        load_weights(make(), path)


def test_failed_save_leaves_the_old_file(path, tmp_path, monkeypatch):
    target = tmp_path / "model.safetensors"
    target.write_bytes(path.read_bytes())

    write = Path.write_bytes

    def half(file, data):
        write(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with raises("No space left on device", ZooError):
        save_weights(make(seed=1), target)
    assert target.read_bytes() == path.read_bytes()
    assert list(tmp_path.iterdir()) == [target]


def test_saving_to_a_missing_folder_is_an_error(tmp_path):
    with raises(str(tmp_path / "no"), ZooError):
        save_weights(make(), tmp_path / "no" / "model.safetensors")
