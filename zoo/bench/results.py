"""Results of zoo.bench.speed: CSV files, their comparison, and plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.atomic import atomic_path
from zoo.bench.speed import Case, changed
from zoo.errors import ConfigError

__all__ = ["plot", "read_csv", "slower", "write_csv"]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the results of :func:`zoo.bench.speed.measure`; what is not text becomes JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            cells = (row.get(key) for key in columns)
            writer.writerow([c if isinstance(c, str) else json.dumps(c) for c in cells])


def read_csv(path: Path) -> list[tuple[Case, dict[str, Any], float]]:
    """Read the cases of a CSV file of comparisons, the other settings, and the ratios.

    Raises:
        ConfigError: If the file is not one that ``zoo bench --vs … --csv`` wrote.
    """
    names = [*Case.__dataclass_fields__, "vs", "ratio"]
    cases = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = {name: _parse(row[name]) for name in names}
                settings, ratio = values.pop("vs"), float(values.pop("ratio"))
                case = Case(**{**values, "size": tuple(values["size"])})
                changed(case, settings)  # raises ConfigError if they are invalid
                cases.append((case, settings, ratio))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} has no comparisons ({error!r}); write them with zoo bench --vs … --csv {path}"
        ) from error
    return cases


def slower(ratio: float, stored: float, tolerance: float) -> bool:
    """Return whether a ratio is less than the stored one by more than a share of it."""
    return ratio < stored * (1 - tolerance)


def plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the multiply-accumulates per second of each result as bars, and the ceiling as a line.

    Args:
        path: PNG, SVG or PDF.
        rows: Results; with comparisons, the other case is drawn as a second bar.
    """
    from matplotlib.figure import Figure

    labels = [
        f"{row['model']}, {row['mode']}\n{row['size'][0]}×{row['size'][1]}, batch {row['batch']}, "
        f"{row['precision']}"
        for row in rows
    ]
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    axes.barh(places, [row["macs"] / row["cpu_s"] / 1e9 for row in rows], 0.4, align="edge")
    if all("vs_cpu_s" in row for row in rows):
        others = [row["macs"] / row["vs_cpu_s"] / 1e9 for row in rows]
        options = ", ".join(f"{key}={value}" for key, value in rows[0]["vs"].items())
        axes.barh(places, others, -0.4, align="edge", color="silver", label=options)
    ceiling = max(row["ceiling_macs"] for row in rows)
    axes.axvline(ceiling / 1e9, color="black", linewidth=1, label="ceiling: a large convolution")
    axes.set_yticks(list(places), labels)
    axes.invert_yaxis()
    axes.set_xlabel("GMAC/s")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.0 + 0.4 / max(len(rows), 1)), ncols=2)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
