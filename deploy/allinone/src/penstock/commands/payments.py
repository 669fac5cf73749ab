"""`penstock payments`: how tenants pay, what came in, and who is past due."""

import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.money import cents
from penstock_shared.contracts import subjects
from penstock_shared.contracts.payments import (
    CollectInvoice,
    CollectionRecord,
    ExtendGrace,
    ListPayments,
    ListStandings,
    PayerRecord,
    PaymentList,
    RefundPayment,
    RefundRecord,
    SetPayer,
    StandingList,
    StandingRecord,
)

_LIST_HELP = """List what of a tenant's invoices is collected, every attempt, and every refund.

Examples:

  penstock payments list acme

  penstock payments list acme --month 2026-11 --json
"""
_PAYER_HELP = """Say how a tenant pays: a payment method that the provider's own form has taken.

What is owed is collected at once. TOKEN is a payment method of Stripe's (pm_…) or a nonce of
Braintree's; card numbers never come here.

Examples:

  penstock payments payer acme stripe pm_1Q0PsIJvEtkwdCNYMSaVuRz6

  penstock payments payer acme braintree fake-valid-nonce
"""
_COLLECT_HELP = """Try to collect an invoice now, not when its next try is due.

Examples:

  penstock payments collect acme 2026-11
"""
_REFUND_HELP = """Give money of a payment back: all that is left of it, or some cents.

What the tenant owes stays as it is: to let it off something, use `penstock credits adjust`.

Examples:

  penstock payments refund acme 0d5f6c1e-8d0f-5a55-9c3e-0a4f0e9a1b2c --reason "billed twice"

  penstock payments refund acme 0d5f6c1e-8d0f-5a55-9c3e-0a4f0e9a1b2c --cents 1250 --reason goodwill
"""
_STANDINGS_HELP = """List tenants that are past due, in grace, suspended or restored.

Examples:

  penstock payments standings
"""
_EXTEND_HELP = """Do not suspend a tenant for what it owes before a time; let it in again if it was.

Examples:

  penstock payments extend acme 2026-12-24
"""

_Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
_MonthArgument = Annotated[str, typer.Argument(help="Such as 2026-11.")]


def list_payments(
    tenant: _Tenant,
    month: Annotated[str | None, typer.Option(help="Only this month's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List payments."""
    query = build(ListPayments, tenant=tenant, month=month)
    found = ask_billing(data_dir, subjects.billing("list-payments"), query, PaymentList)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    numbers = ("TO COLLECT", "PAID")
    show_table(
        ("INVOICE", *numbers, "FAILING SINCE", "NEXT TRY"),
        [_collection_row(one) for one in found.collections],
        right=set(numbers),
    )
    typer.echo()
    show_table(("INVOICE", "WHAT", "AMOUNT", "STATE", "ID", "AT"), _moves(found), right={"AMOUNT"})


def payer(
    tenant: _Tenant,
    provider: Annotated[str, typer.Argument(help="stripe or braintree.")],
    token: Annotated[str, typer.Argument(help="What the provider's form returned.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how a tenant pays."""
    command = build(SetPayer, tenant=tenant, provider=provider, token=token)
    done = ask_billing(data_dir, subjects.billing("set-payer"), command, PayerRecord)
    said = f"{done.tenant} pays through {done.provider}, as customer {done.customer}."
    typer.echo(done.model_dump_json() if as_json else said)


def collect(
    tenant: _Tenant,
    month: _MonthArgument,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try to collect an invoice."""
    command = build(CollectInvoice, tenant=tenant, month=month)
    done = ask_billing(data_dir, subjects.billing("collect-invoice"), command, CollectionRecord)
    owed = cents(done.cents - done.paid_cents)
    said = f"Collecting {owed} of {done.tenant} for {done.month}: see `penstock payments list`."
    typer.echo(done.model_dump_json() if as_json else said)


def refund(
    tenant: _Tenant,
    payment_id: Annotated[str, typer.Argument(help="As `penstock payments list` shows it.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the refund.")],
    amount: Annotated[
        int | None, typer.Option("--cents", help="[default: all that is left]")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give money back."""
    command = build(
        RefundPayment,
        tenant=tenant,
        payment_id=payment_id,
        refund_id=uuid.uuid4(),
        cents=amount,
        reason=reason,
    )
    done = ask_billing(data_dir, subjects.billing("refund-payment"), command, RefundRecord)
    said = f"Giving {cents(done.cents)} back to {tenant}: refund {done.refund_id}."
    typer.echo(done.model_dump_json() if as_json else said)


def standings(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List standings."""
    query = build(ListStandings, tenant=tenant)
    found = ask_billing(data_dir, subjects.billing("list-standings"), query, StandingList)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    columns = ("TENANT", "STANDING", "FAILING SINCE", "SUSPENDED AT", "SINCE")
    show_table(columns, [_standing_row(one) for one in found.standings])


def extend(
    tenant: _Tenant,
    until: Annotated[datetime, typer.Argument(help="In UTC.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Extend a tenant's grace."""
    command = build(ExtendGrace, tenant=tenant, until=until.replace(tzinfo=UTC))
    done = ask_billing(data_dir, subjects.billing("extend-grace"), command, StandingRecord)
    said = f"{done.tenant} is {done.standing.value}; no suspension before {_time(until)}."
    typer.echo(done.model_dump_json() if as_json else said)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Collect invoices, refund, and see who is past due.")
    group.command("list", help=_LIST_HELP)(list_payments)
    group.command(help=_PAYER_HELP)(payer)
    group.command(help=_COLLECT_HELP)(collect)
    group.command(help=_REFUND_HELP)(refund)
    group.command(help=_STANDINGS_HELP)(standings)
    group.command(help=_EXTEND_HELP)(extend)
    app.add_typer(group, name="payments", no_args_is_help=True)


def _collection_row(one: CollectionRecord) -> tuple[str, ...]:
    times = (_time(one.failing_since), _time(one.next_try_at))
    return (one.month, cents(one.cents), cents(one.paid_cents), *times)


def _moves(found: PaymentList) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in found.payments:
        state = one.progress.value + (f" ({one.failure})" if one.failure else "")
        what = f"payment {one.attempt}, {one.provider}"
        at = _time(one.ended_at or one.started_at)
        rows.append((one.month, what, cents(one.cents), state, str(one.payment_id), at))
        rows += [
            (
                one.month,
                f"refund: {back.reason}",
                cents(-back.cents),
                back.progress.value,
                str(back.refund_id),
                _time(back.ended_at or back.started_at),
            )
            for back in one.refunds
        ]
    return rows


def _standing_row(one: StandingRecord) -> tuple[str, ...]:
    times = (one.failing_since, one.suspends_at, one.changed_at)
    return (one.tenant, one.standing.value, *map(_time, times))


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"
