"""zoo check: run the contract suite on a cell, head, loss or metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zoo.cli.common import as_json, echo, print_json, print_table

if TYPE_CHECKING:
    from zoo.check import Verdict


@click.command()
@click.argument("name")
@as_json
def check(name: str, as_json: bool) -> None:
    """Check that the installed cell, head, loss or metric NAME keeps its contract.

    A cell is checked alone and as ms-NAME, and its cost is reported; a head is checked on a small
    multi-scale network, a loss and a metric on noise. Exits with 1 if a check fails. Needs pytest.
    """
    from zoo.check import check_contract, kind_of

    kind = kind_of(name)
    verdicts = check_contract(name)
    broken = {verdict.law for verdict in verdicts if verdict.reason}
    costs = _costs(name) if kind == "cell" and not broken else []
    if as_json:
        checks = [verdict._asdict() for verdict in verdicts]
        print_json({kind: name, "passed": not broken, "checks": checks, "cost": costs})
    else:
        _print_verdicts(verdicts)
        if costs:
            _print_costs(costs)
        verdict = f"breaks {len(broken)} of the laws above" if broken else "keeps the contract"
        click.echo(f"{name} {verdict} ({len(verdicts)} checks)")
    click.get_current_context().exit(1 if broken else 0)


def _print_verdicts(verdicts: list[Verdict]) -> None:
    """Print one line per law, and the first failure of every architecture."""
    reasons: dict[str, dict[str, str]] = {}
    for architecture, law, reason in verdicts:
        failures = reasons.setdefault(law, {})
        if reason:
            failures.setdefault(architecture, reason)
    for law, failures in reasons.items():
        click.echo(f"{'FAILS ' if failures else 'passes'}  {law}")
        for architecture, reason in failures.items():
            echo(f"        {architecture}: {reason}")


def _print_costs(costs: list[dict[str, Any]]) -> None:
    click.echo("\nCost on 64×64 frames, 10 read and 10 forecast, with six layers of 32 channels:")
    rows = [
        [
            cost["name"],
            f"{cost['parameters']:,}",
            f"{cost['macs'] / 1e9:.2f} G",
            f"{cost['memory_model_bytes'] / 1e9:.2f} GB",
        ]
        for cost in costs
    ]
    print_table(["", "parameters", "MACs", "memory model"], rows)


def _costs(cell: str) -> list[dict[str, Any]]:
    """Return the cost of a cell and, for comparison, of ConvLSTM on the frames of Moving MNIST."""
    from zoo.bench.cost import find_config, report
    from zoo.published import TABLES

    task = TABLES["mmnist"].task
    rows = []
    for name in dict.fromkeys([cell, f"ms-{cell}", "convlstm", "ms-convlstm"]):
        cost = report(name, find_config(name), task)
        rows.append(
            {key: cost[key] for key in ("name", "parameters", "memory_model_bytes")}
            | {"macs": cost["macs"]["total"]}
        )
    return rows
