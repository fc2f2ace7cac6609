"""A limit on the time of a block, for tests of hostile input."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_hang(seconds: int) -> Iterator[None]:
    """Fail if the block takes longer; each attempt takes milliseconds."""

    def stop(*_: object) -> None:
        pytest.fail("timeout")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
