"""An invoice at a provider comes to the cents that are collected, whatever its lines are."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from penstock_billing.domain.charge_items import charge_items
from penstock_shared.contracts.invoices import MICROUSD_PER_CENT, Invoice, InvoiceLine, LineKind

DAY = date(2026, 11, 1)
LINES = st.lists(
    st.builds(
        InvoiceLine,
        kind=st.sampled_from(LineKind),
        description=st.text(max_size=20),
        from_day=st.just(DAY),
        to_day=st.just(DAY),
        amount_microusd=st.integers(-(10**12), 10**12),
    ),
    max_size=300,
)


def invoice(lines: list[InvoiceLine]) -> Invoice:
    total = sum(line.amount_microusd for line in lines)
    return Invoice(
        tenant="acme",
        month="2026-11",
        lines=tuple(lines),
        usage_microusd=0,
        subtotal_microusd=0,
        credit_microusd=0,
        due_microusd=max(total, 0),
        events_seq=1,
    )


@given(lines=LINES, metered=st.integers(0, 10**9), carried=st.integers(0, 9_999))
def test_items_bring_the_meters_sum_to_what_is_collected(
    lines: list[InvoiceLine], metered: int, carried: int
) -> None:
    """Whatever the meter has, few or many lines, for or against the tenant; no item is nothing."""
    ours = invoice(lines)
    cents = (ours.due_microusd + carried) // MICROUSD_PER_CENT
    items = charge_items(ours, metered, cents)
    assert metered + sum(item.cents for item in items) == cents
    assert all(item.cents for item in items)
    assert len(items) <= 200
    assert len({item.key for item in items}) == len(items)


@given(usage=st.integers(0, 10**12), fee=st.integers(0, 10**9))
def test_usage_that_the_meter_has_is_not_charged_again(usage: int, fee: int) -> None:
    """Beside the meter's line stand the other lines and nothing else, less than a cent off each."""
    lines = [
        InvoiceLine(kind=kind, description=kind, from_day=DAY, to_day=DAY, amount_microusd=amount)
        for kind, amount in ((LineKind.FEE, fee), (LineKind.USAGE, usage))
    ]
    ours = invoice(lines)
    items = charge_items(ours, usage // MICROUSD_PER_CENT, ours.due_microusd // MICROUSD_PER_CENT)
    charged = {item.key: item.cents for item in items}
    assert set(charged) <= {"line-1"}
    assert 0 <= charged.get("line-1", 0) - fee // MICROUSD_PER_CENT <= 1
