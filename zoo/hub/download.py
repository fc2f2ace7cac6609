"""What may be downloaded from the Hugging Face Hub, or from any server that answers for it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from zoo.errors import HubError
from zoo.model_folder import LARGEST, LARGEST_PICTURE, PARTS, WEIGHTS

__all__ = ["LARGEST_FILE", "check_listing", "limited"]

#: The largest answer of the server that is not a file, in bytes.
LARGEST_ANSWER = 16 << 20

#: The largest file whose size the server does not state, in bytes.
LARGEST_FILE = 64 << 30

#: The most files of a model.
MOST_FILES = 100

#: The least bytes per second of a transfer, and the seconds after which it is measured.
SLOWEST, PATIENCE = 1024, 60.0

#: Values of headers by which the client names files of its cache.
SAFE = re.compile(r'(W/)?"?[\w-][\w.+:-]*"?')


def check_listing(repository: str, commit: str, files: dict[str, int | None]) -> dict[str, int]:
    """Return the files of a repository that are parts of a model, and their sizes.

    Args:
        repository: the repository, for messages.
        commit: the identifier of its commit.
        files: the sizes of its files by name, as far as they are known.

    Raises:
        HubError: if the listing is not that of a model.
    """
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise HubError(f"{repository} has the invalid commit {commit!r}; choose another hub")
    parts = {
        name: LARGEST_FILE if size is None else size
        for name, size in files.items()
        if name.isprintable() and any(_matches(name, part) for part in PARTS)
    }
    if len({name.casefold() for name in parts}) < len(parts):
        raise HubError(f"{repository} has files whose names differ only in case; rename them")
    if len(parts) > MOST_FILES:
        raise HubError(f"{repository} has {len(parts)} files; a model has at most {MOST_FILES}")
    for name, size in parts.items():
        largest = LARGEST_PICTURE if name.endswith((".gif", ".png")) else LARGEST
        if name != WEIGHTS and files[name] is not None and size > largest:
            raise HubError(f"{name} of {repository} exceeds {largest:,} bytes; make it smaller")
    return parts


def _matches(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern in which * is not a folder."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


@contextmanager
def limited(largest: int = LARGEST_ANSWER) -> Iterator[None]:
    """Bound what the client of the Hub receives in the block.

    Args:
        largest: the largest file, in bytes.
    """
    from huggingface_hub import get_session

    client: Any = get_session()
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "response": [*hooks["response"], partial(_limit, largest)]}
    try:
        yield
    finally:
        client.event_hooks = hooks


def _limit(largest: int, response: Any) -> None:
    """Check the headers of a response, and bound its body before anything is read from it."""
    path = response.request.url.path
    for name in ("x-repo-commit", "x-linked-etag", *(["etag"] if "/resolve/" in path else [])):
        if not SAFE.fullmatch(value := response.headers.get(name, "-")):
            raise HubError(f"the server sent the invalid {name} {value[:80]!r}; try another hub")
    if path.startswith("/api/"):
        largest = LARGEST_ANSWER
    library = sys.modules[type(response).__module__.partition(".")[0]]  # httpx or its successor
    body = response.stream

    class Bounded(library.SyncByteStream):  # type: ignore[name-defined]
        def __iter__(self) -> Iterator[bytes]:
            return _bounded(body, path, largest)

        def close(self) -> None:
            body.close()

    response.stream = Bounded()


def _bounded(body: Any, path: str, largest: int) -> Iterator[bytes]:
    received, start = 0, time.monotonic()
    for chunk in body:
        received += len(chunk)
        seconds = time.monotonic() - start
        if received > largest:
            raise HubError(
                f"the server sent more than {largest:,} bytes of {path}; try another hub"
            )
        if seconds > PATIENCE and received < seconds * SLOWEST:
            raise HubError(
                f"the server sent {received} bytes of {path} in {seconds:.0f} s; try again"
            )
        yield chunk
