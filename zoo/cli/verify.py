"""zoo verify: recorded scores, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.common import (
    as_json,
    data_option,
    device_option,
    echo,
    model_name,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from zoo.verify import Verification


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-3,
    show_default=True,
    help="Relative difference up to which two scores are equal.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Sequences per batch.",
)
@data_option
@device_option
@as_json
def verify(
    models: tuple[str, ...],
    tolerance: float,
    batch_size: int,
    data_dir: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure models again with their recorded protocol, and report what differs.

    Without MODEL, all built-in models are measured. The exit status is 1 if a score or the
    protocol differs, and 2 if a model cannot be measured, for example without its data.
    """
    from zoo.errors import ZooError
    from zoo.hub import builtin_folder
    from zoo.hub.places import Folder

    results: dict[str, dict[str, Any]] = {}
    failed = False
    for ref in models or [model.name for model in Folder(builtin_folder()).models()]:
        try:
            name, verification = _measure(ref, device, data_dir, batch_size, tolerance)
        except ZooError as error:
            if len(models) == 1:
                raise
            echo(f"Error: {ref}: {error}", err=True)
            failed = True
            continue
        results[name] = _result(verification)
        if not as_json:
            _print(name, verification)
    if as_json:
        print_json(results)
    differs = any(result["differs"] for result in results.values())
    click.get_current_context().exit(1 if differs else 2 if failed else 0)


def _measure(
    ref: str, device: str, root: Path | None, batch_size: int, tolerance: float
) -> tuple[str, Verification]:
    from zoo.hub import load, pull
    from zoo.model_folder import read_metrics
    from zoo.verify import verify

    folder = pull(ref)
    metrics = read_metrics(folder)
    model = load(f"local-dir:{folder}", device=device)
    found = verify(model, metrics, root=root, batch_size=batch_size, tolerance=tolerance)
    return model_name(ref, folder), found


def _result(verification: Verification) -> dict[str, Any]:
    return {
        "differs": bool(verification.scores or verification.protocol),
        "compared": verification.compared,
        "protocol": verification.report["protocol"]["id"],
        "changed": {
            key: {"recorded": recorded, "measured": measured}
            for key, (recorded, measured) in verification.protocol.items()
        },
        "scores": [difference._asdict() for difference in verification.scores],
    }


def _print(name: str, verification: Verification) -> None:
    """Print one line, and a table of what differs."""
    result = _result(verification)
    if not result["differs"]:
        echo(f"{name}: all {verification.compared} scores agree; protocol {result['protocol']}")
        return
    echo(f"{name}: {len(verification.scores)} of {verification.compared} scores differ")
    rows = [
        ["protocol", key, str(recorded), str(measured)]
        for key, (recorded, measured) in verification.protocol.items()
    ]
    rows += [
        [f"{d.frames}, {name if d.name == 'model' else d.name}", d.metric, *map(_shown, d[3:])]
        for d in verification.scores
    ]
    print_table(["", "", "recorded", "measured"], rows)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
