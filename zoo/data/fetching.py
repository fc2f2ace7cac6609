"""Resumable downloads with progress and checksums."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from zoo.data.dataset import RemoteFile
from zoo.errors import DataError
from zoo.progress import progress_bar

__all__ = ["fetch"]

CHUNK = 2**16  # bytes at a time
TIMEOUT = 30  # seconds without an answer


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
            _download(url, part, file)
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


def _download(url: str, part: Path, file: RemoteFile) -> None:
    size = part.stat().st_size if part.is_file() else 0
    if size > file.size:
        part.unlink()
        size = 0
    if size == file.size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={size}-"} if size else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if size and response.status != 206:  # the server sends all of it again
            size = 0
        with (
            part.open("ab" if size else "wb") as target,
            progress_bar(f"downloading {file.name}", file.size, size) as bar,
        ):
            while chunk := response.read(CHUNK):
                target.write(chunk)
                size += len(chunk)
                bar(size, "")
                if size > file.size:
                    raise ValueError(f"more than {file.size:,} bytes")
    if size < file.size:
        raise ValueError(f"the connection closed after {size:,} of {file.size:,} bytes")


def _checksum(path: Path, file: RemoteFile) -> str:
    """Return the checksum of a file, of the kind that was published."""
    digest = hashlib.new("md5" if len(file.checksum) == 32 else "sha256")
    with path.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
