"""Which credit pays for what: laws of the order of use, whatever the grants and the days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.support.credits import most_paid

from penstock_billing.domain.credits import apply_credits, without_included
from penstock_billing.ports.credits import Grant

FIRST = date(2026, 2, 26)
DAYS = st.integers(0, 8).map(lambda n: FIRST + timedelta(days=n))
AMOUNTS = st.integers(0, 12)
OWED = st.dictionaries(DAYS, AMOUNTS, max_size=6)
NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)


@st.composite
def _grants(draw: st.DrawFn) -> list[Grant]:
    drawn = draw(
        st.lists(
            st.tuples(AMOUNTS, st.integers(0, 2), st.none() | DAYS, st.integers(0, 2)), max_size=5
        )
    )
    return [
        Grant(f"grant-{n}", amount, priority, expires_on, NOON + timedelta(hours=age))
        for n, (amount, priority, expires_on, age) in enumerate(drawn)
    ]


@given(OWED, _grants())
def test_grants_pay_all_that_they_could_pay_together(
    owed: dict[date, int], grants: list[Grant]
) -> None:
    """Whatever their order is: none takes what only another needs (I4)."""
    uses = apply_credits(owed, grants)
    assert sum(use.microusd for use in uses) == most_paid(owed, grants)


@given(OWED, _grants())
def test_no_grant_pays_more_than_it_has_or_for_days_after_its_last(
    owed: dict[date, int], grants: list[Grant]
) -> None:
    """Each within itself, and any of them together within the days that they may pay."""
    paid = {use.grant_id: use.microusd for use in apply_credits(owed, grants)}
    assert all(0 < paid[g.grant_id] <= g.left_microusd for g in grants if g.grant_id in paid)
    for last in {g.expires_on for g in grants if g.expires_on is not None}:
        by_then = [g for g in grants if g.expires_on is not None and g.expires_on <= last]
        payable = sum(amount for day, amount in owed.items() if day <= last)
        assert sum(paid.get(g.grant_id, 0) for g in by_then) <= payable


@given(OWED, _grants(), st.randoms(use_true_random=False))
def test_the_order_in_which_grants_are_listed_changes_nothing(
    owed: dict[date, int], grants: list[Grant], rng: object
) -> None:
    """Priority, expiry, age and id decide, so that doing it again gives the same."""
    shuffled = sorted(grants, key=lambda _: rng.random())  # type: ignore[attr-defined]
    assert apply_credits(owed, shuffled) == apply_credits(owed, grants)


@given(OWED, _grants())
def test_a_grant_waits_for_those_before_it(owed: dict[date, int], grants: list[Grant]) -> None:
    """The first in the order of use pays all that it could pay alone."""
    uses = apply_credits(owed, grants)
    if uses:
        first = next(g for g in grants if g.grant_id == uses[0].grant_id)
        assert uses[0].microusd == most_paid(owed, [first])


@given(OWED, AMOUNTS, _grants())
def test_what_is_included_leaves_credit_the_days_that_it_can_pay(
    owed: dict[date, int], included: int, grants: list[Grant]
) -> None:
    """It pays for any day, and first: together they pay as much as they could."""
    beyond = without_included(owed, included)
    assert sum(owed.values()) - sum(beyond.values()) == min(included, sum(owed.values()))
    paid = sum(use.microusd for use in apply_credits(beyond, grants))
    everything = [*grants, Grant("included", included, 0, None, NOON)]
    assert sum(owed.values()) - sum(beyond.values()) + paid == most_paid(owed, everything)
