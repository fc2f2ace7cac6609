"""Moving MNIST: handwritten digits that move on straight lines and bounce off the frame."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor

from zoo.config import Data
from zoo.data.dataset import FrameDataset, RemoteFile
from zoo.errors import ConfigError, DataError
from zoo.inputs import check_bytes, decoding, open_bytes

__all__ = ["TEST_SHA256", "MovingMNIST"]

TEST_SHA256 = "b6298fee371b04a7925648f454b44b10973cbf8bc176560c7f4c0fed86e86817"
"""Checksum of the fixed test set: ``split="test"``, 10,000 sequences, and the other defaults."""

SEQUENCES = 10_000  # of the fixed test set

FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
HEADER = 16  # bytes
DIGIT = 28  # pixels, height and width
SPEEDS = (2, 3, 4, 5, 6)  # pixels a frame
LARGEST = 2**24  # pixels of a sequence
MARGIN = 2  # pixels by which a digit may leave the frame before it bounces


class MovingMNIST(FrameDataset):
    """Sequences of moving digits, generated on demand; ``dataset[i]`` is (T, 1, size, size).

    Values are float32 in [0, 1]. Sequence ``i`` depends only on ``split``, ``seed`` and ``i`` (and
    on ``frames``, ``digits`` and ``size``), not on the batch, process or machine that generates
    it, so ``sequences`` may be arbitrarily large.

    Each digit starts at a uniform position in the free area, size − 28 in each direction, moves in
    a direction uniform in (−π, π] at 2, 3, 4, 5 or 6 pixels a frame, and is drawn at the integer
    part of its position. If its next position would be more than 2 pixels outside the free area,
    that component of its velocity is reversed before it moves. Digits are added and clipped at
    255. After Srivastava et al. (2015), arXiv 1502.04681, as generated for the recurrent models
    of MS-LSTM, arXiv 2304.07724.

    root: Folder with the files of MNIST, gzipped or not.
    split: "train" (the 60,000 training digits) or "test" (the 10,000 others).
    sequences: Number of sequences.
    digits: Digits of a sequence.
    size: Height and width.
    seed: Seed of the generator.
    """

    title = "Moving MNIST"
    folder = "mnist"
    license = "CC BY-SA 3.0 (MNIST, Y. LeCun, C. Cortes, C. J. C. Burges)"
    source = "zoo data fetch mmnist"
    layout = "train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz"
    endless = True
    counts = (
        "60,000 digits to train and 10,000 to test; any number of sequences; SHA-256 of the 10,000 "
        f"test sequences {TEST_SHA256}"
    )
    downloads = tuple(
        RemoteFile(f"{name}.gz", tuple(f"{mirror}/{name}.gz" for mirror in MIRRORS), size, md5)
        for name, size, md5 in (
            ("train-images-idx3-ubyte", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("t10k-images-idx3-ubyte", 1648877, "9fb629c4189551a2d022fa330f9573f3"),
        )
    )

    def __init__(
        self,
        root: Path,
        *,
        split: str = "train",
        sequences: int = SEQUENCES,
        frames: int = 20,
        digits: Annotated[int, Field(le=100)] = 2,
        size: Annotated[int, Field(le=1024)] = 64,
        seed: int = 0,
    ) -> None:
        if split not in FILES:
            raise ConfigError(f"split is {split!r}; expected one of {', '.join(FILES)}")
        # In a smaller frame a digit that bounces could leave it on the other side.
        smallest = DIGIT + 2 * max(SPEEDS) - 2 * MARGIN
        for name, value, least in (
            ("sequences", sequences, 1),
            ("frames", frames, 1),
            ("digits", digits, 1),
            ("size", size, smallest),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} is {value}; Moving MNIST needs at least {least}")
        if frames * size**2 > LARGEST:
            raise ConfigError(
                f"{frames} frames of {size}×{size} are too many; at most {LARGEST:,} pixels in all"
            )
        self.split, self.sequences, self.frames = split, sequences, frames
        self.digits, self.size, self.seed = digits, size, seed
        self.root = Path(root)
        self.images = _read_images(self.root, FILES[split])
        self.data = Data(size=(size, size))

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self.sequences

    def __getitem__(self, index: int) -> Tensor:
        """Return a sequence, (T, 1, size, size) in [0, 1]; raise IndexError past the end."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """Return several sequences at once, as a DataLoader requests a batch."""
        return list(torch.from_numpy(self.batch(indices)).float().div_(255))

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Return the sequences of these indices as uint8, (N, T, 1, size, size)."""
        images, start, velocity = self.draws(indices)
        corners = rearrange(self._corners(start, velocity), "t n d yx -> d yx (n t)")
        # Digits partly outside are drawn on a canvas with a margin, which is then cropped.
        side = self.size + 2 * MARGIN
        canvas = np.zeros((len(indices) * self.frames, side, side), dtype=np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(
            canvas, (DIGIT, DIGIT), axis=(1, 2), writeable=True
        )
        each = np.arange(len(canvas))
        for image, (y, x) in zip(images.swapaxes(0, 1), corners, strict=True):
            place = (each, y + MARGIN, x + MARGIN)
            below = windows[place]
            ink = np.repeat(image, self.frames, axis=0)
            windows[place] = below + np.minimum(ink, 255 - below)  # adds without overflow
        inside = slice(MARGIN, MARGIN + self.size)
        cut = np.ascontiguousarray(canvas[:, inside, inside])
        return rearrange(cut, "(n t) h w -> n t 1 h w", t=self.frames)

    def draws(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return everything random about sequences.

        Returns:
            Images (N, D, 28, 28), start (N, D, 2) in pixels and velocity (N, D, 2) in pixels a
            frame, both as y, x.
        """
        # range() checks the bounds and understands negative indices.
        index = np.array([range(self.sequences)[i] for i in indices], dtype=np.uint64)
        digit = np.arange(self.digits, dtype=np.uint64)
        which, y, x, direction, speed = (
            _uniform(self.seed, list(FILES).index(self.split), index[:, None], digit, draw)
            for draw in range(5)
        )
        image = self.images[(which * len(self.images)).astype(np.int64)]
        start = np.stack([y, x], axis=-1) * (self.size - DIGIT)
        angle = np.pi * (1 - 2 * direction)  # (−π, π], as direction is in [0, 1)
        pace = np.array(SPEEDS)[(speed * len(SPEEDS)).astype(np.int64)]
        velocity = np.stack([np.sin(angle), np.cos(angle)], axis=-1) * pace[..., None]
        return image, start, velocity

    def verify(self, count: int) -> str | None:
        """Verify the checksum of the fixed test set, if `count` is all of it."""
        made = self.split, self.frames, self.digits, self.size, self.seed, self.sequences, count
        if made != ("test", 20, 2, 64, 0, SEQUENCES, SEQUENCES):
            return None
        if self.checksum() != TEST_SHA256:
            raise DataError(
                f"the test set generated from {self.root} does not have the checksum "
                f"{TEST_SHA256[:12]}…; download the files of MNIST again"
            )
        return TEST_SHA256

    def checksum(self) -> str:
        """Return the SHA-256 of the uint8 bytes of all sequences in order, in hexadecimal."""
        sha = hashlib.sha256()
        chunk = 64  # sequences, whose canvas fits into the cache
        for first in range(0, self.sequences, chunk):
            sha.update(self.batch(range(first, min(first + chunk, self.sequences))).data)
        return sha.hexdigest()

    def _corners(self, start: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Return the upper left corners of the digits in whole pixels, (T, N, D, 2)."""
        position, corners = start, []
        for _ in range(self.frames):
            corners.append(position.astype(np.int64))  # towards zero, as int() does
            ahead = position + velocity
            out = (ahead < -MARGIN) | (ahead > self.size - DIGIT + MARGIN)
            velocity = np.where(out, -velocity, velocity)
            position = position + velocity
        return np.stack(corners)


def _uniform(*words: int | np.ndarray) -> np.ndarray:
    """Return uniform float64 in [0, 1), a pure function of the words, which broadcast.

    This is a hash (the finalizer of SplitMix64, Steele et al. 2014, once a word) rather than a
    generator: one generator a sequence would need a Python loop, and one for all would make
    a sequence depend on those before it.
    """
    state = np.zeros(1, dtype=np.uint64)  # an array: its arithmetic wraps without a warning
    for word in words:
        state = (state ^ np.asarray(word, dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)) * 2.0**-53


def _read_images(root: Path, name: str) -> np.ndarray:
    """Return the images of an idx file, gzipped or not, as uint8 (count, 28, 28)."""
    path = next((p for p in (root / f"{name}.gz", root / name) if p.exists()), None)
    if path is None:
        raise DataError(
            f"no {name}.gz in {root}: run zoo data fetch mmnist, or set ZOO_DATA to the folder "
            "that contains mnist/"
        )
    with decoding(path), open_bytes(path) as file:
        header = file.read(HEADER).ljust(HEADER, b"\0")
        magic, count, *shape = np.frombuffer(header, dtype=">u4").tolist()
        if magic != 0x803 or shape != [DIGIT, DIGIT] or count < 1:
            raise DataError(
                f"{path} is not an idx file of {DIGIT}×{DIGIT} images; download it again"
            )
        size = count * DIGIT**2
        check_bytes(path, size)
        content = file.read(size + 1)
    if len(content) != size:
        found = f"{len(content):,}" if len(content) < size else "more"
        raise DataError(
            f"{path} has {found} bytes after its header, expected {size:,} for {count:,} images; "
            "download it again"
        )
    pixels = np.frombuffer(content, dtype=np.uint8)
    return rearrange(pixels, "(n h w) -> n h w", h=DIGIT, w=DIGIT)
