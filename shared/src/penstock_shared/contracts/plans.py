"""Plans: what a tenant pays for what it uses. A plan's versions never change once published."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from penstock_shared.contracts.ids import ModelName, TenantId
from penstock_shared.contracts.quotas import Quota
from penstock_shared.contracts.usage import Price

MAX_MICROUSD: Final = 10**15
"""A thousand million dollars: more than any single amount may be."""
MAX_UNIT_MICROUSD: Final = 10**9
"""A thousand dollars. At more, a request of a million tokens would cost more than metering takes,
and a busy month more than eight bytes hold."""
PER_UNITS: Final = 1_000
"""Prices of tokens are for so many of them; those of requests and calls are for one."""

Microusd = Annotated[int, Field(ge=0, le=MAX_MICROUSD)]
PlanName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Currency = Literal["USD"]
"""One for the whole platform: adding another is a decision about exchange rates, not a string."""


class Meter(StrEnum):
    """What can have a price."""

    INPUT_TOKENS = "input_tokens"  # those that were not cached
    CACHED_INPUT_TOKENS = "cached_input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    REQUESTS = "requests"
    TOOL_CALLS = "tool_calls"


TOKEN_METERS: Final = frozenset(
    {Meter.INPUT_TOKENS, Meter.CACHED_INPUT_TOKENS, Meter.OUTPUT_TOKENS}
)


class Tiering(StrEnum):
    """How tiers apply."""

    GRADUATED = "graduated"  # each unit at the price of the tier in which it lies
    VOLUME = "volume"  # all units at the price of the tier that the total reaches


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tier(_Part):
    """Units up to and including `up_to` in a whole month; None: all that follow."""

    up_to: Annotated[int, Field(ge=1, le=10**15)] | None = None
    microusd: Annotated[int, Field(ge=0, le=MAX_UNIT_MICROUSD)]
    """For 1,000 tokens, one request or one call."""
    flat_microusd: Microusd = 0
    """Once, where the tier is reached."""


class TieredCharge(_Part):
    """A model's meter whose price depends on how much of it a month sees."""

    model: ModelName
    meter: Meter
    tiering: Tiering = Tiering.GRADUATED
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        bounds = [tier.up_to for tier in self.tiers]
        closed = [bound for bound in bounds[:-1] if bound is not None]
        rising = all(low < high for low, high in pairwise(closed))
        if bounds[-1] is not None or len(closed) < len(bounds) - 1 or not rising:
            msg = "tiers rise, and only the last has no 'up_to'"
            raise ValueError(msg)
        return self


def _payable(price: Price) -> Price:
    if max(amount or 0 for _, amount in price) > MAX_UNIT_MICROUSD:
        msg = f"no price is above {MAX_UNIT_MICROUSD} micro-dollars"
        raise ValueError(msg)
    return price


UnitPrice = Annotated[Price, AfterValidator(_payable)]


class PlanTerms(_Part):
    """What a plan says. Everything here is for a calendar month in UTC.

    Usage costs what its facts say: `prices` (or the model's own price) at the moment of routing.
    `tiers` are rated again from the month's quantities, in place of those facts' cost for that
    model: a model with a tiered charge has all its meters in the plan, and those without a charge
    are free of charge.
    """

    title: Annotated[str, StringConstraints(min_length=1, max_length=120)]
    currency: Currency = "USD"
    fee_microusd: Microusd = 0
    """Prorated by days."""
    included_microusd: Microusd = 0
    """So much usage is in the fee; prorated by days."""
    minimum_microusd: Microusd = 0
    """At least so much, fee and usage together; prorated by days."""
    overage: bool = True
    """False: what is neither included nor covered by credit is refused (I4). Then there are no
    tiers: what those come to is known when the month is over."""
    prices: Annotated[dict[ModelName, UnitPrice], Field(max_length=400)] = {}
    """In place of the models' own. So many that a tenant's `TenantPrices` are one message."""
    tiers: Annotated[tuple[TieredCharge, ...], Field(max_length=200)] = ()
    quotas: Annotated[tuple[Quota, ...], Field(max_length=20)] = ()
    """Besides those that the tenant has of its own."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        named = [(charge.model, charge.meter) for charge in self.tiers]
        if len(set(named)) < len(named):
            msg = "one tiered charge for each model and meter"
            raise ValueError(msg)
        both = sorted(self.prices.keys() & {charge.model for charge in self.tiers})
        if both:
            msg = f"the model '{both[0]}' has tiers: its prices are theirs"
            raise ValueError(msg)
        limited = [(quota.unit, quota.period) for quota in self.quotas]
        if len(set(limited)) < len(limited):
            msg = "one quota for each unit and period"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _known_at_routing(self) -> Self:
        if self.tiers and not self.overage:
            msg = "a plan without overage has no tiers: credit is held for what is known at routing"
            raise ValueError(msg)
        return self


class PlanVersion(BaseModel):
    """One version of a plan, as published."""

    model_config = ConfigDict(frozen=True)

    plan: PlanName
    version: Annotated[int, Field(ge=1)]
    terms: PlanTerms
    published_at: datetime


PAY_AS_YOU_GO: Final = PlanTerms(title="Pay as you go")
"""Of tenants to whom no plan was assigned: usage at the models' own prices, and nothing else."""
DEFAULT_PLAN: Final = "pay-as-you-go"
"""Its name; it has one version."""


class Subscription(BaseModel):
    """Which plan a tenant has from a day on, until its next subscription begins.

    A tenant's own terms (overrides) are merged into the plan's when it is assigned: what it pays
    is in `terms`, whatever becomes of the plan.
    """

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    from_day: date
    plan: PlanName
    version: Annotated[int, Field(ge=1)]
    terms: PlanTerms


class PricesFrom(BaseModel):
    """A plan's prices from a day on."""

    model_config = ConfigDict(frozen=True)

    from_day: date
    """In UTC."""
    plan: PlanName
    version: int
    prices: dict[ModelName, UnitPrice]
    """For a model with tiers: the prices of their first tiers."""


class TenantPrices(BaseModel):
    """The value of `prices/<tenant>`: what routers take in place of the models' own prices.

    Changes that are due later are in it, so that they take effect on their day by the clock that
    also says when a request was accepted, whoever is away at midnight.
    """

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    changes: tuple[PricesFrom, ...]
    """The prices in force when this was published, then those to come, by day."""

    def on(self, day: date) -> dict[ModelName, Price]:
        """What holds on that day."""
        begun = [change.prices for change in self.changes if change.from_day <= day]
        return begun[-1] if begun else {}
