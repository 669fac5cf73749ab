"""`penstock credits`: credit that tenants have, and corrections of what they owe."""

import uuid
from datetime import date, datetime
from decimal import Decimal, DecimalException
from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.errors import OperatorError
from penstock.money import dollars
from penstock_shared.contracts import subjects
from penstock_shared.contracts.credits import (
    DEFAULT_PRIORITY,
    Adjust,
    AdjustmentMade,
    CreditGrant,
    CreditKind,
    CreditList,
    GrantCredit,
    ListCredits,
)
from penstock_shared.contracts.plans import MAX_MICROUSD

_GRANT_HELP = """Give a tenant credit, in dollars.

Credit pays for usage, by priority (the lower, the earlier), then expiry, then age. With
--expires-on it pays for what is accepted until the end of that day (UTC). The same --reference
again is the same credit: name an order or a payment, and nothing is given twice.

Examples:

  penstock credits grant acme 250 --reference order-1017

  penstock credits grant acme 25 --promotional --priority 10 --expires-on 2026-12-31
"""
_LIST_HELP = """List the credit that tenants have, in the order of use.

What open months use is not taken from it yet: for tenants that pay in advance a second table shows
what they may still use today.

Examples:

  penstock credits list acme
"""
_ADJUST_HELP = """Correct what a tenant owes, in dollars; negative is in its favour.

It is a line of the next invoice, with the reason. The same --reference again changes nothing.

Examples:

  penstock credits adjust acme -12.50 --reason "outage on 3 November" --reference case-9
"""
_MICROUSD = 1_000_000

_Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
_Dollars = Annotated[str, typer.Argument(metavar="DOLLARS", help="At most six decimals.")]
_Reference = Annotated[
    str | None, typer.Option(help="Names this act, so that it is done once. [default: a new one]")
]


def grant(
    tenant: _Tenant,
    amount: _Dollars,
    promotional: Annotated[bool, typer.Option(help="Given, not bought.")] = False,
    priority: Annotated[int, typer.Option(help="The lower, the earlier.")] = DEFAULT_PRIORITY,
    expires_on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Its last day, in UTC.")
    ] = None,
    reference: _Reference = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant credit."""
    command = build(
        GrantCredit,
        tenant=tenant,
        kind=CreditKind.PROMOTIONAL if promotional else CreditKind.PREPAID,
        microusd=_microusd(amount),
        priority=priority,
        expires_on=expires_on and expires_on.date(),
        reference=reference or str(uuid.uuid4()),
    )
    done = ask_billing(data_dir, subjects.billing("grant-credit"), command, CreditGrant)
    if as_json:
        typer.echo(done.model_dump_json())
        return
    typer.echo(f"{done.tenant} has {dollars(done.microusd)} of credit, {_until(done.expires_on)}.")


def list_credits(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List credit."""
    query = build(ListCredits, tenant=tenant)
    answer = ask_billing(data_dir, subjects.billing("list-credits"), query, CreditList)
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    amounts = ("CREDIT", "SPENT", "EXPIRED", "LEFT")
    show_table(
        ("TENANT", "KIND", *amounts, "PRIORITY", "UNTIL", "REFERENCE"),
        [_row(one) for one in answer.credits],
        right={*amounts, "PRIORITY"},
    )
    if answer.prepaid:
        today = ("COVERED", "SETTLED", "RESERVED", "LEFT TODAY")
        show_table(
            ("PREPAID TENANT", *today),
            [
                (
                    one.tenant,
                    dollars(one.covered_microusd),
                    dollars(one.settled_microusd),
                    dollars(one.reserved_microusd),
                    dollars(one.left_microusd),
                )
                for one in answer.prepaid
            ],
            right=set(today),
        )


def adjust(
    tenant: _Tenant,
    amount: _Dollars,
    reason: Annotated[str, typer.Option(help="As it will stand on the invoice.")],
    reference: _Reference = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct what a tenant owes."""
    command = build(
        Adjust,
        tenant=tenant,
        microusd=_microusd(amount),
        reason=reason,
        reference=reference or str(uuid.uuid4()),
    )
    done = ask_billing(data_dir, subjects.billing("adjust"), command, AdjustmentMade)
    if as_json:
        typer.echo(done.model_dump_json())
        return
    typer.echo(f"{dollars(done.microusd)} will be on {done.tenant}'s invoice of {done.month}.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Tenants' credit.", no_args_is_help=True)
    group.command("grant", help=_GRANT_HELP)(grant)
    group.command("list", help=_LIST_HELP)(list_credits)
    # A negative amount is no option.
    group.command("adjust", help=_ADJUST_HELP, context_settings={"ignore_unknown_options": True})(
        adjust
    )
    app.add_typer(group, name="credits")


def _microusd(typed: str) -> int:
    try:
        exact = Decimal(typed) * _MICROUSD
        if abs(exact) <= MAX_MICROUSD and exact == exact.to_integral_value():
            return int(exact)
    except DecimalException:
        pass
    raise OperatorError(
        f"{typed!r} is no amount in dollars.", "Write it as 250 or 0.000125: at most six decimals."
    )


def _row(one: CreditGrant) -> tuple[str, ...]:
    amounts = (
        one.microusd,
        one.spent_microusd,
        one.expired_microusd,
        one.microusd - one.spent_microusd - one.expired_microusd,
    )
    return (
        one.tenant,
        one.kind.value,
        *map(dollars, amounts),
        str(one.priority),
        _until(one.expires_on),
        one.reference,
    )


def _until(expires_on: date | None) -> str:
    return "without end" if expires_on is None else f"until {expires_on}"
