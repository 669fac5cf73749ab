"""What a month costs: one pure function of its records, for the preview and for the invoice.

Usage costs what its facts say (ADR 5), but for models with tiered charges, whose quantities are
rated as a whole. Fees, included amounts, minimums and tiers are prorated by the days on which the
terms hold; what is included and the minimum count over all days of the month together (ADR 25).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from penstock_billing.domain import invoice_lines as say
from penstock_billing.domain.credits import without_included
from penstock_billing.domain.plans import Segment, segments
from penstock_billing.domain.tiers import in_tiers
from penstock_billing.ports.invoices import DayUsage, MonthRecords
from penstock_shared.contracts.invoices import InvoiceLine
from penstock_shared.contracts.plans import TieredCharge


@dataclass(frozen=True, slots=True)
class RatedMonth:
    """A month before credits."""

    tenant: str
    period: date
    lines: tuple[InvoiceLine, ...]
    metered_microusd: int
    """What the facts of its usage say, late ones included."""
    rerated_microusd: int
    """What of it the tiered lines replace."""
    payable: Mapping[date, int]
    """What credits may pay: usage beyond what is included, by the day of its acceptance."""


def rate(records: MonthRecords) -> RatedMonth:
    """Every line of the month but the credits."""
    month = segments(records.timeline, records.period)
    late = [one for one in records.usage if one.day < records.period]
    usage = [one for one in records.usage if one.day >= records.period]
    tiered = [one for one in usage if _is_tiered(one, month)]
    plain = [one for one in usage if not _is_tiered(one, month)]
    charges = [_rate_charge(charge, month, tiered) for charge in _charges(month)]
    owed = _by_day([*_costs(plain), *(cost for charge in charges for cost in charge.by_day)])
    included = sum(one.share(one.terms.included_microusd) for one in month)
    beyond = without_included(owed, included)
    of_plans = [
        *say.fee_lines(month),
        *say.usage_lines(plain),
        *(line for charge in charges for line in charge.lines),
        *say.included_line(month, sum(owed.values()) - sum(beyond.values())),
    ]
    return RatedMonth(
        tenant=records.tenant,
        period=records.period,
        lines=(
            *of_plans,
            *say.minimum_line(month, sum(line.amount_microusd for line in of_plans)),
            *say.late_lines(late),
            *say.correction_lines(month, records.adjustments),
        ),
        metered_microusd=sum(one.cost_microusd for one in records.usage),
        rerated_microusd=sum(one.cost_microusd for one in tiered),
        payable=_by_day([*beyond.items(), *_costs(late)]),
    )


@dataclass(frozen=True, slots=True)
class _RatedCharge:
    lines: list[InvoiceLine]
    by_day: list[tuple[date, int]]


def _rate_charge(
    charge: TieredCharge, month: Sequence[Segment], usage: Iterable[DayUsage]
) -> _RatedCharge:
    """A tiered charge, over all days on which it holds: one that returns goes on where it was."""
    held = [segment for segment in month if charge in segment.terms.tiers]
    quantities = _by_day(
        (one.day, one.quantity(charge.meter))
        for one in usage
        if one.model == charge.model and any(_holds(segment, one.day) for segment in held)
    )
    tiers = in_tiers(
        charge,
        sum(quantities.values()),
        lambda of_month: sum(segment.share(of_month) for segment in held),
    )
    lines = say.tier_lines(charge, tiers, (held[0].from_day, held[-1].to_day))
    return _RatedCharge(lines, _spread(sum(line.amount_microusd for line in lines), quantities))


def _spread(amount: int, quantities: Mapping[date, int]) -> list[tuple[date, int]]:
    """`amount` over days in proportion to their quantities, adding up to it exactly."""
    total, before, shares = sum(quantities.values()), 0, []
    for day in sorted(day for day, quantity in quantities.items() if quantity):
        after = before + quantities[day]
        shares.append((day, amount * after // total - amount * before // total))
        before = after
    return shares


def _charges(month: Iterable[Segment]) -> list[TieredCharge]:
    """Every tiered charge of the month, once, in the order in which they first hold."""
    return list(dict.fromkeys(charge for segment in month for charge in segment.terms.tiers))


def _is_tiered(usage: DayUsage, month: Iterable[Segment]) -> bool:
    terms = next(segment.terms for segment in month if _holds(segment, usage.day))
    return any(charge.model == usage.model for charge in terms.tiers)


def _holds(segment: Segment, day: date) -> bool:
    return segment.from_day <= day <= segment.to_day


def _costs(usage: Iterable[DayUsage]) -> Iterable[tuple[date, int]]:
    return ((one.day, one.cost_microusd) for one in usage)


def _by_day(amounts: Iterable[tuple[date, int]]) -> dict[date, int]:
    sums: dict[date, int] = {}
    for day, amount in amounts:
        sums[day] = sums.get(day, 0) + amount
    return sums
