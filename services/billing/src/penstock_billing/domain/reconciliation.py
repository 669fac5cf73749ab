"""Which figures should be one, and what explains it where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from penstock_billing.domain.invoicing import draw_up, draw_up_last, postings
from penstock_billing.ports.ledger import Account
from penstock_billing.ports.reconciliation import (
    CreditLeft,
    MonthSums,
    OpenMonths,
    Sums,
    UsageFound,
)
from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts.invoices import MICROUSD_PER_CENT
from penstock_shared.contracts.reconciliation import Check, Difference

_UNSETTLED: Final = "Stripe's meter was told and has not confirmed"
_NOT_YET: Final = "Stripe's meter is told with the next push, or by an item of the invoice"

_MOMENT: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Of transfers that are never written."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Whose month a difference is found in."""

    tenant: str
    period: date

    def differs(
        self, check: Check, what: str, expected: int, found: int, explained: str | None = None
    ) -> Iterator[Difference]:
        """The difference, if there is one."""
        if expected != found:
            yield Difference(
                check=check,
                tenant=self.tenant,
                month=f"{self.period:%Y-%m}",
                what=what,
                expected=expected,
                found=found,
                explained=explained,
            )


def compare_facts(
    facts: Iterable[MeteredUsage], rows: Iterable[UsageFound], after: int, until: int
) -> Iterator[Difference]:
    """Each fact with a sequence in (after, until] has its row, and each row there its fact.

    `rows` have the facts' identities, or stand at these sequences.
    """
    by_identity = {row.usage[:3]: row for row in rows}
    told = set()
    for fact in facts:
        told.add(fact[:4])
        row = by_identity.get(fact[:3])
        if row is None:
            yield from _of(fact, fact.accepted_at.date()).differs(
                Check.FACTS, f"{_named(fact)}: rows", 1, 0
            )
        elif row.usage.event_seq == fact.event_seq:
            yield from _compare_row(fact, row)
    for row in by_identity.values():
        if after < row.usage.event_seq <= until and row.usage[:4] not in told:
            what = f"{_named(row.usage)}: rows without a fact"
            yield from _of(row.usage, row.period).differs(Check.FACTS, what, 0, 1)


def compare_month(month: MonthSums) -> Iterator[Difference]:
    """Rows = sums = ledger = invoice = what Stripe's meter was told."""
    place = _Place(month.tenant, month.period)
    yield from _compare_sums(place, month.rows, month.days, "the days")
    yield from _compare_sums(place, month.accepted_days, month.minutes, "the minutes")
    yield from _compare_sums(place, month.accepted_days, month.users, "the users")
    yield from place.differs(Check.LEDGER, "usage", month.days.cost_microusd, month.used_microusd)
    held = -month.balances.get(Account.RESERVATIONS, 0)
    yield from place.differs(Check.LEDGER, "what is reserved", held, month.reserved_microusd)
    for account in Account:
        yield from place.differs(
            Check.LEDGER,
            f"the balance of {account}",
            month.transfers.get(account, 0),
            month.balances.get(account, 0),
        )
    yield from place.differs(Check.LEDGER, "all accounts", 0, sum(month.balances.values()))
    if month.closed:
        invoiced = month.invoice
        usage, due = (
            (0, 0)
            if invoiced is None
            else (
                invoiced.usage_microusd,
                invoiced.due_microusd,
            )
        )
        yield from place.differs(Check.INVOICE, "usage", month.used_microusd, usage)
        yield from place.differs(Check.INVOICE, "what is due", month.charged_microusd, due)
    yield from _compare_meter(place, month)


def compare_preview(
    open_months: OpenMonths, by_period: Mapping[date, MonthSums], since: date
) -> Iterator[Difference]:
    """What the tenant's open months will come to, and what the ledger would say then.

    Months before `since` were not read, and are not compared.
    """
    records, grants = open_months.records, open_months.grants
    for number, month in enumerate(records, 1):
        if month.period >= since:
            preview = draw_up_last(records[:number], grants, 0).invoice
            sums = by_period.get(month.period)
            yield from _Place(month.tenant, month.period).differs(
                Check.INVOICE,
                "usage of the preview",
                sums.used_microusd if sums else 0,
                preview.usage_microusd,
            )
    first = records[0]
    if first.period < since:
        return
    drawn, sums = draw_up(first, grants, 0), by_period.get(first.period)
    charged = sums.charged_microusd if sums else 0
    for transfer in postings(drawn, _MOMENT):
        charged += transfer.microusd * (
            (transfer.debit is Account.RECEIVABLE) - (transfer.credit is Account.RECEIVABLE)
        )
    yield from _Place(first.tenant, first.period).differs(
        Check.INVOICE, "what the preview has due", charged, drawn.invoice.due_microusd
    )


def compare_credit(left: CreditLeft, period: date) -> Iterator[Difference]:
    """What is left of a tenant's grants is what the ledger says, as of `period`."""
    yield from _Place(left.tenant, period).differs(
        Check.LEDGER, "credit that is left", left.ledger_microusd, left.granted_microusd
    )


def unknown_tenant(month: MonthSums) -> Iterator[Difference]:
    """Usage that nobody will ever be asked to pay."""
    yield from _Place(month.tenant, month.period).differs(
        Check.INVOICE, "usage of no tenant", 0, month.used_microusd
    )


def _compare_row(fact: MeteredUsage, row: UsageFound) -> Iterator[Difference]:
    place = _of(fact, row.period)
    for name, expected, found in zip(fact._fields, fact, row.usage, strict=True):
        if isinstance(expected, int) and isinstance(found, int):
            yield from place.differs(Check.FACTS, f"{_named(fact)}: {name}", expected, found)
        else:
            same = f"{_named(fact)}: the same {name}"
            yield from place.differs(Check.FACTS, same, 1, int(expected == found))
    if row.period != row.due_period:
        what = f"{_named(fact)}: its month is {row.due_period:%Y-%m}"
        yield from place.differs(Check.FACTS, what, 1, 0)


def _compare_sums(place: _Place, expected: Sums, found: Sums, where: str) -> Iterator[Difference]:
    for name, one, other in zip(Sums._fields, expected, found, strict=True):
        if name != "attempts":
            yield from place.differs(Check.SUMS, f"{name} of {where}", one, other)


def _compare_meter(place: _Place, month: MonthSums) -> Iterator[Difference]:
    """The meter is told whole cents; what is left of one stays with the ledger."""
    if month.pushes is None:
        return
    told = month.pushes.acknowledged
    cents = month.used_microusd // MICROUSD_PER_CENT
    missing = cents - told
    explained = None if missing < 0 else _UNSETTLED if month.pushes.unsettled else _NOT_YET
    yield from place.differs(Check.METER, "cents acknowledged", cents, told, explained)


def _of(usage: MeteredUsage, day: date) -> _Place:
    return _Place(usage.tenant, day)


def _named(usage: MeteredUsage) -> str:
    return f"request {usage.request_id} attempt {usage.attempt}"
