"""Downloads with progress that continue where they stopped."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from zoo.progress import progress_bar

__all__ = ["download"]

CHUNK = 2**16  # bytes at a time
TIMEOUT = 30  # seconds without an answer


def download(url: str, path: Path, size: int | None = None, *, limit: int | None = None) -> None:
    """Download a file to `path`.

    When the connection breaks, `path` keeps the part so far, and the next call continues there.

    Args:
        url: Address of the file; redirects are followed.
        path: Where to write it. Its folder exists.
        size: Bytes of the whole file, if known; otherwise the server states them.
        limit: The most bytes that are accepted.

    Raises:
        OSError: If the server cannot be reached, refuses, or closes the connection too early.
        ValueError: If the answer is a web page, or longer than expected.
    """
    done = path.stat().st_size if path.is_file() else 0
    if size is not None and done > size:
        path.unlink()
        done = 0
    if done == size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            _receive(response, path, done, size, limit)
    except urllib.error.HTTPError as error:
        if error.code != 416 or error.headers.get("Content-Range") != f"bytes */{done}":
            raise
        # The part is the whole file: the process was killed after its last byte.
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _receive(
    response: http.client.HTTPResponse, path: Path, done: int, size: int | None, limit: int | None
) -> None:
    """Write the body of an answer after the first `done` bytes of the file."""
    if response.headers.get_content_type() == "text/html":
        raise ValueError("the answer is a web page, not a file")
    if done and response.status != 206:  # the server sends all of it again
        done = 0
    length = response.headers["Content-Length"]
    if size is None and length is not None:
        size = done + int(length)
    most = limit if size is None else size if limit is None else min(size, limit)
    with (
        path.open("ab" if done else "wb") as target,
        progress_bar(f"downloading {path.name.removesuffix('.part')}", size or 0, done) as bar,
    ):
        while chunk := response.read(CHUNK):
            done += len(chunk)
            if most is not None and done > most:
                raise ValueError(f"more than {most:,} bytes")
            target.write(chunk)
            bar(done, total=size)
    if size is not None and done < size:
        raise OSError(f"the connection closed after {done:,} of {size:,} bytes")
