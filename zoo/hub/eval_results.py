"""Scores in the form that leaderboards of the Hugging Face Hub read: ``.eval_results/*.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.atomic import atomic_path, make_folder
from zoo.errors import ConfigError, HubError
from zoo.hub.places import NAME
from zoo.model_folder import EVAL_RESULTS, read_text, writable_part

__all__ = ["write_eval_results"]


def write_eval_results(
    folder: Path, metrics: dict[str, Any], benchmark: str | None = None
) -> list[Path]:
    """Write the scores of a model for a benchmark on the Hub, and update those written before.

    A score of the forecast frames belongs to the benchmark's task ``forecast-<metric>``, one of
    all steps to ``all-steps-<metric>``.

    Args:
        folder: the model folder.
        metrics: its metrics.json.
        benchmark: the data set on the Hub that defines the benchmark, org/name.

    Returns:
        The files.

    Raises:
        ConfigError: if the benchmark is not a data set's name, or huggingface_hub is too old.
        HubError: if an existing file cannot be read.
    """
    benchmarks = {_benchmark(path): path.name for path in sorted(folder.glob(EVAL_RESULTS))}
    if benchmark:
        if not re.fullmatch(f"{NAME.pattern}/{NAME.pattern}", benchmark):
            raise ConfigError(f"{benchmark!r} is not a data set on the Hub; expected org/name")
        benchmarks.setdefault(benchmark, f"{benchmark.replace('/', '--')}.yaml")
    return [_write(folder, metrics, known, file) for known, file in benchmarks.items()]


def _write(folder: Path, metrics: dict[str, Any], benchmark: str, file: str) -> Path:
    from huggingface_hub.utils import yaml_dump

    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError:
        raise ConfigError(
            "this version of huggingface_hub writes no evaluation results; "
            "upgrade it: pip install -U huggingface_hub"
        ) from None
    protocol = metrics.get("protocol", {}).get("id")
    entries = [
        EvalResultEntry(
            dataset_id=benchmark,
            task_id=f"{frames}-{metric}",
            value=value,
            notes=f"zoo eval, protocol {protocol}" if protocol else "zoo eval",
        )
        for frames in ("forecast", "all-steps")
        for metric, value in metrics[frames]["model"].items()
        if value is not None
    ]
    make_folder((folder / EVAL_RESULTS).parent)
    path = writable_part((folder / EVAL_RESULTS).parent, file)
    with atomic_path(path) as temporary:
        text = yaml_dump(eval_result_entries_to_yaml(entries))
        temporary.write_text(text, encoding="utf-8")
    return path


def _benchmark(path: Path) -> str:
    """The benchmark of an existing file."""
    found = re.search(r"^\s+id: ['\"]?([\w.-]+/[\w.-]+)", read_text(path), re.MULTILINE)
    if not found:
        raise HubError(f"{path} names no data set; delete it, and: zoo card --benchmark ORG/NAME")
    return found[1]
