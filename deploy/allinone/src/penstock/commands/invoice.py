"""`penstock invoice`: what a month will come to, what past ones came to, and closing one."""

from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.money import dollars
from penstock_shared.contracts import subjects
from penstock_shared.contracts.invoice_commands import (
    ClosePeriod,
    InvoiceList,
    ListInvoices,
    PeriodClosed,
    PreviewInvoice,
    ShowInvoice,
)
from penstock_shared.contracts.invoices import Invoice

_PREVIEW_HELP = """Show what a tenant's invoice would be if the month ended now, line by line.

Of a month that is closed this is the invoice itself.

Examples:

  penstock invoice preview acme

  penstock invoice preview acme --month 2026-11 --json
"""
_LIST_HELP = """List a tenant's invoices, latest first.

Examples:

  penstock invoice list acme

  penstock invoice list acme --before 2026-11
"""
_SHOW_HELP = """Show an invoice, line by line.

Examples:

  penstock invoice show acme 2026-11
"""
_CLOSE_HELP = """Close a tenant's month that is over, without waiting for late facts any longer.

Months are closed by themselves two hours after their end. What comes later is on the next invoice.

Examples:

  penstock invoice close acme 2026-11
"""

_Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
_Month = Annotated[str, typer.Argument(help="A month in UTC, such as 2026-11.")]


def preview(
    tenant: _Tenant,
    month: Annotated[
        str | None, typer.Option(help="A month in UTC, such as 2026-11. [default: the present one]")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a preview."""
    query = build(PreviewInvoice, tenant=tenant, month=month)
    _print(ask_billing(data_dir, subjects.billing("preview-invoice"), query, Invoice), as_json)


def list_invoices(
    tenant: _Tenant,
    before: Annotated[str | None, typer.Option(help="Only of months before this one.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 12,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List invoices."""
    query = build(ListInvoices, tenant=tenant, before=before, limit=limit)
    answer = ask_billing(data_dir, subjects.billing("list-invoices"), query, InvoiceList)
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    amounts = ("SUBTOTAL", "CREDIT", "DUE")
    show_table(
        ("NUMBER", "MONTH", *amounts, "ISSUED AT"),
        [
            (
                str(one.number),
                one.month,
                dollars(one.subtotal_microusd),
                dollars(one.credit_microusd),
                dollars(one.due_microusd),
                f"{one.issued_at:%Y-%m-%d %H:%M} UTC",
            )
            for one in answer.invoices
        ],
        right=set(amounts),
    )


def show(
    tenant: _Tenant, month: _Month, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Show an invoice."""
    query = build(ShowInvoice, tenant=tenant, month=month)
    _print(ask_billing(data_dir, subjects.billing("show-invoice"), query, Invoice), as_json)


def close(
    tenant: _Tenant, month: _Month, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Close a month."""
    command = build(ClosePeriod, tenant=tenant, month=month)
    done = ask_billing(data_dir, subjects.billing("close-period"), command, PeriodClosed)
    if as_json:
        typer.echo(done.model_dump_json())
    elif not done.closed:
        typer.echo(
            "It is cut, and is closed as soon as billing has read the event log up to there."
        )
    elif done.invoice is None:
        typer.echo(f"{month} is closed. There was nothing to invoice.")
    else:
        _print(done.invoice, as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="What tenants owe.", no_args_is_help=True)
    group.command("preview", help=_PREVIEW_HELP)(preview)
    group.command("list", help=_LIST_HELP)(list_invoices)
    group.command("show", help=_SHOW_HELP)(show)
    group.command("close", help=_CLOSE_HELP)(close)
    app.add_typer(group, name="invoice")


def _print(invoice: Invoice, as_json: bool) -> None:
    if as_json:
        typer.echo(invoice.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    typer.echo(f"{invoice.tenant}, {invoice.month}: {invoice.number or 'a preview'}\n")
    lines = [
        (line.kind.value, line.description, dollars(line.amount_microusd)) for line in invoice.lines
    ]
    show_table(
        ("", "", "AMOUNT"), [*lines, ("due", "", dollars(invoice.due_microusd))], right={"AMOUNT"}
    )
