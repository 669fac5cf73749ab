"""`penstock usage`: what the tenants used, and what it costs."""

from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock_shared.contracts import subjects
from penstock_shared.contracts.usage import UsageQuery, UsageReport, UsageRow

_HELP = """Show settled usage by tenant and model: requests, tokens, money.

`events_seq` in the JSON tells how far billing has read the event log.

Examples:

  penstock usage

  penstock usage --tenant acme --json
"""
_MICROUSD_PER_USD = 1_000_000


def usage(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show settled usage."""
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


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("usage", help=_HELP)(usage)


def dollars(amount_microusd: int) -> str:
    """Write micro-dollars as dollars, every digit of them: 1234 is $0.001234."""
    whole, fraction = divmod(abs(amount_microusd), _MICROUSD_PER_USD)
    return f"{'-' if amount_microusd < 0 else ''}${whole:,}.{fraction:06}"


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
