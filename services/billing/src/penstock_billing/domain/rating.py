"""What a month costs: one pure function of its records, for the preview and for the invoice.

Usage costs what its facts say (ADR 5), but for models with tiered charges, whose quantities are
rated as a whole. Fees, included amounts, minimums and tiers are prorated by the days on which the
terms hold; what is included and the minimum count over all days of the month together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from penstock_billing.domain.credits import without_included
from penstock_billing.domain.plans import Segment, days_in_month, segments
from penstock_billing.domain.tiers import InTier, in_tiers
from penstock_billing.ports.invoices import DayUsage, MonthRecords
from penstock_shared.contracts.invoices import InvoiceLine, LineKind
from penstock_shared.contracts.plans import Meter, TieredCharge

_NAMES: Final = {
    Meter.INPUT_TOKENS: "input tokens",
    Meter.CACHED_INPUT_TOKENS: "cached input tokens",
    Meter.OUTPUT_TOKENS: "output tokens",
    Meter.REQUESTS: "requests",
    Meter.TOOL_CALLS: "tool calls",
}


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
    usage = [one for one in records.usage if one.day >= records.period]
    tiered = [one for one in usage if _is_tiered(one, month)]
    plain = [one for one in usage if not _is_tiered(one, month)]
    late = [one for one in records.usage if one.day < records.period]
    charges = [_rate_charge(charge, month, tiered) for charge in _charges(month)]
    owed = _by_day([*_costs(plain), *(cost for charge in charges for cost in charge.by_day)])
    included = sum(one.share(one.terms.included_microusd) for one in month)
    beyond = without_included(owed, included)
    lines = [
        *_fee_lines(month),
        *_usage_lines(plain),
        *(line for charge in charges for line in charge.lines),
        *_included_line(month, sum(owed.values()) - sum(beyond.values())),
    ]
    lines += _minimum_line(month, sum(line.amount_microusd for line in lines))
    lines += _late_lines(late)
    lines += [
        _line(LineKind.ADJUSTMENT, reason, _whole(month), amount)
        for reason, amount in sorted((a.reason, a.amount_microusd) for a in records.adjustments)
    ]
    return RatedMonth(
        tenant=records.tenant,
        period=records.period,
        lines=tuple(lines),
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
    days = (held[0].from_day, held[-1].to_day)
    quantities = _by_day(
        (one.day, _quantity(one, charge.meter))
        for one in usage
        if one.model == charge.model and any(_holds(segment, one.day) for segment in held)
    )
    found = in_tiers(
        charge,
        sum(quantities.values()),
        lambda of_month: sum(segment.share(of_month) for segment in held),
    )
    lines = [line for tier in found for line in _tier_lines(charge, tier, days)]
    return _RatedCharge(lines, _spread(sum(line.amount_microusd for line in lines), quantities))


def _spread(amount: int, quantities: Mapping[date, int]) -> list[tuple[date, int]]:
    """`amount` over days in proportion to their quantities, adding up to it exactly."""
    total, before, shares = sum(quantities.values()), 0, []
    for day in sorted(day for day, quantity in quantities.items() if quantity):
        after = before + quantities[day]
        shares.append((day, amount * after // total - amount * before // total))
        before = after
    return shares


def _fee_lines(month: Sequence[Segment]) -> list[InvoiceLine]:
    return [
        _line(
            LineKind.FEE,
            f"{segment.terms.title}: {_days(segment)}",
            (segment.from_day, segment.to_day),
            segment.share(segment.terms.fee_microusd),
        )
        for segment in month
        if segment.terms.fee_microusd
    ]


def _usage_lines(usage: Sequence[DayUsage]) -> list[InvoiceLine]:
    return [_used(LineKind.USAGE, model, of) for model, of in _grouped(usage)]


def _late_lines(usage: Sequence[DayUsage]) -> list[InvoiceLine]:
    """At their facts' prices: their own month is closed, and what it included is accounted for."""
    months = sorted({one.day.replace(day=1) for one in usage})
    return [
        _used(LineKind.LATE, model, of, note=f", of {month:%Y-%m}")
        for month in months
        for model, of in _grouped([one for one in usage if one.day.replace(day=1) == month])
    ]


def _included_line(month: Sequence[Segment], amount: int) -> list[InvoiceLine]:
    if not amount:
        return []
    return [_line(LineKind.INCLUDED, "Included in the plan", _whole(month), -amount)]


def _minimum_line(month: Sequence[Segment], amount: int) -> list[InvoiceLine]:
    least = sum(segment.share(segment.terms.minimum_microusd) for segment in month)
    if amount >= least:
        return []
    return [_line(LineKind.MINIMUM, "Up to the minimum", _whole(month), least - amount)]


def _tier_lines(
    charge: TieredCharge, tier: InTier, days: tuple[date, date]
) -> Iterable[InvoiceLine]:
    where = f"{charge.model}, {_NAMES[charge.meter]}, tier above {tier.above:,}"
    yield InvoiceLine(
        kind=LineKind.TIERED,
        description=where,
        from_day=days[0],
        to_day=days[1],
        model=charge.model,
        meter=charge.meter.value,
        quantity=tier.units,
        unit_microusd=tier.unit_microusd,
        amount_microusd=tier.amount_microusd,
    )
    if tier.flat_microusd:
        flat = f"{where}: flat fee"
        yield _line(LineKind.TIERED, flat, days, tier.flat_microusd, charge.model)


def _used(kind: LineKind, model: str, usage: Sequence[DayUsage], note: str = "") -> InvoiceLine:
    used = {meter: sum(_quantity(one, meter) for one in usage) for meter in Meter}
    told = ", ".join(f"{_NAMES[meter]} {count:,}" for meter, count in used.items() if count)
    days = (min(one.day for one in usage), max(one.day for one in usage))
    cost = sum(one.cost_microusd for one in usage)
    return _line(kind, f"{model}: {told or 'nothing'}{note}", days, cost, model)


def _line(
    kind: LineKind,
    description: str,
    days: tuple[date, date],
    amount_microusd: int,
    model: str | None = None,
) -> InvoiceLine:
    return InvoiceLine(
        kind=kind,
        description=description,
        from_day=days[0],
        to_day=days[1],
        model=model,
        amount_microusd=amount_microusd,
    )


def _charges(month: Iterable[Segment]) -> list[TieredCharge]:
    """Every tiered charge of the month, once, in the order in which they first hold."""
    return list(dict.fromkeys(charge for segment in month for charge in segment.terms.tiers))


def _is_tiered(usage: DayUsage, month: Iterable[Segment]) -> bool:
    terms = next(segment.terms for segment in month if _holds(segment, usage.day))
    return any(charge.model == usage.model for charge in terms.tiers)


def _holds(segment: Segment, day: date) -> bool:
    return segment.from_day <= day <= segment.to_day


def _quantity(usage: DayUsage, meter: Meter) -> int:
    return {
        Meter.INPUT_TOKENS: usage.input_tokens - usage.cached_input_tokens,
        Meter.CACHED_INPUT_TOKENS: usage.cached_input_tokens,
        Meter.OUTPUT_TOKENS: usage.output_tokens,
        Meter.REQUESTS: usage.requests,
        Meter.TOOL_CALLS: usage.tool_calls,
    }[meter]


def _grouped(usage: Sequence[DayUsage]) -> list[tuple[str, list[DayUsage]]]:
    models = sorted({one.model for one in usage})
    return [(model, [one for one in usage if one.model == model]) for model in models]


def _costs(usage: Iterable[DayUsage]) -> Iterable[tuple[date, int]]:
    return ((one.day, one.cost_microusd) for one in usage)


def _by_day(amounts: Iterable[tuple[date, int]]) -> dict[date, int]:
    sums: dict[date, int] = {}
    for day, amount in amounts:
        sums[day] = sums.get(day, 0) + amount
    return sums


def _whole(month: Sequence[Segment]) -> tuple[date, date]:
    return month[0].from_day, month[-1].to_day


def _days(segment: Segment) -> str:
    return f"{segment.days} of {days_in_month(segment.from_day)} days"
