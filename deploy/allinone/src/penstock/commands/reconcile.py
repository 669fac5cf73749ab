"""`penstock billing reconcile`: event log = usage = ledger = invoice = Stripe."""

from pathlib import Path
from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock_shared.contracts import subjects
from penstock_shared.contracts.reconciliation import Difference, Reconcile, ReconciliationReport

HELP = """Compare all figures now: event log, usage, its sums, ledger, invoices, Stripe's meter.

The running service does so every five minutes by itself, at the cost of what is new. With --since
all that these months hold is added up again; what was compared of the event log is not read again
(that is `penstock billing rebuild`). Exits with status 1 if there is a difference that nothing
explains.

Examples:

  penstock billing reconcile

  penstock billing reconcile --since 2026-01 --json
"""


def reconcile(
    since: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM", help="The first month.  [default: two months ago]"),
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare, until the log has been compared as far as it is metered."""
    report = _look(data_dir, since)
    while report.behind and not report.drift:
        before, report = report, _look(data_dir, since)
        if report.events_seq == before.events_seq:
            break  # somebody else compares; what is left is told below
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _show(report)
    if report.drift:
        raise typer.Exit(1)


def _look(data_dir: Path | None, since: str | None) -> ReconciliationReport:
    question = build(Reconcile, since=since)
    return ask_billing(data_dir, subjects.billing("reconcile"), question, ReconciliationReport)


def _show(report: ReconciliationReport) -> None:
    for one in report.differences:
        typer.echo(_line(one))
    if report.truncated:
        typer.echo("There are more.")
    typer.echo(
        f"Compared: {report.months:,} months of tenants, and the event log up to "
        f"{report.events_seq:,}."
    )
    if report.behind:
        typer.echo(f"Not compared yet: {report.behind:,} events.")
    explained = len(report.differences) - report.drift
    if explained:
        typer.echo(f"{explained:,} differences are explained.")
    if report.drift:
        typer.secho(f"{report.drift:,} differences", fg=typer.colors.RED, bold=True)
    else:
        typer.secho("reconciled", fg=typer.colors.GREEN, bold=True)


def _line(one: Difference) -> str:
    """What it should be, and what it is: `expected -> found`."""
    why = f"  ({one.explained})" if one.explained else ""
    figures = f"{one.expected:,} -> {one.found:,}"
    return f"{one.check.value}  {one.tenant} {one.month}  {one.what}:  {figures}{why}"
