"""Checkpoints of other projects by name: downloaded, converted, cached."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli
from hub_server import HubServer, Reply
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file
from test_convert_openstl import publish as publish_openstl

import zoo
from zoo.convert.openstl import openstl
from zoo.errors import HubError
from zoo.hub import pretrained_models
from zoo.openstl import checkpoints
from zoo.plugins import Pretrained, builtin

pytestmark = pytest.mark.hub

NAME = "predrnn-tiny-openstl"
SIZES = {"in_channels": 1, "patch": 4, "hidden": 8, "layers": 2, "kernel_size": 3, "norm": False}
DATA = {"name": "mmnist", "size": [64, 64], "input_frames": 10, "horizon": 10}


def publish(c: int = 8, pixels: int = 16, k: int = 3) -> dict[str, torch.Tensor]:
    """The tensors of a PredRNN of OpenSTL with two layers."""
    torch.manual_seed(0)
    shapes = {}
    for j in range(2):
        inputs = c if j else pixels
        for part, gates, reads in (
            ("conv_x", 7, inputs),
            ("conv_h", 4, c),
            ("conv_m", 3, c),
            ("conv_o", 1, 2 * c),
        ):
            shapes[f"cell_list.{j}.{part}.0.weight"] = (gates * c, reads, k, k)
        shapes[f"cell_list.{j}.conv_last.weight"] = (c, 2 * c, 1, 1)
    shapes["conv_last.weight"] = (pixels, c, 1, 1)
    return {name: torch.randn(shape) / 8 for name, shape in shapes.items()}


def saved(content: Any, **options: Any) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


class Source:
    """A project that publishes checkpoints on the server of the tests."""

    def __init__(self, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.monkeypatch = server, monkeypatch

    def offer(self, content: bytes, file: str = "tiny.pth", **fields: Any) -> str:
        """Offer a checkpoint under NAME; returns its URL."""
        self.server.add("them/releases", {file: content})
        url = fields.pop("url", f"{self.server.url}/them/releases/resolve/main/{file}")
        known = {
            "dialect": "openstl",
            "options": {**SIZES, "data": DATA},
            "data": "mmnist",
            "origin": "OpenSTL",
            "license": "apache-2.0",
            "scores": {"mse": 23.97, "ssim": 0.9462},
            "notes": ("Trained for nothing.",),
        }
        model = Pretrained(url=url, **{**known, **fields})
        self.monkeypatch.setitem(builtin().provides["pretrained"], NAME, model)
        return url


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as running:
        running.use(monkeypatch, tmp_path / "home", token=False)
        yield running


@pytest.fixture
def source(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.delenv("ZOO_HUB", raising=False)
    return Source(server, monkeypatch)


@pytest.fixture
def cache(server: HubServer) -> Path:
    """The folder in which checkpoints are cached."""
    return Path(constants.HF_ASSETS_CACHE)


def kept(cache: Path) -> set[str]:
    """The files in the cache."""
    files = (path for path in cache.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.name for path in files}


def test_pull_downloads_converts_and_caches(source: Source, cache: Path) -> None:
    url = source.offer(saved(publish()))
    folder = zoo.pull(NAME)
    assert folder.name == NAME
    assert folder.is_relative_to(cache)
    assert kept(cache) == {"README.md", "SHA256SUMS", "config.json", "model.safetensors"}
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(weights["head.weight"], publish()["conv_last.weight"])
    config = zoo.load(NAME).config
    assert (config.cell, config.hidden, config.layers, config.patch) == ("predrnn", 8, 2, 4)
    assert (config.data.name, config.data.size) == ("mmnist", (64, 64))
    assert source.server.count("GET", url.removeprefix(source.server.url)) == 1


def test_card_states_license_origin_and_published_scores(source: Source) -> None:
    url = source.offer(saved(publish()))
    card = ModelCard.load(zoo.pull(NAME) / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "spatiotemporal-zoo"
    assert card.data.eval_results is None  # nobody measured them here
    for part in (url, "Trained for nothing.", "| MSE | 23.97 |", "| SSIM | 0.946 |"):
        assert part in card.text
    assert "not measured here" in card.text


def test_offline_uses_the_cache_alone(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.offer(saved(publish()))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        zoo.pull(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = zoo.pull(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert zoo.pull(NAME) == folder


CONTAINERS: dict[str, Callable[[], bytes]] = {
    "state dict": lambda: saved(publish()),
    "several GPUs": lambda: saved({f"module.{n}": t for n, t in publish().items()}),
    "trainer, before zip": lambda: saved(
        {
            "epoch": 3,
            "state_dict": publish(),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1.0}]},
            "scheduler": {"last_lr": [np.float64(0.1)]},
        },
        _use_new_zipfile_serialization=False,
    ),
    "Lightning": lambda: saved(
        {
            "epoch": 3,
            "global_step": 9,
            "pytorch-lightning_version": "1.9.0",
            "state_dict": {f"model.{n}": t for n, t in publish().items()},
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {},
            "optimizer_states": [{"state": {}}],
            "lr_schedulers": [],
            "hparams_name": "kwargs",
            "hyper_parameters": {"dataname": "mmnist", "mean": 0, "std": 1, "lr": np.float64(1)},
        }
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_holds_the_same_model(source: Source, container: str) -> None:
    source.offer(CONTAINERS[container](), "last.ckpt")
    torch.manual_seed(0)
    frames = torch.rand(1, 2, 1, 16, 16)
    forecast = zoo.load(NAME)(frames, 1)
    source.offer(saved(publish()), "plain.pth")
    assert torch.equal(zoo.load(NAME)(frames, 1), forecast)


def test_broken_download_continues(source: Source, cache: Path) -> None:
    content = saved(publish())
    source.offer(content)
    source.server.cut_after = len(content) // 2
    with pytest.raises(HubError, match=f"{len(content) // 2:,} of {len(content):,} bytes"):
        zoo.pull(NAME)
    assert kept(cache) == {"tiny.pth.part"}
    assert zoo.pull(NAME).is_dir()
    assert source.server.log[-1].range == f"bytes={len(content) // 2}-"
    assert source.server.sent == len(content)


def test_part_that_is_already_whole_is_used(source: Source, cache: Path) -> None:
    content = saved(publish())
    source.offer(content)
    source.server.cut_after = len(content) // 2
    with pytest.raises(HubError):
        zoo.pull(NAME)
    (part,) = cache.rglob("*.part")
    part.write_bytes(content)
    assert zoo.pull(NAME).is_dir()
    assert source.server.log[-1].status == 416


def test_redirects_are_followed_and_keep_the_range(source: Source) -> None:
    content = saved(publish())
    target = source.offer(content)
    source.server.replies["/moved/tiny.pth"] = Reply(302, b"", {"Location": target})
    source.offer(content, url=f"{source.server.url}/moved/tiny.pth")
    source.server.cut_after = len(content) // 2
    with pytest.raises(HubError):
        zoo.pull(NAME)
    assert zoo.pull(NAME).is_dir()
    assert source.server.log[-1].range == f"bytes={len(content) // 2}-"


PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_web_page_with_status_200_is_not_cached(source: Source, cache: Path, kind: str) -> None:
    source.server.replies["/page/tiny.pth"] = Reply(200, PAGE, {"Content-Type": kind})
    url = source.offer(b"", url=f"{source.server.url}/page/tiny.pth")
    with pytest.raises(HubError, match=url):
        zoo.pull(NAME)
    assert kept(cache) == set()


class Exploit:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def changed(**tensors: Any) -> dict[str, Any]:
    return {n.replace("__", "."): t for n, t in {**publish(), **tensors}.items() if t is not None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: saved(publish())[:-200], "corrupt"),
        (lambda: saved(publish())[:200], "corrupt"),
        (lambda: b"", "corrupt"),
        (lambda: saved(publish(c=4)), "hidden=8.*4"),
        (lambda: saved(publish(k=5)), "kernel_size=3.*5"),
        (lambda: saved(publish(pixels=4)), "patch=4.*2"),
        (lambda: saved(changed(conv_last__weight=torch.ones(9, 8, 1, 1))), "conv_last.weight"),
        (lambda: saved({k: v for k, v in publish().items() if "1.conv_m" not in k}), "conv_m"),
        (lambda: saved({**publish(), "extra.weight": torch.ones(1)}), "extra.weight"),
        (lambda: saved({}), "tensors"),
    ],
)
def test_file_that_is_not_the_model_is_not_cached(
    source: Source, cache: Path, content: Callable[[], bytes], words: str
) -> None:
    url = source.offer(content())
    with pytest.raises(HubError, match=f"^{url} is not {NAME}[^\n]*{words}[^\n]*$"):
        zoo.pull(NAME)
    assert kept(cache) == set()


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(
    source: Source, cache: Path, tmp_path: Path, zipped: bool
) -> None:
    trap = tmp_path / "trap"
    content = {"state_dict": publish(), "scheduler": Exploit(trap)}
    source.offer(saved(content, _use_new_zipfile_serialization=zipped))
    with pytest.raises(HubError, match="contains code"):
        zoo.pull(NAME)
    source.offer(pickle.dumps(Exploit(trap)), "other.pth")
    with pytest.raises(HubError):
        zoo.pull(NAME)
    assert not trap.exists()
    assert kept(cache) == set()


def test_first_checksum_is_kept_and_another_file_is_an_error(source: Source, cache: Path) -> None:
    content = saved(publish())
    source.offer(content)
    folder = zoo.pull(NAME)
    pin = folder.parent / "SHA256SUMS"
    assert pin.read_text() == f"{hashlib.sha256(content).hexdigest()}  tiny.pth\n"
    other = saved({name: tensor + 1 for name, tensor in publish().items()})
    source.offer(other)
    assert zoo.pull(NAME) == folder  # it is in the cache
    (folder / "model.safetensors").unlink()
    with pytest.raises(HubError, match=str(pin)):
        zoo.pull(NAME)
    assert not (folder / "model.safetensors").exists()
    pin.unlink()
    assert (zoo.pull(NAME) / "model.safetensors").exists()


def test_checksum_of_the_plugin_is_verified(source: Source, cache: Path) -> None:
    content = saved(publish())
    source.offer(content, sha256="0" * 64)
    with pytest.raises(HubError, match="000000000000…"):
        zoo.pull(NAME)
    source.offer(content, sha256=hashlib.sha256(content).hexdigest())
    assert zoo.pull(NAME).is_dir()


def test_missing_file_is_an_error_of_one_line(source: Source, cli: Cli) -> None:
    url = source.offer(b"x", url=f"{source.server.url}/them/releases/resolve/main/absent.pth")
    message = cli.fail("pull", NAME)
    assert url in message
    assert "404" in message


def test_unreachable_server_is_an_error_of_one_line(source: Source, cli: Cli) -> None:
    url = source.offer(b"x", url="http://127.0.0.1:9/tiny.pth")
    assert url in cli.fail("pull", NAME)


@pytest.mark.parametrize("stated", [True, False])
def test_moments_of_standardized_data_are_those_of_the_checkpoint(
    source: Source, stated: bool
) -> None:
    content = {"state_dict": publish()}
    if stated:
        moments = {"mean": np.full((1, 1, 1, 1), 280.0, np.float32), "std": np.float64(20)}
        content["hyper_parameters"] = moments
    data = {"name": "weather", "unit": "K", "standardization": {}}
    source.offer(saved(content), options={**SIZES, "data": data})
    config = zoo.load(NAME).config
    assert config.data.unit == ("K" if stated else "1")
    assert config.data.standardization is not None
    expected = ((280.0,), (20.0,)) if stated else ((0.0,), (1.0,))
    assert (config.data.standardization.mean, config.data.standardization.std) == expected


def test_commands_take_the_name(source: Source, cli: Cli) -> None:
    source.offer(saved(publish()))
    folder = cli.succeed("pull", NAME).strip()
    facts = json.loads(cli.succeed("info", NAME, "--json"))
    assert (facts["name"], facts["folder"]) == (NAME, folder)
    assert facts["published by OpenSTL"] == {"mse": 23.97, "ssim": 0.9462}
    assert "0.9462" in cli.succeed("info", NAME)
    (row,) = json.loads(cli.succeed("list", NAME, "--pretrained", "--json"))
    expected = "downloads from OpenSTL, scores published by OpenSTL, not measured here"
    assert row["published"] == expected
    assert expected in cli.succeed("list", "--pretrained")


def test_eval_measures_it_on_the_training_data(source: Source, cli: Cli, noise_root: Path) -> None:
    source.offer(saved(publish()))
    words = ("--sequences", 2, "--horizon", 1, "--data-dir", noise_root, "--json")
    report = json.loads(cli.succeed("eval", NAME, *words))
    assert report["data"]["name"] == "mmnist"
    assert report["forecast"]["model"]["mse"] > 0


# The table


def test_every_checkpoint_is_listed_and_none_is_the_default_of_an_architecture() -> None:
    listed = pretrained_models()
    assert {*checkpoints()} <= {*listed}
    assert listed["mim-kth-openstl"].architecture == "openstl_mim"
    assert listed["mim-kth-openstl"].data == "kth"
    with pytest.raises(HubError, match=r"zoo\.create"):
        zoo.pull("openstl_mim")


def test_table_has_the_published_rows() -> None:
    table = checkpoints()
    assert len(table) == 63
    assert len({model.url for model in table.values()}) == 63
    model = table["predrnn-kth-openstl"]
    assert model.scores == {
        "mse": 41.07,
        "mae": 380.6,
        "ssim": 0.9097,
        "psnr": 27.95,
        "lpips": 0.21892,
    }
    assert model.url.endswith("/kth20_predrnn_one_ep100.pth")


@pytest.mark.parametrize("name", checkpoints())
def test_every_row_fits_the_network_of_its_name(name: str) -> None:
    """Shapes alone, of tensors without values."""
    model = checkpoints()[name]
    cell = name.partition("-")[0]
    size, patch = model.options["data"]["size"], model.options["patch"]
    pixels = model.options["in_channels"] * patch**2
    with torch.device("meta"):
        published = publish_openstl(
            cell,
            norm=False,
            hidden=(model.options["hidden"],) * 4,
            pixels=pixels,
            grid=[side // patch for side in size],
            k=5,
        )
    config = openstl(published, model.architecture, None, dict(model.options)).config
    assert (config.cell, config.patch) == (model.architecture, patch)
    assert [*(config.data.size or ())] == size
    assert config.data.is_picture == ("weatherbench" not in name)


GOLDEN = Path(os.environ.get("ZOO_GOLDEN", "absent")) / "openstl"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="set ZOO_GOLDEN to the reference outputs")
@pytest.mark.parametrize("arch", ["convlstm", "predrnn", "openstl_mim"])
def test_reference_network_gives_the_reference_forecast(source: Source, arch: str) -> None:
    word = {"convlstm": "ConvLSTM", "predrnn": "PredRNN", "openstl_mim": "MIM"}[arch]
    tensors = load_file(GOLDEN / f"{word}_Model.ln1.hot.safetensors")
    weights = {f"model.{n}": t for n, t in tensors.items() if not n.startswith("__")}
    sizes = {"hidden": 16, "layers": 4, "kernel_size": 5, "norm": True, "size": [32, 32]}
    source.offer(saved({"state_dict": weights}), architecture=arch, options={**SIZES, **sizes})
    forecast = zoo.load(NAME)(tensors["__input__"][:, :4], 3)
    torch.testing.assert_close(forecast, tensors["__output__"], rtol=1e-4, atol=1e-4)
