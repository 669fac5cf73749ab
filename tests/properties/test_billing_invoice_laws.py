"""Laws of invoices: they add up, the ledger says the same, and order changes nothing (I2, I3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.rating import days, grants, months

from penstock_billing.domain.invoicing import draw_up, draw_up_last, postings
from penstock_billing.domain.plans import next_month
from penstock_billing.domain.rating import rate
from penstock_billing.ports.credits import Grant
from penstock_billing.ports.invoices import MonthRecords
from penstock_billing.ports.ledger import Account, Transfer
from penstock_shared.contracts.invoices import LineKind

AT = datetime(2026, 12, 1, 2, tzinfo=UTC)
few = settings(max_examples=50, deadline=None)
"""A month is drawn from hundreds of choices: that takes its time on a busy machine."""


@st.composite
def months_with_credit(draw: st.DrawFn) -> tuple[MonthRecords, list[Grant]]:
    """A month, and credits that may end within it."""
    month = draw(months())
    return month, draw(grants(month.period))


def net(transfers: Iterable[Transfer], account: Account) -> int:
    """Debit less credit."""
    return sum(
        transfer.microusd * ((transfer.debit is account) - (transfer.credit is account))
        for transfer in transfers
    )


@few
@given(months_with_credit())
def test_an_invoice_adds_up(drawn: tuple[MonthRecords, list[Grant]]) -> None:
    """Lines, subtotal, credit and what is due agree; nothing that is due is negative."""
    month, credit = drawn
    invoice = draw_up(month, credit, 7).invoice
    paid = [line.amount_microusd for line in invoice.lines if line.kind is LineKind.CREDIT]
    assert invoice.due_microusd == sum(line.amount_microusd for line in invoice.lines)
    assert invoice.credit_microusd == -sum(paid)
    assert invoice.subtotal_microusd == invoice.due_microusd + invoice.credit_microusd
    assert invoice.due_microusd >= 0
    assert invoice.credit_microusd <= sum(grant.left_microusd for grant in credit)
    assert all(amount < 0 for amount in paid)


@few
@given(months_with_credit())
def test_the_ledgers_receivable_is_what_is_due(drawn: tuple[MonthRecords, list[Grant]]) -> None:
    """What metering, corrections and closing post comes to what the invoice says (I2)."""
    month, credit = drawn
    made = draw_up(month, credit, 7)
    posted = list(postings(made, AT))
    metered = sum(usage.cost_microusd for usage in month.usage)
    corrected = sum(one.amount_microusd for one in month.adjustments)
    assert metered + corrected + net(posted, Account.RECEIVABLE) == made.invoice.due_microusd
    used = sum(use.microusd for use in (*made.uses, *made.expired))
    assert net(posted, Account.CREDITS) == used
    assert len({transfer.id for transfer in posted}) == len(posted)


@few
@given(drawn=months_with_credit(), data=st.data())
def test_the_order_of_records_changes_nothing(
    drawn: tuple[MonthRecords, list[Grant]], data: st.DataObject
) -> None:
    """Usage, plans, corrections and credits may be read in any order."""
    month, credit = drawn
    shuffled = replace(
        month,
        timeline=tuple(data.draw(st.permutations(month.timeline))),
        usage=tuple(data.draw(st.permutations(month.usage))),
        adjustments=tuple(data.draw(st.permutations(month.adjustments))),
    )
    assert draw_up(shuffled, data.draw(st.permutations(credit)), 7) == draw_up(month, credit, 7)


@few
@given(month=months(), data=st.data())
def test_assigning_the_same_terms_again_changes_no_amount(
    month: MonthRecords, data: st.DataObject
) -> None:
    """However often a plan is assigned anew within the month: the month comes to the same."""
    day = data.draw(days(month.period))
    held = [one for one in month.timeline if one.from_day <= day]
    if not held:
        return
    last = max(held, key=lambda one: one.from_day)
    others = tuple(one for one in month.timeline if one.from_day != day)
    if last.from_day == day:
        return
    again = replace(
        month, timeline=(*others, last.model_copy(update={"from_day": day, "version": 2}))
    )
    assert sums(again) == sums(month)


def sums(month: MonthRecords) -> dict[LineKind, int]:
    """What the lines of each kind come to."""
    rated = rate(month)
    kinds = {line.kind for line in rated.lines}
    return {
        kind: sum(line.amount_microusd for line in rated.lines if line.kind is kind)
        for kind in kinds
    }


@few
@given(months_with_credit())
def test_credits_pay_for_usage_within_their_days_only(
    drawn: tuple[MonthRecords, list[Grant]],
) -> None:
    """Of what was accepted after its last day, a grant pays nothing, and never a fee."""
    month, credit = drawn
    made, rated = draw_up(month, credit, 7), rate(month)
    for grant in credit:
        paid = sum(use.microusd for use in made.uses if use.grant_id == grant.grant_id)
        last = grant.expires_on or date.max
        assert paid <= sum(owed for day, owed in rated.payable.items() if day <= last)
    assert made.invoice.credit_microusd <= sum(rated.payable.values())


@few
@given(first=months(date(2026, 11, 1)), second=months(date(2026, 12, 1)), data=st.data())
def test_a_preview_knows_what_earlier_months_will_take(
    first: MonthRecords, second: MonthRecords, data: st.DataObject
) -> None:
    """Over two open months nothing that a tenant owes or is owed is lost or doubled."""
    credit = data.draw(grants(date(2026, 12, 1)))
    one, both = draw_up(first, credit, 7), draw_up_last([first, second], credit, 7)
    lines = [line.amount_microusd for line in (*rate(first).lines, *rate(second).lines)]
    used = sum(use.microusd for use in (*one.uses, *both.uses))
    due = one.invoice.due_microusd + both.invoice.due_microusd
    assert due == sum(lines) - used + both.carried_microusd
    for grant in credit:
        taken = sum(
            use.microusd
            for use in (*one.uses, *one.expired, *both.uses, *both.expired)
            if use.grant_id == grant.grant_id
        )
        ended = grant.expires_on is not None and grant.expires_on < next_month(second.period)
        assert taken == grant.left_microusd if ended else taken <= grant.left_microusd
