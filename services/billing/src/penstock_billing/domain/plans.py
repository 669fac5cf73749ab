"""Which terms hold when: overrides, the segments of a month, and what routers must know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Final

from penstock_shared.contracts.ids import ModelName
from penstock_shared.contracts.plan_commands import PlanOverrides
from penstock_shared.contracts.plans import (
    DEFAULT_PLAN,
    PAY_AS_YOU_GO,
    Meter,
    PlanTerms,
    PricesFrom,
    Subscription,
    TenantPrices,
    TieredCharge,
)
from penstock_shared.contracts.usage import Price

_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Segment:
    """Days of one month on which the same terms hold."""

    from_day: date
    to_day: date
    """The last one, included."""
    plan: str
    version: int
    terms: PlanTerms

    @property
    def days(self) -> int:
        """How many."""
        return (self.to_day - self.from_day).days + 1

    def share(self, of_month: int) -> int:
        """These days' part of an amount (or a bound) for the whole month.

        Whole numbers that add up to the amount over any division of the month: each is the
        difference of what is due up to its end and up to its beginning, both rounded down.
        """
        month = days_in_month(self.from_day)
        before = self.from_day.day - 1
        return of_month * self.to_day.day // month - of_month * before // month


def month_start(day: date) -> date:
    """The first day of its month."""
    return day.replace(day=1)


def next_month(day: date) -> date:
    """The first day of the month after."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def days_in_month(day: date) -> int:
    """28 to 31."""
    return (next_month(day) - month_start(day)).days


def segments(timeline: Sequence[Subscription], month: date) -> list[Segment]:
    """The month's days by the terms that hold, without a gap; neighbours differ.

    `timeline` is one tenant's subscriptions in any order; before the first it pays as it goes.
    """
    first, end = month_start(month), next_month(month)
    ordered = sorted(timeline, key=lambda one: one.from_day)
    starts = [first, *(one.from_day for one in ordered if first < one.from_day < end), end]
    found: list[Segment] = []
    for start, following in pairwise(starts):
        segment = _segment(in_force(ordered, start), start, following - _ONE_DAY)
        if found and _same_terms(found[-1], segment):
            segment = replace(found.pop(), to_day=segment.to_day)
        found.append(segment)
    return found


def in_force(timeline: Sequence[Subscription], day: date) -> Subscription | None:
    """The subscription that holds on that day; None: the tenant pays as it goes."""
    begun = [one for one in timeline if one.from_day <= day]
    return max(begun, key=lambda one: one.from_day, default=None)


def overridden(terms: PlanTerms, overrides: PlanOverrides) -> PlanTerms:
    """The terms with a tenant's own in their place.

    Raises:
        ValueError: together they are no terms (`pydantic.ValidationError`).
    """
    own = overrides.model_dump(exclude_none=True, exclude={"prices", "tiers", "quotas"})
    tiered = {charge.model for charge in overrides.tiers}
    priced = tiered | overrides.prices.keys()
    quotas = {(one.unit, one.period): one for one in (*terms.quotas, *overrides.quotas)}
    return PlanTerms.model_validate(
        {
            **terms.model_dump(),
            **own,
            "prices": {
                **{model: price for model, price in terms.prices.items() if model not in tiered},
                **overrides.prices,
            },
            "tiers": (*(one for one in terms.tiers if one.model not in priced), *overrides.tiers),
            "quotas": tuple(quotas.values()),
        }
    )


def models_named(terms: PlanTerms | PlanOverrides) -> set[ModelName]:
    """Those that have prices or tiers there."""
    return {*terms.prices, *(charge.model for charge in terms.tiers)}


def limits_use(terms: PlanTerms) -> bool:
    """Whether what a tenant may use has to be reserved first (I4)."""
    return bool(terms.quotas) or not terms.overage


def limited_from(timeline: Sequence[Subscription], today: date) -> date | None:
    """From which day on, today's terms included, the terms limit what the tenant may use."""
    days = [one.from_day for one in from_today(timeline, today) if limits_use(one.terms)]
    return min(days, default=None)


def from_today(timeline: Sequence[Subscription], today: date) -> list[Subscription]:
    """The subscription in force and those to come, by day."""
    current = in_force(timeline, today)
    later = [one for one in timeline if one.from_day > today]
    return sorted([*([current] if current else []), *later], key=lambda one: one.from_day)


def prices_of(terms: PlanTerms) -> dict[ModelName, Price]:
    """What a request costs when it is routed: of tiered models the first tiers' prices."""
    tiered = {charge.model for charge in terms.tiers}
    return dict(terms.prices) | {model: _first_tier(terms.tiers, model) for model in tiered}


def tenant_prices(tenant: str, timeline: Sequence[Subscription], today: date) -> TenantPrices:
    """What routers must know of a tenant's plans."""
    return TenantPrices(
        tenant=tenant,
        changes=tuple(
            PricesFrom(
                from_day=one.from_day,
                plan=one.plan,
                version=one.version,
                prices=prices_of(one.terms),
            )
            for one in from_today(timeline, today)
        ),
    )


def _first_tier(tiers: Sequence[TieredCharge], model: str) -> Price:
    first = {one.meter: one.tiers[0].microusd for one in tiers if one.model == model}
    return Price(
        input_microusd_per_1k=first.get(Meter.INPUT_TOKENS, 0),
        cached_input_microusd_per_1k=first.get(Meter.CACHED_INPUT_TOKENS, 0),
        output_microusd_per_1k=first.get(Meter.OUTPUT_TOKENS, 0),
        request_microusd=first.get(Meter.REQUESTS, 0),
        tool_call_microusd=first.get(Meter.TOOL_CALLS, 0),
    )


def _segment(held: Subscription | None, from_day: date, to_day: date) -> Segment:
    if held is None:
        return Segment(from_day, to_day, DEFAULT_PLAN, 1, PAY_AS_YOU_GO)
    return Segment(from_day, to_day, held.plan, held.version, held.terms)


def _same_terms(one: Segment, other: Segment) -> bool:
    return (one.plan, one.version, one.terms) == (other.plan, other.version, other.terms)
