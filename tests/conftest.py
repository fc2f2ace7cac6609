"""What several tests need."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

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
