"""The contract of a data set: sequences of frames, and what their values mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from zoo.config import Data
from zoo.errors import DataError

__all__ = ["FrameDataset", "RemoteFile", "data_of", "times_of"]


class RemoteFile(NamedTuple):
    """A file that can be downloaded.

    Attributes:
        name: File name.
        urls: Where to download it from, in order of preference.
        size: Bytes.
        checksum: MD5 or SHA-256, in hexadecimal.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    checksum: str


class FrameDataset(Dataset[Tensor]):
    """Sequences of frames: ``dataset[i]`` is float32 (T, C, H, W), NaN where missing.

    The range of the data is scaled to [0, 1]. On a linear scale, values beyond the range of the
    training part are beyond [0, 1].

    A plugin offers a subclass through ``zoo_datasets()``. It is called with the folder of its
    files, ``split`` ("train", "valid" or "test"), ``frames`` (T) and its own options as
    keywords, and raises DataError for missing or corrupt files. ``zoo data info`` prints the
    class attributes and the docstring.

    Attributes:
        title: Full name.
        folder: Folder of its files in the data root; by default its name.
        license: Terms of use.
        source: Where to get the files.
        layout: Names and places of the files in the folder.
        counts: Numbers of frames or sequences, and published checksums.
        downloads: Files that ``zoo data fetch`` downloads; none if a license must be accepted.
        endless: Whether sequences are generated, so that training draws new ones at every step.
            The class then takes the options ``sequences`` and ``seed``.
        data: What the values mean: :class:`zoo.config.Data` or a dict of its fields. By default
            intensities from 0 to 1.
    """

    title: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    license: ClassVar[str] = ""
    source: ClassVar[str] = ""
    layout: ClassVar[str] = ""
    counts: ClassVar[str] = ""
    downloads: ClassVar[tuple[RemoteFile, ...]] = ()
    endless: ClassVar[bool] = False
    data: Data | Mapping[str, Any] = Data()

    def __len__(self) -> int:
        """Return the number of sequences."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Tensor:
        """Return a sequence, (T, C, H, W)."""
        raise NotImplementedError

    def describe(self) -> dict[str, str]:
        """Return facts about the data for people, by name."""
        return {"sequences": f"{len(self):,}"}

    def scan(self) -> Iterator[tuple[int, int]]:
        """Read everything once.

        Yields:
            Items read and in total.

        Raises:
            DataError: At the first corrupt file.
        """
        for index in range(len(self)):
            self[index]
            yield index + 1, len(self)

    def prepare(self, output: Path) -> Iterator[tuple[int, int]]:
        """Write a copy that is faster to read into the folder `output`.

        Yields:
            Frames written and in total.
        """
        raise DataError(f"{self.title or type(self).__name__} needs no preparation; use it as is")
        yield 0, 0

    def verify(self, count: int) -> str | None:
        """Verify the published checksum of the first `count` sequences.

        Returns:
            The checksum, or None if none is published for them.

        Raises:
            DataError: If the sequences differ from the published ones.
        """
        return None


def times_of(dataset: object, indices: Iterable[int]) -> np.ndarray | None:
    """Return the times of sequences, (B, T) of datetime64; None if they are not known."""
    when = getattr(dataset, "when", None)  # only data sets of recordings have times
    rows = [] if when is None else [when(index) for index in indices]
    return None if not rows or any(row is None for row in rows) else np.stack(rows)


def data_of(dataset: object) -> Data:
    """Return what the values of a data set mean, as a :class:`zoo.config.Data`."""
    fields = getattr(dataset, "data", Data())
    if isinstance(fields, Data):
        return fields
    return Data.parse(fields, source=f"the data set {type(dataset).__name__}")
