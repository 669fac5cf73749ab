"""What is compared with what, and what explains a difference."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

from penstock_billing.domain.reconciliation import compare_facts, compare_month, compare_preview
from penstock_billing.ports.invoices import DayUsage, MonthRecords
from penstock_billing.ports.reconciliation import (
    Issued,
    MonthSums,
    OpenMonths,
    Pushes,
    Sums,
    UsageFound,
)
from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts.reconciliation import Check, Difference

MONTH = date(2026, 11, 1)
USED = Sums(0, 10, 0, 20, 0, 1_234_567)


def fact(sequence: int, request: str = "r1", cost: int = 5) -> MeteredUsage:
    """One attempt's usage."""
    at = datetime(2026, 11, 3, tzinfo=UTC)
    return MeteredUsage(
        tenant="acme",
        request_id=request,
        attempt=1,
        event_seq=sequence,
        model="small",
        key_id="key_1",
        data_subject="somebody",
        kind="text",
        status="completed",
        input_tokens=1,
        cached_input_tokens=0,
        output_tokens=1,
        tool_calls=0,
        cost_microusd=cost,
        accepted_at=at,
        ended_at=at,
    )


def row(usage: MeteredUsage, period: date = MONTH) -> UsageFound:
    """A row that belongs to November."""
    return UsageFound(usage, period, MONTH)


def month(**fields: object) -> MonthSums:
    """November, in which all figures agree but for these."""
    found = MonthSums(
        tenant="acme",
        period=MONTH,
        rows=USED,
        days=USED,
        accepted_days=USED,
        minutes=USED,
        users=USED,
        balances={"receivable": 1_234_567, "usage": -1_234_567},
        transfers={"receivable": 1_234_567, "usage": -1_234_567},
        charged_microusd=1_234_567,
    )
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def only(differences: Iterable[Difference]) -> Difference:
    """The one that there is."""
    (difference,) = differences
    return difference


def test_copies_of_a_fact_need_one_row() -> None:
    """The row stands at one of the copies, whichever was metered, and the others add nothing."""
    facts = [fact(1), fact(2), fact(3, "r2")]
    assert not list(compare_facts(facts, [row(fact(2)), row(fact(3, "r2"))], 0, 3))


def test_a_row_that_stands_before_what_is_compared_is_left_alone() -> None:
    """Its own fact was compared with it; this one is a late copy."""
    assert not list(compare_facts([fact(9)], [row(fact(2))], 5, 9))


def test_a_row_needs_a_fact_of_its_own() -> None:
    """Another request's fact at the same place is not it."""
    found = only(compare_facts([fact(1)], [row(fact(1)), row(fact(1, "r2"))], 0, 1))
    assert (found.expected, found.found, "r2" in found.what) == (0, 1, True)


def test_a_row_in_the_wrong_month_is_named() -> None:
    """Its place is a function of its time, its sequence and the cuts."""
    found = only(compare_facts([fact(1)], [row(fact(1), date(2026, 12, 1))], 0, 1))
    assert (found.month, "2026-11" in found.what) == ("2026-12", True)


def test_where_all_agree_nothing_differs() -> None:
    """Neither in an open month nor in a closed one."""
    assert not list(compare_month(month()))
    issued = Issued(usage_microusd=1_234_567, due_microusd=1_234_567)
    assert not list(compare_month(month(closed=True, invoice=issued)))


def test_a_closed_month_without_an_invoice_owes_nothing() -> None:
    """Or somebody was charged and never told."""
    found = {one.what for one in compare_month(month(closed=True))}
    assert found == {"usage", "what is due"}


def test_what_the_meter_lacks_is_explained_and_what_it_has_too_much_is_not() -> None:
    """It is told whole cents: 1,234,567 micro-dollars are 123 of them."""
    assert not list(compare_month(month(pushes=Pushes(123, 0))))
    late = only(compare_month(month(pushes=Pushes(100, 23))))
    assert (late.check, late.expected, late.found) == (Check.METER, 123, 100)
    assert late.explained is not None
    assert only(compare_month(month(pushes=Pushes(124, 0)))).explained is None


def test_a_ledger_that_does_not_balance_is_found() -> None:
    """Even if its balances and its transfers agree."""
    half = {"receivable": 1_234_568, "usage": -1_234_567}
    found = only(compare_month(month(balances=half, transfers=half)))
    assert (found.what, found.found) == ("all accounts", 1)


def test_a_month_that_was_not_read_is_not_compared() -> None:
    """One that is still open from long ago is no drift: nobody looked at its sums."""
    used = DayUsage(date(2026, 8, 5), "small", 1, 1, 0, 1, 0, 5)
    old = MonthRecords("acme", date(2026, 8, 1), (), (used,))
    new = MonthRecords("acme", MONTH, (), ())
    open_months = OpenMonths(records=(old, new), grants=())
    assert not list(compare_preview(open_months, {}, MONTH))
    found = [one.what for one in compare_preview(open_months, {}, date(2026, 8, 1))]
    assert found == ["usage of the preview", "what the preview has due"]
