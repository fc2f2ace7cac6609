"""Downloads of the files of data sets, with checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from zoo.data.dataset import RemoteFile
from zoo.errors import DataError
from zoo.fetching import download

__all__ = ["fetch"]


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Download a file into `folder`, unless it exists, and return its path.

    When the connection breaks, the part so far is saved as NAME.part and the next call continues
    there. The file gets its name once size and checksum are verified.

    Raises:
        DataError: If no URL works, or the file differs from the published one.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file() and _checksum(path, file) == file.checksum:
        return path
    problems = []
    for url in file.urls:
        try:
            download(url, part, file.size)
        except (OSError, ValueError) as error:  # URLError and time-outs are OSErrors
            problems.append(f"{url}: {error}")
            continue
        checksum = _checksum(part, file)
        if checksum == file.checksum:
            os.replace(part, path)
            return path
        part.unlink()  # the next attempt starts from zero
        problems.append(f"{url}: the checksum is {checksum}, expected {file.checksum}")
    raise DataError(
        f"{file.name} could not be downloaded ({'; '.join(problems)}); try again, or put it into "
        f"{folder} yourself"
    )


def _checksum(path: Path, file: RemoteFile) -> str:
    """Return the checksum of a file, of the kind that was published."""
    digest = hashlib.new("md5" if len(file.checksum) == 32 else "sha256")
    with path.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
