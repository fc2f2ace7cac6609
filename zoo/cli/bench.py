"""zoo bench: the speed of models, and of two settings next to each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.common import (
    as_json,
    device_option,
    echo,
    parse_size,
    print_json,
    print_table,
    set_option,
)

if TYPE_CHECKING:
    from zoo.bench.speed import Case

_MODELS = ("ms-predrnn", "mslstm")


@click.command()
@click.argument("models", nargs=-1)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice(["rollout", "train", "step"]),
    help="A forecast, a training step, or one step of a stream.  [default: rollout and train]",
)
@click.option("--size", "sizes", multiple=True, help="Frame size, HEIGHTxWIDTH.  [default: 64x64]")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(min=1),
    help="Number of sequences.  [default: 1]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Precision.  [default: fp32]",
)
@click.option(
    "--input",
    "input_frames",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Number of input frames.",
)
@click.option(
    "--horizon",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Number of frames to forecast.",
)
@set_option("Setting, such as compile=true, channels_last=true, hidden=64 or patch=4.")
@set_option(
    "Compare with the same case with other settings, such as compile=true or reference=true "
    "(a plain implementation), run in turn with it.",
    names=("--vs", "others"),
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="How long to repeat each case.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Number of threads.")
@click.option("--peak/--no-peak", default=True, help="Whether to measure peak memory.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a CSV file.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw a plot.")
@click.option(
    "--check",
    "stored",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Repeat the comparisons of a CSV file; exit with 1 if a ratio is lower than in the file.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="How much lower, as a share of the stored ratio, --check allows.",
)
@device_option
@as_json
def bench(
    models: tuple[str, ...],
    modes: tuple[str, ...],
    sizes: tuple[str, ...],
    batches: tuple[int, ...],
    precisions: tuple[str, ...],
    input_frames: int,
    horizon: int,
    settings: tuple[tuple[str, Any], ...],
    others: tuple[tuple[str, Any], ...],
    seconds: float,
    threads: int | None,
    peak: bool,
    table: Path | None,
    picture: Path | None,
    stored: Path | None,
    tolerance: float,
    device: str,
    as_json: bool,
) -> None:
    """Measure the speed of MODELS, by default ms-predrnn and mslstm.

    Models, modes, sizes, batches and precisions may be given several times; all combinations are
    measured. Weights are random.
    """
    import torch

    from zoo.bench.results import plot, read_csv, slower, write_csv
    from zoo.bench.speed import Case, changed

    if threads:
        torch.set_num_threads(threads)
    if stored:
        if models or modes or others:
            raise click.UsageError("--check measures the cases of its file; leave out the others")
        comparisons = read_csv(stored)
    else:
        base = changed(
            Case("", input_frames=input_frames, horizon=horizon, device=device), dict(settings)
        )
        cases = _combine(base, models, modes, sizes, batches, precisions)
        comparisons = [(case, dict(others), 0.0) for case in cases]
    rows = _measure([(case, vs) for case, vs, _ in comparisons], seconds, peak)
    if table:
        write_csv(table, rows)
    if picture:
        plot(picture, rows)
    if as_json:
        print_json(rows)
    else:
        _print(rows)
    ratios = [ratio for *_, ratio in comparisons]
    failed = [
        f"{_describe(row)}: {row['ratio']:.2f}, stored {ratio:.2f}"
        for row, ratio in zip(rows, ratios, strict=True)
        if stored and slower(row["ratio"], ratio, tolerance)
    ]
    for line in failed:
        echo(f"Lower than stored: {line}", err=True)
    if failed:
        raise SystemExit(1)


def _combine(
    base: Case,
    models: tuple[str, ...],
    modes: tuple[str, ...],
    sizes: tuple[str, ...],
    batches: tuple[int, ...],
    precisions: tuple[str, ...],
) -> Iterator[Case]:
    """Yield all combinations."""
    from dataclasses import replace

    grids = [parse_size(size) or base.size for size in sizes or ("64x64",)]
    for model, size, batch, precision, mode in product(
        models or _MODELS,
        grids,
        batches or (1,),
        precisions or ("fp32",),
        modes or ("rollout", "train"),
    ):
        yield replace(base, model=model, size=size, batch=batch, precision=precision, mode=mode)


def _measure(
    comparisons: list[tuple[Case, dict[str, Any]]], seconds: float, peak: bool
) -> list[dict[str, Any]]:
    """Measure all cases, and the ceiling once for each device and precision."""
    from zoo.bench.speed import changed, measure, measure_ceiling

    ceiling = cache(measure_ceiling)
    rows = []
    for case, vs in comparisons:
        row = measure(case, changed(case, vs) if vs else None, seconds=seconds, memory=peak)
        limit = ceiling(case.device, case.precision)
        row |= {"ceiling_macs": limit.macs, "ceiling_bytes": limit.bytes}
        row |= {
            "sequences_per_s": case.batch / row["cpu_s"],
            "share": row["macs"] / row["cpu_s"] / limit.macs,
        }
        rows.append(row | {"vs": vs})
        echo(f"{len(rows)} of {len(comparisons)}: {_describe(row)}", err=True)
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    compared = any(row["vs"] for row in rows)
    columns = ["", "first", "time", "sequences/s", "peak", "GFLOP/s", "of ceiling"]
    lines = []
    for row in rows:
        line = [
            _describe(row),
            _seconds(row["first_s"]),
            _seconds(row["cpu_s"]),
            f"{row['sequences_per_s']:.2f}",
            _gibibytes(row["peak_bytes"]),
            f"{2 * row['macs'] / row['cpu_s'] / 1e9:.1f}",
            f"{row['share']:.0%}",
        ]
        if compared:
            ratios = [row["ratio"], row["ratio_wall"], row["ratio_bytes"]]
            line += [_seconds(row["vs_cpu_s"]), *(f"{r:.2f}" if r else "" for r in ratios)]
        lines.append(line)
    if compared:
        other = ", ".join(f"{key}={json.dumps(value)}" for key, value in rows[0]["vs"].items())
        columns += [other, "ratio", "ratio (wall)", "ratio (peak)"]
    print_table(columns, lines)
    for key in dict.fromkeys((r["device"], r["precision"]) for r in rows):
        row = next(r for r in rows if (r["device"], r["precision"]) == key)
        echo(
            f"Ceiling on {key[0]} in {key[1]}, {row['threads']} thread(s): "
            f"{2 * row['ceiling_macs'] / 1e9:.1f} GFLOP/s in a large convolution, "
            f"{row['ceiling_bytes'] / 1e9:.1f} GB/s in a large copy"
        )
    click.echo(
        "Times are medians of one run, in CPU time per thread (on a GPU, in elapsed time); the "
        "first run, elapsed, includes compilation."
    )
    if compared:
        click.echo("A ratio is the other case's time or memory divided by this one's.")


def _describe(row: dict[str, Any]) -> str:
    height, width = row["size"]
    settings = [name for name in ("compile", "channels_last", "reference") if row[name]]
    settings += [f"{key}={json.dumps(value)}" for key, value in row["options"].items()]
    parts = [row["model"], row["mode"], f"{height}×{width}", f"batch {row['batch']}"]
    return ", ".join([*parts, row["precision"], *settings])


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _gibibytes(value: int | None) -> str:
    return f"{value / 2**30:.2f} GiB" if value else ""
