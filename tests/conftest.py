"""Fixtures that several test modules share."""

import gzip
import os
import struct
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from zoo import plugins
from zoo.data import data_root


def pytest_configure() -> None:
    """Several workers share the cores: one thread each, and the processes that they start."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


def idx(images: np.ndarray) -> bytes:
    """Images as the files of MNIST hold them."""
    return struct.pack(">4I", 0x803, *images.shape) + images.tobytes()


@pytest.fixture(scope="session")
def noise_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with noise for digits: even values train (gzipped), odd ones test (unpacked)."""
    root = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0).integers(1, 128, size=(2, 9, 28, 28), dtype=np.uint8) * 2
    (root / "mnist").mkdir()
    (root / "mnist" / f"{TRAIN}.gz").write_bytes(gzip.compress(idx(noise[0])))
    (root / "mnist" / TEST).write_bytes(idx(noise[1] - 1))
    return root


@pytest.fixture
def data_root_with_mnist() -> Path:
    """The folder of the data sets, where MNIST is in it."""
    root = data_root()
    if not (root / "mnist").is_dir():
        pytest.skip(f"MNIST is not in {root / 'mnist'}: set ZOO_DATA to the folder that has it")
    return root


#: Options of cells with which a step is the same computation, repeated less often.
FEWER_REPETITIONS: dict[str, dict[str, Any]] = {
    "cmslstm": {"iterations": 2, "scales": [1, 4]},
    "modernn": {"iterations": 2, "detail_sizes": [3, 5]},
    "preciplstm": {"window": 3},
    "trajgru": {"links": 3},
}


class Cli:
    """The command line in this process: ``cli("info", "mslstm")`` gives click's Result."""

    def __call__(self, *arguments: object) -> Result:
        """Run a command, whatever comes of it."""
        from zoo.cli import zoo as command

        return CliRunner().invoke(command, list(map(str, arguments)))

    def succeed(self, *arguments: object) -> str:
        """Run a command that must exit with 0; returns its standard output."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def fail(self, *arguments: object) -> str:
        """Run a command that must exit with 2 and one line on standard error; returns that line."""
        result = self(*arguments)
        assert result.exit_code == 2, result.output
        assert isinstance(result.exception, SystemExit)
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("Error: ").strip()


@pytest.fixture
def cli() -> Cli:
    """The command line."""
    return Cli()


#: The source of a plugin with a cell, `mean`.
CELL = """
import torch
import zoo

class Mean(zoo.RecurrentCell):
    def __init__(self, in_channels, channels, rate: float = 0.5):
        super().__init__(in_channels, channels)
        self.mix = torch.nn.Conv2d(in_channels, channels, 1)
        self.rate = rate

    def init_state(self, x):
        return self.zeros(x)

    def forward(self, x, state):
        state = self.rate * state + self.mix(x)
        return zoo.Step(state, state)

@zoo.hookimpl
def zoo_cells():
    return {"mean": Mean}
"""

Install = Callable[..., Path]


@pytest.fixture
def install_plugin(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Install]:
    """Install distributions of one plugin module each until the test ends.

    ``install_plugin("zoo-mean", source, entry="mean")`` is what pip would leave behind, and
    returns the path of the module. With ``group="zoo.cells", attribute="Mean"``, the entry point
    names this object of the module.
    """
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(site)
    modules: list[str] = []

    def install(
        distribution: str,
        source: str,
        *,
        entry: str = "it",
        version: str = "1.0",
        group: str = "zoo",
        attribute: str = "",
    ) -> Path:
        module = distribution.replace("-", "_")
        path = site / f"{module}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        value = f"{module}:{attribute}" if attribute else module
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry} = {value}\n")
        modules.append(module)
        plugins.forget()
        return path

    yield install
    for module in modules:
        sys.modules.pop(module, None)
    plugins.forget()
