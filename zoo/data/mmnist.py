"""Moving MNIST: handwritten digits that move on straight lines and bounce off the frame."""

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from zoo.data.dataset import FrameDataset, RemoteFile
from zoo.errors import ZooError

__all__ = ["TEST_SHA256", "MovingMNIST"]

TEST_SHA256 = "b6298fee371b04a7925648f454b44b10973cbf8bc176560c7f4c0fed86e86817"
"""Checksum of the fixed test set: ``split="test"``, 10,000 sequences, all else as by default."""

FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
DIGIT = 28  # pixels, height and width
SPEEDS = (2, 3, 4, 5, 6)  # pixels a frame
MARGIN = 2  # pixels that a digit may leave the frame by before it turns


class MovingMNIST(FrameDataset):
    """Sequences of moving digits, made when asked for; ``dataset[i]`` is (T, 1, size, size).

    Values are float32 in [0, 1]. Sequence ``i`` depends on ``split``, ``seed`` and ``i`` (and
    on ``frames``, ``digits`` and ``size``) alone, not on the batch, process or machine that
    makes it, so ``sequences`` may be as large as wished.

    Each digit starts uniformly in the free area, size − 28 in each direction, moves in a
    direction uniform in (−π, π] at 2, 3, 4, 5 or 6 pixels a frame, and is drawn at the
    integer part of its position. A digit whose next position would be more than 2 pixels
    outside the free area has that component of its velocity turned before it moves. Digits
    add up, clipped at 255. After Srivastava et al. (2015), arXiv 1502.04681, as made for the
    recurrent models of MS-LSTM, arXiv 2304.07724.

    ``root`` holds the files of MNIST, gzipped or not; ``split`` is ``"train"`` (the 60,000
    training digits) or ``"test"`` (the 10,000 others). Raises ZooError for a file that is
    missing or damaged and for options outside their range.
    """

    title = "Moving MNIST"
    folder = "mnist"
    licence = "CC BY-SA 3.0 (MNIST, Y. LeCun, C. Cortes, C. J. C. Burges)"
    source = "zoo data fetch mmnist"
    layout = "train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz"
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
        sequences: int = 10_000,
        frames: int = 20,
        digits: int = 2,
        size: int = 64,
        seed: int = 0,
    ) -> None:
        if split not in FILES:
            raise ZooError(f"split is {split!r}; choose one of {', '.join(FILES)}")
        # In a smaller frame a digit that turns could find itself beyond the other side.
        smallest = DIGIT + 2 * max(SPEEDS) - 2 * MARGIN
        for name, value, least in (
            ("sequences", sequences, 1),
            ("frames", frames, 1),
            ("digits", digits, 1),
            ("size", size, smallest),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ZooError(f"{name} is {value}; Moving MNIST needs {least} or more")
        self.split, self.sequences, self.frames = split, sequences, frames
        self.digits, self.size, self.seed = digits, size, seed
        self.root = Path(root)
        self.images = _read_images(self.root, FILES[split])

    @property
    def data(self) -> dict[str, Any]:
        """The size of the frames; they are pictures."""
        return {"size": (self.size, self.size)}

    def __len__(self) -> int:
        """Number of sequences."""
        return self.sequences

    def __getitem__(self, index: int) -> Tensor:
        """One sequence, (T, 1, size, size) in [0, 1]; raises IndexError past the end."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """Many sequences at once, which is how a DataLoader asks for a batch."""
        return list(torch.from_numpy(self.batch(indices)).float().div_(255))

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """The sequences of these indices as uint8, (N, T, 1, size, size)."""
        images, start, velocity = self.draws(indices)
        corners = rearrange(self._corners(start, velocity), "t n d yx -> d yx (n t)")
        # A canvas with a margin holds digits that are partly outside; the frame is cut from it.
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
        """All that chance decides: images (N, D, 28, 28), start and velocity (N, D, 2) as y, x.

        Start is in pixels, velocity in pixels a frame.
        """
        # range() minds the bounds and understands negative indices.
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

    def checksum(self) -> str:
        """SHA-256 of the uint8 bytes of all sequences in order, in hexadecimal."""
        sha = hashlib.sha256()
        chunk = 64  # sequences; its canvas stays in the cache
        for first in range(0, self.sequences, chunk):
            sha.update(self.batch(range(first, min(first + chunk, self.sequences))).data)
        return sha.hexdigest()

    def _corners(self, start: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Where the digits' upper left corners are drawn, in whole pixels, (T, N, D, 2)."""
        position, corners = start, []
        for _ in range(self.frames):
            corners.append(position.astype(np.int64))  # towards zero, as int() does
            ahead = position + velocity
            out = (ahead < -MARGIN) | (ahead > self.size - DIGIT + MARGIN)
            velocity = np.where(out, -velocity, velocity)
            position = position + velocity
        return np.stack(corners)


def _uniform(*words: int | np.ndarray) -> np.ndarray:
    """Uniform float64 in [0, 1), a pure function of the words, which broadcast.

    A hash (the finaliser of SplitMix64, Steele et al. 2014, taken once a word) and not a
    generator: a generator a sequence would be a Python loop and one for all of them would
    make a sequence depend on those before it.
    """
    state = np.zeros(1, dtype=np.uint64)  # an array: its arithmetic wraps without a warning
    for word in words:
        state = (state ^ np.asarray(word, dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)) * 2.0**-53


def _read_images(root: Path, name: str) -> np.ndarray:
    """The images of an idx file, gzipped or not, as uint8 (count, 28, 28)."""
    path = next((p for p in (root / f"{name}.gz", root / name) if p.is_file()), None)
    if path is None:
        raise ZooError(
            f"no {name}.gz in {root}: put the four files of MNIST there, "
            "or set ZOO_DATA to the folder that holds mnist/"
        )
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ZooError(f"{path} is no whole gzip file ({error}); fetch it again") from error
    magic, count, *shape = np.frombuffer(data[:16].ljust(16, b"\0"), dtype=">u4").tolist()
    if magic != 0x803 or shape != [DIGIT, DIGIT] or count < 1:
        raise ZooError(f"{path} is no idx file of {DIGIT}×{DIGIT} images; fetch it again")
    if len(data) != 16 + count * DIGIT**2:
        raise ZooError(
            f"{path} has {len(data):,} bytes; its {count:,} images need "
            f"{16 + count * DIGIT**2:,}: fetch it again"
        )
    pixels = np.frombuffer(data, dtype=np.uint8, offset=16)
    return rearrange(pixels, "(n h w) -> n h w", h=DIGIT, w=DIGIT)
