"""Downloads: with progress, a checksum, and going on where one was broken off."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from zoo.data.dataset import RemoteFile
from zoo.errors import ZooError
from zoo.progress import progress_bar

__all__ = ["fetch"]

CHUNK = 2**16  # bytes at a time
TIMEOUT = 30  # seconds without an answer


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Bring a file into `folder`, unless it is there, and return its path.

    What has come is kept as NAME.part when the connection breaks, and the next call goes on from
    there. The file gets its name when size and checksum are right. Raises ZooError where no
    place has it, or where it is not what was published.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file() and path.stat().st_size == file.size and _checksum(path, file) == "right":
        return path
    problems = []
    for url in file.urls:
        try:
            _download(url, part, file)
        except (OSError, ValueError) as error:  # URLError and time-outs are OSErrors
            problems.append(f"{url}: {error}")
            continue
        if (found := _checksum(part, file)) == "right":
            os.replace(part, path)
            return path
        part.unlink()  # of no use: the next try begins anew
        problems.append(f"{url}: the checksum is {found}, expected {file.checksum}")
    raise ZooError(
        f"{file.name} could not be fetched ({'; '.join(problems)}); try again, or put it into "
        f"{folder} yourself"
    )


def _download(url: str, part: Path, file: RemoteFile) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if have > file.size:
        part.unlink()
        have = 0
    if have == file.size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if have and answer.status != 206:  # it sends all of it again
            have = 0
        with (
            part.open("ab" if have else "wb") as target,
            progress_bar(f"fetching {file.name}", file.size, have) as bar,
        ):
            while chunk := answer.read(CHUNK):
                target.write(chunk)
                have += len(chunk)
                bar(have, "")
                if have > file.size:
                    raise ValueError(f"it sends more than {file.size:,} bytes")
    if have < file.size:
        raise ValueError(f"it broke off after {have:,} of {file.size:,} bytes")


def _checksum(path: Path, file: RemoteFile) -> str:
    """ "right", or what the checksum is."""
    digest = hashlib.new("md5" if len(file.checksum) == 32 else "sha256")
    with path.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    found = digest.hexdigest()
    return "right" if found == file.checksum else found
