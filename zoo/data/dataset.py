"""The contract of a data set: sequences of frames, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from zoo.config import Data

__all__ = ["FrameDataset", "RemoteFile"]


class RemoteFile(NamedTuple):
    """A file that may be downloaded: its name, places to get it, bytes, and MD5 or SHA-256."""

    name: str
    urls: tuple[str, ...]
    size: int
    checksum: str


class FrameDataset(Dataset[Tensor]):
    """Sequences of frames: ``dataset[i]`` is float32 (T, C, H, W), NaN where missing.

    Values are scaled so that the range of the data is [0, 1]; on a linear scale one beyond the
    range of the training part is beyond [0, 1].

    A plugin provides one by ``zoo_datasets()`` as a class that is made with the folder of its
    files, ``split`` ("train", "valid" or "test") and ``frames`` (T), and options of its own as
    keywords. It should raise ZooError for files that are absent or broken. A data set whose
    numbers are no intensities says so by :attr:`data`. ``zoo data info`` prints the class
    attributes and the docstring.

    title: its name in full. folder: where under the data root its files are. licence, source:
    on what terms and from where they can be had. layout: the files as they have to lie there.
    counts: how many frames or sequences there are, and what is published of checksums.
    downloads: files that ``zoo data fetch`` may bring, none where a licence must be accepted.
    """

    title: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    source: ClassVar[str] = ""
    layout: ClassVar[str] = ""
    counts: ClassVar[str] = ""
    downloads: ClassVar[tuple[RemoteFile, ...]] = ()

    @property
    def data(self) -> dict[str, Any]:
        """What the numbers mean: fields of :class:`zoo.config.Data`, for a model's config."""
        return {}

    @property
    def record(self) -> Data:
        """The same, as a record."""
        return Data.parse(self.data, source=f"the data set {type(self).__name__}")

    def __len__(self) -> int:
        """Number of sequences."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Tensor:
        """One sequence, (T, C, H, W)."""
        raise NotImplementedError

    def describe(self) -> dict[str, str]:
        """Facts of what was found, for people: by name, as they are printed."""
        return {"sequences": f"{len(self):,}"}

    def scan(self) -> Iterator[tuple[int, int]]:
        """Read everything once, for ``zoo data check``; yields (done, total) on the way.

        Raises ZooError at the first file that is broken.
        """
        for index in range(len(self)):
            self[index]
            yield index + 1, len(self)

    def prepare(self, output: Path) -> Iterator[tuple[int, int]]:
        """Write into the folder `output` what is quicker to read; yields (done, total)."""
        from zoo.errors import ZooError

        raise ZooError(f"{self.title or type(self).__name__} needs no preparation; use it as it is")
        yield 0, 0
