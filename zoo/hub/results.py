"""Tables of all scores of a folder of models: CSV, and Markdown for a README."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from zoo.errors import HubError
from zoo.hub.scores import (
    PROTOCOLS,
    full_title,
    main_metrics,
    measured,
    protocol_of,
    protocols,
    score_label,
    shown,
)
from zoo.model_folder import read_config, read_metrics
from zoo.tables import markdown_table

__all__ = ["models_tables", "results_table"]


def results_table(folder: Path) -> str:
    """Return the scores of all evaluated models in a folder of models, as CSV.

    A row has the scores of one model, or of a baseline, on one data set, over the forecast frames
    or over all steps; a column is a metric. Rows compare if data set and protocol are the same.
    Scores that were measured before protocols had IDs have one that begins with "data-", a hash of
    the data and frames.
    """
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for path in sorted(folder.glob("*/metrics.json")):
        metrics, name = read_metrics(path.parent), path.parent.name
        if not {"data", *PROTOCOLS} <= metrics.keys():
            continue  # it was trained and not yet measured
        data, protocol = metrics["data"]["name"], _protocol(metrics)
        for frames in PROTOCOLS:
            for who, scores in metrics[frames].items():
                is_model = who == "model"
                key = (
                    data,
                    protocol,
                    frames,
                    "" if is_model else "baseline",
                    name if is_model else who,
                )
                rows[key] = {
                    "data": data,
                    "protocol": protocol,
                    "frames": frames,
                    "name": key[-1],
                    "architecture": read_config(path.parent).architecture if is_model else "",
                    **{m: "" if v is None else f"{v:.6g}" for m, v in scores.items()},
                }
    named = ["data", "protocol", "frames", "name", "architecture"]
    metrics_found = sorted({column for row in rows.values() for column in row} - {*named})
    out = io.StringIO()
    writer = csv.DictWriter(out, [*named, *metrics_found], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows))
    return out.getvalue()


def _protocol(metrics: dict[str, Any]) -> str:
    """The ID of the protocol."""
    if "protocol" in metrics:
        return str(metrics["protocol"]["id"])
    digest = hashlib.sha256(json.dumps(metrics["data"], sort_keys=True).encode()).hexdigest()
    return f"data-{digest[:12]}"


def models_tables(folder: Path) -> str:
    """Return Markdown tables of the evaluated models in a folder of models, one for each data.

    Data of one title share a table. The best forecast comes first; baselines come last.

    Raises:
        HubError: if models of the same data were not evaluated in the same way.
    """
    by_data: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*/metrics.json")):
        metrics = measured(path.parent)
        by_data.setdefault(full_title(metrics), []).append((path.parent, metrics))
    # The data with the most models first.
    groups = sorted(by_data.values(), key=lambda group: (-len(group), group[0][0].name))
    return "\n\n".join(map(_models_table, groups))


def _models_table(models: list[tuple[Path, dict[str, Any]]]) -> str:
    """A title and a table of models of the same data."""
    first, expected = models[0]
    for folder, metrics in models[1:]:
        if protocol_of(metrics) != protocol_of(expected):
            raise HubError(
                f"{folder.name} and {first.name} were evaluated on different data or frames; "
                "evaluate both in the same way: zoo eval --save"
            )
    models = sorted(models, key=lambda item: item[1]["forecast"]["model"]["mse"])
    rows = [(f"[{f.name}](cards/{f.name}/README.md)", m, "model") for f, m in models]
    rows += [(name, expected, name) for name in expected["forecast"] if name != "model"]
    kinds = protocols(expected)
    columns = [(p, metric) for p in kinds for metric in main_metrics(expected)]
    labels = {p: f" {PROTOCOLS[p]}" if len(kinds) > 1 else "" for p in kinds}
    head = ["model", *(f"{score_label(metric, expected)}{labels[p]}" for p, metric in columns)]
    table = markdown_table(
        head,
        [
            [name, *(shown(metric, metrics[p][who][metric]) for p, metric in columns)]
            for name, metrics, who in rows
        ],
    )
    data = expected["data"]
    return (
        f"**{full_title(expected)}**, {data['sequences']:,} {data['split']} sequences:\n\n{table}"
    )
