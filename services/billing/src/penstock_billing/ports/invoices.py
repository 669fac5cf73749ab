"""What a month is rated from, and what becomes of it. Amounts are micro-dollars, days UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from penstock_shared.contracts.plans import Subscription


@dataclass(frozen=True, slots=True)
class DayUsage:
    """What a tenant used of one model among the requests accepted on one day."""

    day: date
    """Before the month: usage that came after its own month was cut."""
    model: str
    requests: int
    input_tokens: int
    """Cached ones included."""
    cached_input_tokens: int
    output_tokens: int
    tool_calls: int
    cost_microusd: int
    """As its facts say (ADR 5)."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction of what a tenant owes for a month."""

    day: date
    reason: str
    amount_microusd: int
    """Negative: in the tenant's favour."""


@dataclass(frozen=True, slots=True)
class MonthRecords:
    """All that a month is rated from."""

    tenant: str
    period: date
    """The month's first day."""
    timeline: tuple[Subscription, ...]
    """The tenant's, whole."""
    usage: tuple[DayUsage, ...]
    adjustments: tuple[Adjustment, ...] = ()
