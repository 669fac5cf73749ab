"""What a month costs, case by case."""

from __future__ import annotations

from datetime import date

import pytest
from tests.support.rating import charge, month, subscribed, used

from penstock_billing.domain.rating import rate
from penstock_billing.ports.invoices import Adjustment, MonthRecords
from penstock_shared.contracts.invoices import LineKind
from penstock_shared.contracts.plans import Meter, Tiering

DOLLAR = 1_000_000
LAST = date(2026, 11, 30)


def lines(records: MonthRecords) -> list[tuple[str, int]]:
    return [(line.kind.value, line.amount_microusd) for line in rate(records).lines]


def test_a_tenant_without_a_plan_pays_for_what_its_facts_say() -> None:
    """Usage at the facts' prices, a line for each model, and nothing else (I3)."""
    records = month(
        used(date(2026, 11, 3), 40, "large", input_tokens=5, cached_input_tokens=2),
        used(date(2026, 11, 1), 5),
        used(date(2026, 11, 9), 2, output_tokens=7),
    )
    rated = rate(records)
    assert lines(records) == [("usage", 40), ("usage", 7)]
    assert rated.lines[0].description == (
        "large: input tokens 3, cached input tokens 2, requests 1"
    )
    assert (rated.lines[1].from_day, rated.lines[1].to_day) == (
        date(2026, 11, 1),
        date(2026, 11, 9),
    )
    assert rated.metered_microusd == 47


def test_a_month_without_anything_has_no_lines() -> None:
    """Nothing used, no plan: nothing to invoice."""
    assert lines(month()) == []
    assert lines(month(timeline=(subscribed(date(2026, 1, 1)),))) == []


@pytest.mark.parametrize(
    ("period", "from_day", "share"),
    [
        (date(2026, 11, 1), date(2026, 11, 21), 10 / 30),
        (date(2027, 2, 1), date(2027, 2, 15), 14 / 28),
        (date(2028, 2, 1), date(2028, 2, 29), 1 / 29),
        (date(2026, 12, 1), date(2026, 12, 31), 1 / 31),
        (date(2026, 12, 1), date(2025, 6, 6), 1),
        (date(2026, 12, 1), date(2027, 1, 1), 0),
    ],
)
def test_fees_are_prorated_by_days(period: date, from_day: date, share: float) -> None:
    """In months of 28 to 31 days, leap days included; a plan of the next month costs nothing."""
    plan = subscribed(from_day, fee_microusd=30 * DOLLAR)
    total = sum(amount for _, amount in lines(month(timeline=(plan,), period=period)))
    assert total == pytest.approx(30 * DOLLAR * share, abs=1)


def test_included_usage_is_free_and_the_minimum_counts_what_is_paid() -> None:
    """Fee and usage beyond what is included, up to the minimum."""
    plan = subscribed(date(2026, 1, 1), fee_microusd=10, included_microusd=100, minimum_microusd=70)
    assert lines(month(used(LAST, 130), timeline=(plan,))) == [
        ("fee", 10),
        ("usage", 130),
        ("included", -100),
        ("minimum", 30),
    ]
    assert lines(month(used(LAST, 60), timeline=(plan,))) == [
        ("fee", 10),
        ("usage", 60),
        ("included", -60),
        ("minimum", 60),
    ]
    assert lines(month(used(LAST, 200), timeline=(plan,)))[-1] == ("included", -100)


def test_graduated_tiers_price_each_unit_where_it_lies() -> None:
    """Tokens by the thousand, rounded half up; the facts' own cost is replaced."""
    plan = subscribed(
        date(2026, 1, 1),
        tiers=(charge((1_000, 500), (3_000, 301), (None, 100), meter=Meter.OUTPUT_TOKENS),),
    )
    records = month(
        used(date(2026, 11, 2), 77, output_tokens=1_500),
        used(date(2026, 11, 9), 3, output_tokens=2_005),
        timeline=(plan,),
    )
    assert lines(records) == [("tiered", 500), ("tiered", 602), ("tiered", 51)]
    assert [line.quantity for line in rate(records).lines] == [1_000, 2_000, 505]
    assert rate(records).rerated_microusd == 80


def test_volume_tiers_price_all_units_where_the_total_lies() -> None:
    """At the bound itself it is still the lower tier."""
    plan = subscribed(
        date(2026, 1, 1), tiers=(charge((30, 10), (None, 7), tiering=Tiering.VOLUME, flat=2),)
    )
    for requests, expected in ((30, [300, 2]), (31, [217, 2]), (0, [])):
        records = month(used(LAST, 1, requests=requests), timeline=(plan,))
        assert [amount for _, amount in lines(records)] == expected


def test_a_model_with_tiers_has_all_its_meters_in_the_plan() -> None:
    """Requests are priced, so its tokens are free; another model costs what its facts say."""
    plan = subscribed(date(2026, 1, 1), tiers=(charge((None, 10)),))
    records = month(used(LAST, 999, input_tokens=50), used(LAST, 8, "large"), timeline=(plan,))
    assert lines(records) == [("usage", 8), ("tiered", 10)]


def test_changing_plans_to_and_fro_gives_no_first_tier_twice() -> None:
    """Bounds are prorated, and a charge that comes back goes on where it was."""
    cheap_first = charge((300, 1), (None, 100))
    plans = (
        subscribed(date(2026, 1, 1), tiers=(cheap_first,)),
        subscribed(date(2026, 11, 11), "Other"),
        subscribed(date(2026, 11, 21), tiers=(cheap_first,)),
    )
    records = month(
        used(date(2026, 11, 1), 0, requests=200),
        used(date(2026, 11, 15), 5),
        used(date(2026, 11, 30), 0, requests=200),
        timeline=plans,
    )
    assert lines(records) == [("usage", 5), ("tiered", 200), ("tiered", 200 * 100)]


def test_late_usage_is_at_its_facts_price_and_not_included() -> None:
    """Its own month was closed: what that included is accounted for."""
    plan = subscribed(date(2026, 1, 1), included_microusd=100, tiers=(charge((None, 10)),))
    records = month(
        used(date(2026, 10, 31), 40, requests=3),
        used(date(2026, 9, 30), 2),
        used(LAST, 0),
        timeline=(plan,),
    )
    rated = rate(records)
    assert lines(records) == [("tiered", 10), ("included", -10), ("late", 2), ("late", 40)]
    assert rated.lines[3].description == "small: requests 3, of 2026-10"
    assert rated.payable == {LAST: 0, date(2026, 10, 31): 40, date(2026, 9, 30): 2}
    assert (rated.metered_microusd, rated.rerated_microusd) == (42, 0)


def test_corrections_are_lines_with_their_reasons() -> None:
    """In either direction, in an order that does not depend on when they were made."""
    corrections = (Adjustment("Outage", -9), Adjustment("Forgotten", 4))
    [first, second] = rate(month(adjustments=corrections)).lines
    assert (first.kind, first.description, first.amount_microusd) == (
        LineKind.ADJUSTMENT,
        "Forgotten",
        4,
    )
    assert second.amount_microusd == -9
    assert rate(month(adjustments=corrections[::-1])).lines == (first, second)
