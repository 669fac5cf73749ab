"""Months of usage, plans and credits: as examples, and as hypothesis draws them."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from penstock_billing.domain.plans import next_month
from penstock_billing.ports.credits import Grant
from penstock_billing.ports.invoices import Adjustment, DayUsage, MonthRecords
from penstock_shared.contracts.plans import (
    Meter,
    PlanTerms,
    Subscription,
    Tier,
    TieredCharge,
    Tiering,
)

NOVEMBER = date(2026, 11, 1)
MONTHS = (date(2026, 11, 1), date(2027, 2, 1), date(2028, 2, 1), date(2026, 12, 1))
"""30, 28, 29 and 31 days, one of them a year's last."""


def used(day: date, cost: int, model: str = "small", **fields: int) -> DayUsage:
    """A day's usage of a model."""
    values: dict[str, int] = {
        "requests": 1,
        "input_tokens": 0,
        "cached_input_tokens": 0,
        "output_tokens": 0,
        "tool_calls": 0,
        **fields,
    }
    return DayUsage(day=day, model=model, cost_microusd=cost, **values)


def subscribed(from_day: date, title: str = "Team", **terms: Any) -> Subscription:
    """A plan of acme's from a day on."""
    return Subscription(
        tenant="acme",
        from_day=from_day,
        plan="team",
        version=1,
        terms=PlanTerms(title=title, **terms),
    )


def month(
    *usage: DayUsage,
    timeline: tuple[Subscription, ...] = (),
    adjustments: tuple[Adjustment, ...] = (),
    period: date = NOVEMBER,
) -> MonthRecords:
    """What acme's month is rated from."""
    return MonthRecords("acme", period, timeline, usage, adjustments)


def granted(microusd: int, *, expires_on: date | None = None, **fields: Any) -> Grant:
    """Credit of which so much is left."""
    values: dict[str, Any] = {
        "grant_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{microusd} {expires_on} {fields}")),
        "priority": 100,
        "granted_at": datetime(2026, 10, 1, tzinfo=UTC),
        **fields,
    }
    return Grant(left_microusd=microusd, expires_on=expires_on, **values)


def charge(
    *tiers: tuple[int | None, int],
    meter: Meter = Meter.REQUESTS,
    tiering: Tiering = Tiering.GRADUATED,
    model: str = "small",
    flat: int = 0,
) -> TieredCharge:
    """Tiers as pairs of bound and price; each with the same flat fee."""
    return TieredCharge(
        model=model,
        meter=meter,
        tiering=tiering,
        tiers=tuple(Tier(up_to=top, microusd=price, flat_microusd=flat) for top, price in tiers),
    )


_AMOUNTS = st.integers(0, 10**9)
_MODELS = ("small", "large")


@st.composite
def charges(draw: st.DrawFn) -> TieredCharge:
    """Any tiers of any meter."""
    bounds = sorted(draw(st.sets(st.integers(1, 5_000), max_size=3)))
    return TieredCharge(
        model=draw(st.sampled_from(_MODELS)),
        meter=draw(st.sampled_from(list(Meter))),
        tiering=draw(st.sampled_from(list(Tiering))),
        tiers=tuple(
            Tier(up_to=top, microusd=draw(_AMOUNTS), flat_microusd=draw(_AMOUNTS))
            for top in [*bounds, None]
        ),
    )


@st.composite
def terms(draw: st.DrawFn) -> PlanTerms:
    """Any plan."""
    tiers = {(one.model, one.meter): one for one in draw(st.lists(charges(), max_size=3))}
    return PlanTerms(
        title=draw(st.sampled_from(("Free", "Team", "Enterprise"))),
        fee_microusd=draw(_AMOUNTS),
        included_microusd=draw(_AMOUNTS),
        minimum_microusd=draw(_AMOUNTS),
        tiers=tuple(tiers.values()),
    )


@st.composite
def days(draw: st.DrawFn, period: date) -> date:
    """One of the month's."""
    return period + timedelta(days=draw(st.integers(0, (next_month(period) - period).days - 1)))


@st.composite
def usages(draw: st.DrawFn, period: date) -> list[DayUsage]:
    """Any usage of the month, some of it of the month before."""
    found = []
    for _ in range(draw(st.integers(0, 8))):
        day = draw(days(period))
        tokens = draw(st.integers(0, 10_000))
        found.append(
            DayUsage(
                day=day - timedelta(days=31) if draw(st.integers(0, 9)) == 0 else day,
                model=draw(st.sampled_from(_MODELS)),
                requests=draw(st.integers(0, 10_000)),
                input_tokens=tokens,
                cached_input_tokens=draw(st.integers(0, tokens)),
                output_tokens=draw(st.integers(0, 10_000)),
                tool_calls=draw(st.integers(0, 100)),
                cost_microusd=draw(_AMOUNTS),
            )
        )
    return found


@st.composite
def timelines(draw: st.DrawFn, period: date) -> tuple[Subscription, ...]:
    """Any plans, some of them from before the month."""
    starts = draw(st.sets(days(period), max_size=4))
    before = {period - timedelta(days=40)} if draw(st.booleans()) else set()
    return tuple(
        Subscription(tenant="acme", from_day=day, plan=f"plan-{n}", version=1, terms=draw(terms()))
        for n, day in enumerate(sorted(starts | before))
    )


@st.composite
def grants(draw: st.DrawFn, period: date) -> list[Grant]:
    """Any credits."""
    return [
        granted(
            draw(st.integers(1, 10**9)),
            expires_on=draw(st.none() | days(period)),
            grant_id=str(uuid.UUID(int=number)),
            priority=draw(st.integers(0, 2)),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def months(draw: st.DrawFn, period: date | None = None) -> MonthRecords:
    """Any month, corrections included."""
    chosen = draw(st.sampled_from(MONTHS)) if period is None else period
    corrections = draw(st.lists(st.integers(-(10**10), 10**10).filter(bool), max_size=3))
    return MonthRecords(
        tenant="acme",
        period=chosen,
        timeline=draw(timelines(chosen)),
        usage=tuple(draw(usages(chosen))),
        adjustments=tuple(Adjustment(f"No. {n}", one) for n, one in enumerate(corrections)),
    )
