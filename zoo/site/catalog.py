"""What the pages of the site show: models, and their scores by protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.config import Config
from zoo.hub.card import read_card
from zoo.hub.scores import full_title, protocol_of
from zoo.model_folder import read_config, read_metrics
from zoo.tables import format_score, metric_label, metrics_in

__all__ = ["Cell", "Entry", "Row", "Table", "read_entry", "score_tables"]

#: Scores for which more is better; for others less is, but spread/error should be 1.
HIGHER = ("ssim", "psnr", "csi", "hss", "fss")


@dataclass(frozen=True)
class Entry:
    """A pretrained model in the catalog.

    Attributes:
        name: Its name.
        folder: Its folder.
        config: Its config.
        metrics: What its metrics.json holds.
        license: License of the weights; "" if the card does not state it.
    """

    name: str
    folder: Path
    config: Config
    metrics: dict[str, Any]
    license: str

    @property
    def architecture(self) -> str:
        """Name of the architecture."""
        return self.config.architecture

    @property
    def dataset(self) -> str:
        """Title or name of the training data; "" if unknown."""
        return self.config.data.title or self.config.data.name or ""

    @property
    def runs_in_browsers(self) -> bool:
        """Whether it reads frames only, which export requires."""
        return not self.config.known_channels

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self.config.cell

    @property
    def topology(self) -> str:
        """Name of the topology."""
        return self.config.topology

    @property
    def parameters(self) -> int:
        """Number of weights; 0 if it was not counted."""
        return int(self.metrics.get("cost", {}).get("parameters", 0))


@dataclass(frozen=True)
class Cell:
    """A score as shown, and whether it is the best of its column."""

    text: str
    best: bool


@dataclass(frozen=True)
class Row:
    """The scores of a model, or of a baseline, which has no entry."""

    name: str
    entry: Entry | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Scores of one protocol.

    Attributes:
        title: The data set.
        about: The data and the protocol in a sentence.
        protocol: Id of the protocol; "" if the models do not record it.
        columns: Labels of the metrics.
        rows: The models, best first, then the baselines.
    """

    title: str
    about: str
    protocol: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_entry(name: str, folder: Path) -> Entry:
    """Read a model folder.

    Raises:
        ZooError: If a file in it is invalid.
    """
    has_card = (folder / "README.md").is_file()
    license = read_card(folder).data.to_dict().get("license") if has_card else None
    return Entry(name, folder, read_config(folder), read_metrics(folder), str(license or ""))


def score_tables(entries: Sequence[Entry]) -> list[Table]:
    """Return a table for every protocol by which models were measured, largest first.

    Scores of different protocols are never in one table, since they do not compare.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        if "forecast" in entry.metrics and "data" in entry.metrics:
            groups.setdefault(protocol_of(entry.metrics), []).append(entry)
    return [_table(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _table(entries: Sequence[Entry]) -> Table:
    first = entries[0].metrics
    data, protocol = first["data"], first.get("protocol", {}).get("id", "")
    metrics = metrics_in(first["forecast"]["model"], ("csi",))
    scores: list[tuple[str, Entry | None, dict[str, Any]]] = sorted(
        ((entry.name, entry, entry.metrics["forecast"]["model"]) for entry in entries),
        key=lambda row: row[2]["mse"],
    )
    scores += [(name, None, row) for name, row in first["forecast"].items() if name != "model"]
    best = {metric: _best(metric, [row.get(metric) for _, _, row in scores]) for metric in metrics}
    rows = [
        Row(
            name,
            entry,
            tuple(
                Cell(format_score(metric, row.get(metric)), row.get(metric) == best[metric])
                for metric in metrics
            ),
        )
        for name, entry, row in scores
    ]
    about = (
        f"{data['sequences']:,} {data['split']} sequences, {data['input_frames']} frames in, "
        f"{data['horizon']} out; {f'protocol {protocol}' if protocol else 'protocol not recorded'}."
    )
    unit = first.get("protocol", {}).get("unit", "1")
    labels = tuple(metric_label(metric, unit) for metric in metrics)
    return Table(full_title(first), about, protocol, labels, tuple(rows))


def _best(metric: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if metric == "spread_skill":
        return min(known, key=lambda value: abs(value - 1))
    return max(known) if metric.startswith(HIGHER) else min(known)
