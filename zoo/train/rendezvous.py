"""Where the processes of a run meet, also after torchrun has restarted them.

torchrun keeps one store for all restarts. Under the names that gloo uses in it, a process that
restarts faster than another finds the address of that other before its restart, and waits for it in
vain. So the processes of each start first agree on a prefix for all names.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

__all__ = ["METHOD", "agree_on_prefix"]

#: The `init_method` of a process group whose processes may be restarted.
METHOD = "zoo://"

PAUSE = 0.05  # seconds


def agree_on_prefix(store: Store, rank: int, processes: int, timeout: timedelta) -> str:
    """Agree with the other processes on a prefix that no earlier start has used.

    Every process draws a name. Process 0 answers whoever is in the store, until each process of
    this start has confirmed the name of process 0, which is the prefix. Answers to names of
    earlier starts have no effect, as their processes have ended.

    Raises:
        torch.distributed.DistStoreError: if a process does not arrive in time.
    """
    own = uuid4().hex
    if rank > 0:
        store.set(f"process {rank}", own)
        store.wait([f"prefix for {own}"], timeout)
        prefix = store.get(f"prefix for {own}").decode()
        store.set(f"{prefix} confirmed by {rank}", "")
        return prefix
    deadline = time.monotonic() + timeout.total_seconds()
    missing = set(range(1, processes))
    while missing and time.monotonic() < deadline:
        for other in sorted(missing):
            if store.check([f"process {other}"]):
                name = store.get(f"process {other}").decode()
                store.set(f"prefix for {name}", own)
        missing = {other for other in missing if not store.check([f"{own} confirmed by {other}"])}
        time.sleep(PAUSE if missing else 0)
    if missing:  # raises
        store.wait([f"{own} confirmed by {other}" for other in missing], timedelta(milliseconds=1))
    return own


def _meet(url: str, timeout: timedelta, **options: Any) -> Iterator[tuple[Store, int, int]]:
    """Meet as the environment says, in a part of the store that belongs to this start."""
    store, rank, processes = next(rendezvous("env://", timeout=timeout, **options))
    prefix = agree_on_prefix(store, rank, processes, timeout)
    yield PrefixStore(prefix, store), rank, processes


register_rendezvous_handler(METHOD.partition(":")[0], _meet)
