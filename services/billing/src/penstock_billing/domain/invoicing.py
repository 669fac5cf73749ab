"""From a rated month to an invoice: what credits pay, what is due, what the ledger is told.

A month in which corrections outweigh everything else comes to nothing, and what is over is carried
to the next. A month without a single line has no invoice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from operator import attrgetter
from typing import Final

from penstock_billing.domain.credits import apply_credits, without_included
from penstock_billing.domain.plans import next_month
from penstock_billing.domain.rating import RatedMonth, rate
from penstock_billing.ports.credits import CreditUse, Grant
from penstock_billing.ports.invoices import Adjustment, MonthRecords
from penstock_billing.ports.ledger import Account, Transfer
from penstock_shared.contracts.credits import CARRIED_FROM, AdjustmentMade
from penstock_shared.contracts.invoices import Invoice, InvoiceLine, LineKind, first_day

_POSTED_AT_CLOSING: Final = frozenset(
    {LineKind.FEE, LineKind.TIERED, LineKind.INCLUDED, LineKind.MINIMUM}
)
"""Metering has posted usage, late or not; whoever corrects posts the correction."""


@dataclass(frozen=True, slots=True)
class DrawnUp:
    """A month with its credits."""

    invoice: Invoice
    uses: tuple[CreditUse, ...]
    expired: tuple[CreditUse, ...]
    """What is left of credit that pays for nothing after this month."""
    rerated_microusd: int
    carried_microusd: int
    """What the tenant is still owed, and gets in the next month."""


def draw_up(records: MonthRecords, grants: Sequence[Grant], events_seq: int) -> DrawnUp:
    """The month as an invoice that is not issued.

    Credits pay usage beyond what is included, and never more than the month comes to.
    """
    rated = rate(records)
    total = sum(line.amount_microusd for line in rated.lines)
    carried = max(-total, 0)
    lines = [*rated.lines, *_carried_line(records.period, carried)]
    subtotal = total + carried
    excess = max(sum(rated.payable.values()) - subtotal, 0)
    uses = apply_credits(without_included(rated.payable, excess), grants)
    credit = sum(use.microusd for use in uses)
    invoice = Invoice(
        tenant=records.tenant,
        month=f"{records.period:%Y-%m}",
        lines=(*lines, *(_credit_line(rated, use) for use in uses)),
        usage_microusd=rated.metered_microusd,
        subtotal_microusd=subtotal,
        credit_microusd=credit,
        due_microusd=subtotal - credit,
        events_seq=events_seq,
    )
    expired = _expired(_less(grants, uses), next_month(records.period))
    return DrawnUp(invoice, tuple(uses), tuple(expired), rated.rerated_microusd, carried)


def draw_up_last(
    months: Sequence[MonthRecords], grants: Sequence[Grant], events_seq: int
) -> DrawnUp:
    """The last of a tenant's open months, as it will be once those before it are closed."""
    first, *others = months
    drawn = draw_up(first, grants, events_seq)
    for month in others:
        grants = _less(_less(grants, drawn.uses), drawn.expired)
        drawn = draw_up(_with_carried(month, drawn), grants, events_seq)
    return drawn


def issued(invoice: Invoice, at: datetime) -> Invoice:
    """The invoice, final. One number for each tenant and month."""
    number = f"{invoice.tenant}-{invoice.month}"
    return invoice.model_copy(update={"number": number, "issued_at": at})


def carried_over(drawn: DrawnUp, to_month: date, at: datetime) -> AdjustmentMade:
    """The correction with which that month begins, where something is carried."""
    return AdjustmentMade(
        tenant=drawn.invoice.tenant,
        month=f"{to_month:%Y-%m}",
        microusd=-drawn.carried_microusd,
        reason=_carried_from(drawn),
        reference=_carried_from(drawn),
        made_at=at,
    )


def postings(drawn: DrawnUp, at: datetime) -> Iterator[Transfer]:
    """What the ledger does not know yet: with it, the month's receivable is what is due.

    The carried amount leaves this month here, and enters the next with its adjustment.
    """
    month = drawn.invoice.month

    def post(kind: str, amount: int, reference: str, debit: Account, credit: Account) -> Transfer:
        """A negative amount goes the other way."""
        sides = (debit, credit) if amount > 0 else (credit, debit)
        tenant, period = drawn.invoice.tenant, first_day(month)
        return Transfer(tenant, period, kind, *sides, abs(amount), reference, at)

    charge = (Account.RECEIVABLE, Account.ADJUSTMENTS)
    if drawn.rerated_microusd:
        yield post("rerated", -drawn.rerated_microusd, month, *charge)
    for number, line in enumerate(drawn.invoice.lines, 1):
        if line.kind in _POSTED_AT_CLOSING and line.amount_microusd:
            yield post(line.kind.value, line.amount_microusd, f"{month} line {number}", *charge)
    if drawn.carried_microusd:
        yield post("carried", drawn.carried_microusd, month, *charge)
    for paid, kind, other in (
        (drawn.uses, "credit-used", Account.RECEIVABLE),
        (drawn.expired, "credit-expired", Account.ADJUSTMENTS),
    ):
        for use in paid:
            reference = f"{month} {use.grant_id}"
            yield post(kind, use.microusd, reference, Account.CREDITS, other)


def _carried_line(period: date, carried: int) -> Iterable[InvoiceLine]:
    if carried:
        yield InvoiceLine(
            kind=LineKind.ADJUSTMENT,
            description=f"Carried to {next_month(period):%Y-%m}",
            from_day=period,
            to_day=period,
            amount_microusd=carried,
        )


def _credit_line(rated: RatedMonth, use: CreditUse) -> InvoiceLine:
    return InvoiceLine(
        kind=LineKind.CREDIT,
        description=f"Credit {use.grant_id}",
        from_day=min(rated.payable),
        to_day=max(rated.payable),
        amount_microusd=-use.microusd,
    )


def _with_carried(month: MonthRecords, before: DrawnUp) -> MonthRecords:
    if not before.carried_microusd:
        return month
    carried = Adjustment(_carried_from(before), -before.carried_microusd)
    return replace(month, adjustments=(*month.adjustments, carried))


def _carried_from(drawn: DrawnUp) -> str:
    return f"{CARRIED_FROM}{drawn.invoice.month}"


def _expired(grants: Iterable[Grant], on: date) -> Iterator[CreditUse]:
    for grant in sorted(grants, key=attrgetter("grant_id")):
        if grant.left_microusd and grant.expires_on is not None and grant.expires_on < on:
            yield CreditUse(grant.grant_id, grant.left_microusd)


def _less(grants: Iterable[Grant], uses: Iterable[CreditUse]) -> list[Grant]:
    used = {use.grant_id: use.microusd for use in uses}
    return [
        replace(grant, left_microusd=grant.left_microusd - used.get(grant.grant_id, 0))
        for grant in grants
    ]
