"""The lines of an invoice: what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

from penstock_billing.domain.plans import Segment, days_in_month
from penstock_billing.domain.tiers import InTier
from penstock_billing.ports.invoices import Adjustment, DayUsage
from penstock_shared.contracts.invoices import InvoiceLine, LineKind
from penstock_shared.contracts.plans import Meter, TieredCharge

_NAMES: Final = {
    Meter.INPUT_TOKENS: "input tokens",
    Meter.CACHED_INPUT_TOKENS: "cached input tokens",
    Meter.OUTPUT_TOKENS: "output tokens",
    Meter.REQUESTS: "requests",
    Meter.TOOL_CALLS: "tool calls",
}


def fee_lines(month: Sequence[Segment]) -> list[InvoiceLine]:
    """One for each plan that has a fee, for its days."""
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


def usage_lines(usage: Sequence[DayUsage]) -> list[InvoiceLine]:
    """One for each model, at the facts' prices."""
    return [_used(LineKind.USAGE, model, of) for model, of in _grouped(usage)]


def late_lines(usage: Sequence[DayUsage]) -> list[InvoiceLine]:
    """One for each month that was closed without it, and model."""
    months = sorted({one.day.replace(day=1) for one in usage})
    return [
        _used(LineKind.LATE, model, of, note=f", of {month:%Y-%m}")
        for month in months
        for model, of in _grouped([one for one in usage if one.day.replace(day=1) == month])
    ]


def tier_lines(
    charge: TieredCharge, tiers: Iterable[InTier], days: tuple[date, date]
) -> list[InvoiceLine]:
    """One for the units in each tier, and one for its flat fee."""
    return [line for tier in tiers for line in _tier(charge, tier, days)]


def included_line(month: Sequence[Segment], amount: int) -> list[InvoiceLine]:
    """So much of the usage is in the fees."""
    if not amount:
        return []
    return [_line(LineKind.INCLUDED, "Included in the plan", _whole(month), -amount)]


def minimum_line(month: Sequence[Segment], amount: int) -> list[InvoiceLine]:
    """What fees and usage of that amount lack of the minimum."""
    least = sum(segment.share(segment.terms.minimum_microusd) for segment in month)
    if amount >= least:
        return []
    return [_line(LineKind.MINIMUM, "Up to the minimum", _whole(month), least - amount)]


def correction_lines(
    month: Sequence[Segment], adjustments: Iterable[Adjustment]
) -> list[InvoiceLine]:
    """Whenever they were made, in an order of their own."""
    return [
        _line(LineKind.ADJUSTMENT, reason, _whole(month), amount)
        for reason, amount in sorted((one.reason, one.amount_microusd) for one in adjustments)
    ]


def _tier(charge: TieredCharge, tier: InTier, days: tuple[date, date]) -> Iterable[InvoiceLine]:
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
    used = {meter: sum(one.quantity(meter) for one in usage) for meter in Meter}
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


def _grouped(usage: Sequence[DayUsage]) -> list[tuple[str, list[DayUsage]]]:
    of_model: dict[str, list[DayUsage]] = {}
    for one in usage:
        of_model.setdefault(one.model, []).append(one)
    return sorted(of_model.items())


def _whole(month: Sequence[Segment]) -> tuple[date, date]:
    return month[0].from_day, month[-1].to_day


def _days(segment: Segment) -> str:
    return f"{segment.days} of {days_in_month(segment.from_day)} days"
