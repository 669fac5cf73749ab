"""Which terms hold when, and what a tenant's own terms change."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from penstock_billing.domain.plans import (
    Segment,
    in_force,
    limited_from,
    overridden,
    prices_of,
    segments,
    tenant_prices,
)
from penstock_shared.contracts.plan_commands import PlanOverrides
from penstock_shared.contracts.plans import (
    DEFAULT_PLAN,
    MAX_UNIT_MICROUSD,
    PAY_AS_YOU_GO,
    Meter,
    PlanTerms,
    Subscription,
    TenantPrices,
    Tier,
    TieredCharge,
)
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, QuotaUnit
from penstock_shared.contracts.usage import Price

NOVEMBER = date(2026, 11, 1)
PRICE = Price(input_microusd_per_1k=5, output_microusd_per_1k=7)
TEAM = PlanTerms(title="Team", fee_microusd=30_000_000, prices={"small": PRICE})
PREPAID = PlanTerms(title="Prepaid", overage=False)


def since(day: date, terms: PlanTerms = TEAM, version: int = 1) -> Subscription:
    """Acme's plan from that day on."""
    return Subscription(tenant="acme", from_day=day, plan="team", version=version, terms=terms)


def charge(model: str, meter: Meter, first: int = 3) -> TieredCharge:
    """Dear at first, cheap after a million."""
    return TieredCharge(
        model=model, meter=meter, tiers=(Tier(up_to=1_000_000, microusd=first), Tier(microusd=1))
    )


def test_a_month_without_a_plan_is_one_segment() -> None:
    """Who has no plan pays as it goes, all month."""
    assert segments([], date(2026, 11, 17)) == [
        Segment(NOVEMBER, date(2026, 11, 30), DEFAULT_PLAN, 1, PAY_AS_YOU_GO)
    ]


def test_a_month_falls_into_segments_at_each_change() -> None:
    """The days before the first plan, the first, the second; the next month's plan is not in it."""
    timeline = [
        since(date(2026, 12, 1), version=9),
        since(date(2026, 11, 20), version=2),
        since(date(2026, 11, 11)),
    ]
    found = segments(timeline, NOVEMBER)
    assert [(one.from_day.day, one.to_day.day, one.plan, one.version) for one in found] == [
        (1, 10, DEFAULT_PLAN, 1),
        (11, 19, "team", 1),
        (20, 30, "team", 2),
    ]


def test_the_same_terms_again_begin_no_segment() -> None:
    """Assigning what holds already must not give a first tier twice."""
    timeline = [since(date(2026, 10, 3)), since(date(2026, 11, 11)), since(date(2026, 11, 12))]
    assert [one.days for one in segments(timeline, NOVEMBER)] == [30]


def test_a_plan_that_began_before_holds_from_the_first_on() -> None:
    """A leap day is a day like others."""
    (whole,) = segments([since(date(2027, 3, 1))], date(2028, 2, 1))
    assert (whole.from_day, whole.to_day, whole.days) == (date(2028, 2, 1), date(2028, 2, 29), 29)
    assert whole.share(29_000_000) == 29_000_000


def test_the_subscription_in_force_is_the_last_that_began() -> None:
    """Whatever the order."""
    early, late = since(date(2026, 11, 1)), since(date(2026, 11, 9))
    assert in_force([late, early], date(2026, 11, 8)) == early
    assert in_force([late, early], date(2026, 11, 9)) == late
    assert in_force([late, early], date(2026, 10, 31)) is None


def test_overrides_take_the_place_of_what_they_name() -> None:
    """The rest of the plan stays: prices of other models, quotas of other units."""
    day = Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.DAY, limit=10)
    terms = TEAM.model_copy(
        update={
            "tiers": (charge("large", Meter.INPUT_TOKENS),),
            "quotas": (day, Quota(unit=QuotaUnit.REQUESTS, period=QuotaPeriod.DAY, limit=5)),
        }
    )
    own = PlanOverrides(
        fee_microusd=1,
        prices={"large": PRICE},
        tiers=(charge("small", Meter.OUTPUT_TOKENS),),
        quotas=(day.model_copy(update={"limit": 99}),),
    )
    merged = overridden(terms, own)
    assert (merged.title, merged.fee_microusd) == ("Team", 1)
    assert merged.prices == {"large": PRICE}
    assert [one.model for one in merged.tiers] == ["small"]
    assert sorted(quota.limit for quota in merged.quotas) == [5, 99]
    assert overridden(terms, PlanOverrides()) == terms


@pytest.mark.parametrize(
    "wrong",
    [
        {"tiers": [charge("small", Meter.REQUESTS)]},  # which has a price, too
        {"overage": False, "prices": {}, "tiers": [charge("small", Meter.REQUESTS)]},
        {"tiers": [{"model": "large", "meter": "requests", "tiers": [{"microusd": 10**9 + 1}]}]},
        {"prices": {"small": {"input_microusd_per_1k": 10**9 + 1, "output_microusd_per_1k": 0}}},
        {"currency": "EUR"},
        {"fee_microusd": -1},
        {"fee": 5},
        {"prices": {"small": {"input_microusd_per_1k": -1, "output_microusd_per_1k": 0}}},
        {
            "quotas": [
                {"unit": "tokens", "period": "day", "limit": 1},
                {"unit": "tokens", "period": "day", "limit": 2},
            ]
        },
    ],
)
def test_terms_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """Another currency, negative amounts, two prices for one thing."""
    with pytest.raises(ValidationError):
        PlanTerms.model_validate({**TEAM.model_dump(), **wrong})


def test_the_price_of_tiers_at_routing_is_that_of_the_first() -> None:
    """A meter of a tiered model that has no charge is free of charge."""
    tiers = (charge("large", Meter.OUTPUT_TOKENS, 9), charge("large", Meter.REQUESTS, 4))
    prices = prices_of(TEAM.model_copy(update={"tiers": tiers}))
    assert prices["small"] == PRICE
    assert prices["large"] == Price(
        input_microusd_per_1k=0,
        cached_input_microusd_per_1k=0,
        output_microusd_per_1k=9,
        request_microusd=4,
    )


def test_routers_learn_todays_prices_and_those_to_come() -> None:
    """What was, they need no more; what comes holds from its day on."""
    timeline = [
        since(date(2026, 11, 1), PAY_AS_YOU_GO),
        since(date(2026, 11, 5)),
        since(date(2026, 12, 1), PAY_AS_YOU_GO),
    ]
    prices = tenant_prices("acme", timeline, date(2026, 11, 6))
    assert [change.from_day.isoformat() for change in prices.changes] == [
        "2026-11-05",
        "2026-12-01",
    ]
    assert prices.on(date(2026, 11, 4)) == {}
    assert prices.on(date(2026, 11, 30)) == {"small": PRICE}
    assert prices.on(date(2026, 12, 1)) == {}


def test_the_prices_of_a_tenant_are_one_message() -> None:
    """However many a plan has, today's and six changes to come; else nothing would be told."""
    dearest = Price(
        input_microusd_per_1k=MAX_UNIT_MICROUSD,
        cached_input_microusd_per_1k=MAX_UNIT_MICROUSD,
        output_microusd_per_1k=MAX_UNIT_MICROUSD,
        request_microusd=MAX_UNIT_MICROUSD,
        tool_call_microusd=MAX_UNIT_MICROUSD,
    )
    largest = PlanTerms(
        title="Everything",
        prices={f"{number:063}": dearest for number in range(400)},
        tiers=tuple(charge(f"t{number:062}", Meter.OUTPUT_TOKENS) for number in range(200)),
    )
    days = (NOVEMBER + timedelta(days=number) for number in range(7))
    prices = tenant_prices("acme", [since(day, largest) for day in days], NOVEMBER)
    assert len(prices.model_dump_json()) < 1_000_000
    with pytest.raises(ValidationError):
        PlanTerms(title="More", prices={**largest.prices, "one-more": PRICE})


def test_routers_take_no_price_that_no_plan_may_have() -> None:
    """What somebody else wrote into the bucket is unreadable; what was there before holds."""
    prices = tenant_prices("acme", [since(NOVEMBER)], NOVEMBER).model_dump_json()
    absurd = prices.replace('"output_microusd_per_1k":7', f'"output_microusd_per_1k":{2**50}')
    assert absurd != prices
    with pytest.raises(ValidationError):
        TenantPrices.model_validate_json(absurd)


def test_limits_hold_from_the_first_day_that_has_them() -> None:
    """Of the plan in force and of those to come; of what has ended nothing is left."""
    timeline = [
        since(date(2026, 10, 1), PREPAID),
        since(date(2026, 11, 5)),
        since(date(2026, 12, 1), PREPAID),
    ]
    assert limited_from(timeline, date(2026, 11, 4)) == date(2026, 10, 1)
    assert limited_from(timeline, date(2026, 11, 5)) == date(2026, 12, 1)
    assert limited_from(timeline[:2], date(2026, 11, 5)) is None
