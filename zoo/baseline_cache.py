"""Scores of baselines on fixed data, kept in the user's cache.

They are the same for every model. The key covers all that they depend on: the checksum of the
data, the protocol, the code of this package and the versions of the libraries behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo.atomic import atomic_path
from zoo.errors import ZooError
from zoo.hub.places import LIBRARY
from zoo.protocol import EvalData, protocol

__all__ = ["BaselineCache"]

#: Distributions that compute baselines and metrics.
LIBRARIES = ("torch", "numpy", "pysteps", "opencv-python", "opencv-python-headless")


class BaselineCache:
    """The scores of baselines on one set of data, a JSON file for each baseline.

    Args:
        evaluated: The data.
        checksum: Their checksum.
        settings: What else the scores depend on, such as thresholds.
    """

    def __init__(self, evaluated: EvalData, checksum: str, settings: Sequence[Any]) -> None:
        from huggingface_hub import cached_assets_path, constants

        versions = {name: _version(name) for name in LIBRARIES}
        facts = [checksum, protocol(evaluated, ()), *settings, versions, _code()]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.folder: Path = cached_assets_path(
            LIBRARY, "baselines", key[:16], assets_dir=constants.HF_ASSETS_CACHE
        )

    def read(self, baselines: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the scores of those baselines that are in the cache, by name."""
        found = {}
        for name in baselines:
            try:
                found[name] = json.loads(self._path(name).read_text(encoding="utf-8"))
            except (OSError, ValueError):  # not there, or damaged: measured again
                continue
        return found

    def write(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Add scores by name. Without a writable cache, nothing happens."""
        for name, values in scores.items():
            try:
                with atomic_path(self._path(name)) as temporary:
                    temporary.write_text(json.dumps(values), encoding="utf-8")
            except (OSError, ZooError):
                return

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.json"


def _code() -> str:
    """Return a hash of all modules of this package."""
    package, sha = Path(__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
