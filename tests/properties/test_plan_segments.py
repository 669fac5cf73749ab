"""Laws of proration: a month is never longer or shorter than it is, however it is divided."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock_billing.domain.plans import days_in_month, segments
from penstock_shared.contracts.plans import MAX_MICROUSD, PlanTerms, Subscription

FIRST = date(2023, 12, 1)


def subscription(day: int, fee: int) -> Subscription:
    """A plan from some day after `FIRST` on."""
    return Subscription(
        tenant="acme",
        from_day=FIRST + timedelta(days=day),
        plan="plan",
        version=1,
        terms=PlanTerms(title="Any", fee_microusd=fee),
    )


@given(
    changes=st.dictionaries(st.integers(0, 150), st.integers(0, 3), max_size=12),
    month=st.integers(0, 4),
    amount=st.integers(0, MAX_MICROUSD),
)
def test_shares_add_up_however_a_month_is_divided(
    changes: dict[int, int], month: int, amount: int
) -> None:
    """Segments cover each day once, neighbours differ, and shares of an amount are the amount.

    Leap February 2024 is among the months. A share is within a micro-dollar of its days' part.
    """
    first = date(2023 + (11 + month) // 12, (11 + month) % 12 + 1, 1)
    found = segments([subscription(day, fee) for day, fee in changes.items()], first)
    days = [one.from_day + timedelta(days=n) for one in found for n in range(one.days)]
    assert days == [first + timedelta(days=n) for n in range(days_in_month(first))]
    assert all(one.terms != other.terms for one, other in pairwise(found))
    assert sum(one.share(amount) for one in found) == amount
    for one in found:
        assert abs(one.share(amount) * len(days) - amount * one.days) < len(days)
