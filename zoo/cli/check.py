"""zoo check: does a cell keep the contract, and what does it cost."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.common import as_json, echo, print_json, print_table


@click.command()
@click.argument("cell")
@as_json
def check(cell: str, as_json: bool) -> None:
    """Check that an installed CELL keeps the contract, alone and as ms-CELL, and tell its cost.

    Exits with 1 if it breaks a law. Needs pytest.
    """
    from zoo.check import check_cell

    verdicts = check_cell(cell)
    broken = [verdict for verdict in verdicts if verdict.reason]
    costs = [] if broken else _costs(cell)
    if as_json:
        rows = [verdict._asdict() for verdict in verdicts]
        print_json({"cell": cell, "passed": not broken, "checks": rows, "cost": costs})
    else:
        for law in dict.fromkeys(verdict.law for verdict in verdicts):
            failures = [v for v in broken if v.law == law]
            click.echo(f"{'FAILS ' if failures else 'passes'}  {law}")
            for architecture in dict.fromkeys(v.architecture for v in failures):
                reason = next(v.reason for v in failures if v.architecture == architecture)
                echo(f"        {architecture}: {reason}")
        if costs:
            click.echo("\nOf frames of 64×64, 10 read and 10 forecast, by six layers of 32:")
            print_table(
                ["", "parameters", "MACs", "memory model"],
                [
                    [
                        c["name"],
                        f"{c['parameters']:,}",
                        f"{c['macs'] / 1e9:.2f} G",
                        f"{c['memory_model_bytes'] / 1e9:.2f} GB",
                    ]
                    for c in costs
                ],
            )
        laws = len({verdict.law for verdict in broken})
        verdict = f"breaks {laws} of the laws above" if broken else "keeps the contract"
        click.echo(f"{cell} {verdict} ({len(verdicts)} checks)")
    click.get_current_context().exit(1 if broken else 0)


def _costs(cell: str) -> list[dict[str, Any]]:
    """What the cell costs on the frames of Moving MNIST, beside ConvLSTM."""
    from zoo.bench.cost import find_config, report
    from zoo.published import TABLES

    task = TABLES["mmnist"].task
    rows = []
    for name in dict.fromkeys([cell, f"ms-{cell}", "convlstm", "ms-convlstm"]):
        told = report(name, find_config(name), task)
        kept = ("name", "parameters", "memory_model_bytes")
        rows.append({**{key: told[key] for key in kept}, "macs": told["macs"]["total"]})
    return rows
