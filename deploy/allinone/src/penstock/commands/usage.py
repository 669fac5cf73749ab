"""`penstock usage`: what the tenants used, and what it costs."""

import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.errors import OperatorError
from penstock.money import dollars
from penstock.usage_chart import bars
from penstock.usage_export import ExportFormat, exporting
from penstock.usage_pages import read_usage
from penstock_shared.contracts import subjects
from penstock_shared.contracts.usage import UsageQuery, UsageReport, UsageRow
from penstock_shared.contracts.usage_queries import (
    BucketWidth,
    QueryUsage,
    UsageBucket,
    UsageGroup,
)

_HELP = """Show settled usage by tenant and model, and a chart of its cost by day.

`events_seq` in the JSON tells how far billing has read the event log.

Examples:

  penstock usage

  penstock usage --tenant acme --days 30

  penstock usage --json
"""
_EXPORT_HELP = """Write usage over time to a file, or as CSV to standard output.

Times are when requests were accepted, days are days in UTC. Costs are micro-dollars at the
prices of the requests; fees, tiers and credits are on the invoice.

Examples:

  penstock usage export --from 2026-11-01 --before 2026-12-01 --output november.csv

  penstock usage export --tenant acme --by model --by user_id --format parquet -o acme.parquet
"""
_CHART_WIDTH = 32
# Buckets of a page: billing shortens pages that hold much.
_PAGE = 500

TenantOption = Annotated[str | None, typer.Option(help="Only this tenant's.")]


def usage(
    context: typer.Context,
    tenant: TenantOption = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="Days of the chart.")] = 14,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show settled usage."""
    if context.invoked_subcommand is not None:
        return
    query = build(UsageQuery, tenant=tenant)
    report = ask_billing(data_dir, subjects.usage_query(), query, UsageReport)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    show_table(
        ("TENANT", "MODEL", "REQUESTS", "INPUT TOKENS", "OUTPUT TOKENS", "COST"),
        [*(_row(row) for row in report.rows), _total(report.rows)],
        right={"REQUESTS", "INPUT TOKENS", "OUTPUT TOKENS", "COST"},
    )
    if report.rows:
        typer.echo()
        show_table(
            ("DAY (UTC)", "", "REQUESTS", "COST"),
            _chart(_by_day(data_dir, tenant, days)),
            right={"REQUESTS", "COST"},
        )


def export(
    tenant: TenantOption = None,
    from_day: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="The first day.  [default: the 1st]")
    ] = None,
    before_day: Annotated[
        str | None, typer.Option("--before", metavar="DAY", help="The day after the last.")
    ] = None,
    width: Annotated[
        BucketWidth, typer.Option("--bucket", help="How much time a row sums up.")
    ] = BucketWidth.DAY,
    by: Annotated[
        list[UsageGroup] | None,
        typer.Option(help="What rows are told apart by; repeatable.  [default: tenant, model]"),
    ] = None,
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="Parquet needs --output.")
    ] = ExportFormat.CSV,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to.")
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write usage over time."""
    groups = dict.fromkeys(by or (UsageGroup.TENANT, UsageGroup.MODEL))
    query = build(
        QueryUsage,
        start=_midnight(from_day) if from_day else _first_of_month(),
        end=_midnight(before_day) if before_day else None,
        width=width,
        group_by=tuple(groups),
        limit=_PAGE,
        tenant=tenant,
    )
    with exporting(format_, output, sys.stdout) as write:
        read_usage(data_dir, query, write)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help=_HELP, invoke_without_command=True)
    group.callback()(usage)
    group.command("export", help=_EXPORT_HELP)(export)
    app.add_typer(group, name="usage")


def _by_day(data_dir: Path | None, tenant: str | None, days: int) -> list[UsageBucket]:
    now = datetime.now(UTC)
    start = now - timedelta(days=days - 1)
    query = build(QueryUsage, tenant=tenant, start=start, end=now, limit=days)
    found: list[UsageBucket] = []
    read_usage(data_dir, query, found.extend)
    return found


def _chart(buckets: list[UsageBucket]) -> list[tuple[str, ...]]:
    costs = [sum(sums.cost_microusd for sums in bucket.results) for bucket in buckets]
    requests = [sum(sums.requests for sums in bucket.results) for bucket in buckets]
    drawn = bars(costs, _CHART_WIDTH)
    return [
        (f"{bucket.start:%Y-%m-%d}", bar, f"{count:,}", dollars(cost))
        for bucket, bar, count, cost in zip(buckets, drawn, requests, costs, strict=True)
    ]


def _first_of_month() -> datetime:
    return datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _midnight(day: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(day), time(), UTC)
    except ValueError as error:
        raise OperatorError(f"{day!r} is no day.", "Write it like 2026-11-01.") from error


def _row(row: UsageRow) -> tuple[str, ...]:
    return (
        row.tenant,
        row.model,
        f"{row.requests:,}",
        f"{row.input_tokens:,}",
        f"{row.output_tokens:,}",
        dollars(row.cost_microusd),
    )


def _total(rows: tuple[UsageRow, ...]) -> tuple[str, ...]:
    return (
        "total",
        "",
        f"{sum(row.requests for row in rows):,}",
        f"{sum(row.input_tokens for row in rows):,}",
        f"{sum(row.output_tokens for row in rows):,}",
        dollars(sum(row.cost_microusd for row in rows)),
    )
