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

    There is a row for each model and each baseline. A column is a metric, the frames it is
    averaged over, and the data set with the ID of the protocol; scores of different protocols are
    never in one column. Scores that were measured before protocols had IDs have one that begins
    with "data-", a hash of the data and frames.
    """
    columns: dict[str, None] = {}
    models: dict[str, dict[str, str]] = {}
    baselines: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*/metrics.json")):
        metrics, name = read_metrics(path.parent), path.parent.name
        if not {"data", *FRAMES} <= metrics.keys():
            continue  # it was trained and not yet measured
        models[name] = {"architecture": read_config(path.parent).architecture}
        for frames in FRAMES:
            for who, scores in metrics[frames].items():
                row = models[name] if who == "model" else baselines.setdefault(who, {})
                for metric, value in scores.items():
                    column = f"{metric} {frames}, {_protocol(metrics)}"
                    columns[column] = None
                    row[column] = "" if value is None else f"{value:.6g}"
    out = io.StringIO()
    writer = csv.DictWriter(out, ["name", "architecture", *sorted(columns)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"name": name, **row} for name, row in (models | baselines).items())
    return out.getvalue()


def _protocol(metrics: dict[str, Any]) -> str:
    """The name of the data set and the ID of the protocol."""
    data = metrics["data"]
    if "protocol" in metrics:
        return f"{data['name']} {metrics['protocol']['id']}"
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    return f"{data['name']} data-{digest[:12]}"
