"""The table of all scores of a folder of models, as CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from zoo.model_folder import read_config, read_metrics

__all__ = ["results_table"]

FRAMES = ("forecast", "all-steps")


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
        if not {"data", *FRAMES} <= metrics.keys():
            continue  # it was trained and not yet measured
        data, protocol = metrics["data"]["name"], _protocol(metrics)
        for frames in FRAMES:
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
