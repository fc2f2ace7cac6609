"""Moving MNIST: motion, sequences as a function of the index, and files."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEST, TRAIN, idx
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from zoo.data.mmnist import TEST_SHA256, MovingMNIST
from zoo.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def root(noise_root: Path) -> Path:
    return noise_root / "mnist"


def draw(dataset: MovingMNIST, index: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Draw a sequence pixel by pixel; return it and all positions of its digits."""
    (images,), (start,), (velocity,) = dataset.draws([index])
    size, free = dataset.size, dataset.size - 28
    movie = np.zeros((dataset.frames, 1, size, size), dtype=int)
    positions = []
    for image, (y, x), (vy, vx) in zip(images, start.tolist(), velocity.tolist(), strict=True):
        for frame in movie:
            positions.append((y, x))
            for row in range(28):
                for column in range(28):
                    to = int(y) + row, int(x) + column
                    if min(to) >= 0 and max(to) < size:
                        frame[0][to] += image[row, column]
            if y + vy < -2 or y + vy > free + 2:
                vy = -vy
            if x + vx < -2 or x + vx > free + 2:
                vx = -vx
            y, x = y + vy, x + vx
    return np.minimum(movie, 255), positions


@pytest.mark.parametrize("options", [{}, {"digits": 3, "size": 41, "split": "test", "seed": 5}])
def test_motion_equals_that_of_a_plain_loop(root: Path, options: dict) -> None:
    dataset = MovingMNIST(root, frames=30, **options)
    for index in (0, 1, 4321):
        movie, positions = draw(dataset, index)
        assert np.array_equal(dataset.batch([index])[0], movie)
        assert np.min(positions) >= -2
        assert np.max(positions) <= dataset.size - 28 + 2
        assert np.min(positions) < 0  # long enough to leave the free area


def test_draws_have_the_documented_distribution(root: Path) -> None:
    dataset = MovingMNIST(root)
    images, start, velocity = dataset.draws(range(4000))
    assert images.shape == (4000, 2, 28, 28)
    assert start.min() >= 0
    assert start.max() < 36
    assert start.mean(axis=(0, 1)) == pytest.approx([18, 18], abs=0.5)
    speed = np.hypot(*np.moveaxis(velocity, -1, 0))
    values, counts = np.unique(speed.round(9), return_counts=True)
    assert values.tolist() == [2, 3, 4, 5, 6]
    assert counts / counts.sum() == pytest.approx([0.2] * 5, abs=0.02)
    heading = velocity / speed[..., None]
    assert heading.mean(axis=(0, 1)) == pytest.approx([0, 0], abs=0.03)
    assert (heading**2).mean(axis=(0, 1)) == pytest.approx([0.5, 0.5], abs=0.03)
    # The two digits of a sequence and neighboring sequences are independent.
    assert abs(np.corrcoef(start[:, 0, 0], start[:, 1, 0])[0, 1]) < 0.06
    assert abs(np.corrcoef(start[:-1, 0, 0], start[1:, 0, 0])[0, 1]) < 0.06


@settings(max_examples=15, deadline=None)
@given(indices=st.lists(st.integers(0, 9_999), min_size=1, max_size=6), seed=st.integers(0, 2**40))
def test_a_sequence_depends_only_on_its_index(root: Path, indices: list[int], seed: int) -> None:
    together = MovingMNIST(root, seed=seed, frames=5).batch(indices)
    longer = MovingMNIST(root, seed=seed, frames=5, sequences=50_000)
    for index, sequence in zip(indices, together, strict=True):
        assert np.array_equal(longer.batch([index])[0], sequence)


def test_other_indices_seeds_and_splits_differ(root: Path) -> None:
    first = MovingMNIST(root)
    others = [first.batch([1]), MovingMNIST(root, seed=1).batch([0])]
    assert not any(np.array_equal(first.batch([0]), other) for other in others)
    for split, odd in (("train", 0), ("test", 1)):
        images, start, _ = MovingMNIST(root, split=split).draws(range(9))
        assert set((images % 2).ravel().tolist()) == {odd}
        assert np.array_equal(start, first.draws(range(9))[1]) == (split == "train")


def test_sequences_and_batches_of_a_data_loader_agree(root: Path) -> None:
    dataset = MovingMNIST(root, sequences=5, frames=3)
    assert len(dataset) == 5
    sequence = dataset[4]
    assert sequence.shape == (3, 1, 64, 64)
    assert sequence.dtype == torch.float32
    assert np.array_equal((sequence * 255).round().byte(), dataset.batch([4])[0])
    assert 0 <= sequence.min() < 0.5 < sequence.max() <= 1
    assert torch.equal(dataset[-1], sequence)
    with pytest.raises(IndexError):
        dataset[5]
    batches = list(DataLoader(dataset, batch_size=2))
    assert torch.equal(torch.cat(batches), torch.stack([dataset[i] for i in range(5)]))


def test_checksum_covers_all_sequences(root: Path) -> None:
    dataset = MovingMNIST(root, sequences=150, frames=2)
    same = MovingMNIST(root, sequences=150, frames=2)
    assert dataset.checksum() == same.checksum()
    assert dataset.checksum() != MovingMNIST(root, sequences=149, frames=2).checksum()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "valid"}, "train, test"),
        ({"sequences": 0}, "sequences is 0"),
        ({"frames": 0}, "frames is 0"),
        ({"digits": 0}, "digits is 0"),
        ({"size": 32}, "size is 32.*36"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_out_of_range_are_rejected(root: Path, options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MovingMNIST(root, **options)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{TEST}\.gz in .*ZOO_DATA"):
        MovingMNIST(tmp_path / "nowhere", split="test")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".gz", b"<html>not found</html>"),
        (".gz", gzip.compress(idx(np.ones((3, 28, 28), np.uint8)))[:-9]),
        ("", b"\x00\x00"),
        ("", struct.pack(">2I", 0x801, 3) + bytes(3 * 28 * 28)),
        ("", idx(np.ones((3, 28, 27), np.uint8))),
        ("", idx(np.ones((0, 28, 28), np.uint8))),
        ("", idx(np.ones((3, 28, 28), np.uint8))[:-1]),
    ],
    ids=["html", "cut gzip", "cut header", "labels", "shape", "empty", "cut"],
)
def test_a_corrupt_file_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"{TRAIN}{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        MovingMNIST(tmp_path)


def test_verify_rejects_a_test_set_of_other_digits(root: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MovingMNIST, "checksum", lambda _: "0" * 64)
        with pytest.raises(DataError, match=TEST_SHA256[:12]):
            MovingMNIST(root, split="test").verify(10_000)
        for other in ({"split": "train"}, {"frames": 10}, {"digits": 3}, {"seed": 1}):
            assert MovingMNIST(root, **{"split": "test"} | other).verify(10_000) is None
        assert MovingMNIST(root, split="test").verify(9_999) is None


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif("ZOO_DATA" not in os.environ, reason="ZOO_DATA is not set")
def test_fixed_test_set_has_the_published_checksum() -> None:
    dataset = MovingMNIST(Path(os.environ["ZOO_DATA"]) / "mnist", split="test")
    assert dataset.verify(10_000) == TEST_SHA256
