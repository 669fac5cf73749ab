"""An invoice of micro-dollars as items of whole cents, beside what a provider's meter has billed.

Each item is the difference of two sums that were rounded down, so that the items add up to the
cents that are collected, however many lines there are; what no line explains is the remainder of
cents that is carried from invoice to invoice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from penstock_shared.contracts.invoices import MICROUSD_PER_CENT, Invoice, InvoiceLine, LineKind

_MOST_ITEMS: Final = 200
"""Stripe takes 250 for an invoice (docs.stripe.com/api/invoiceitems/create)."""


@dataclass(frozen=True, slots=True)
class ChargeItem:
    """One item to be added to the provider's invoice."""

    key: str
    """Its place: the same item has the same key, however often it is made."""
    description: str
    cents: int
    """Negative: in the tenant's favour."""


def charge_items(invoice: Invoice, metered_cents: int, cents: int) -> list[ChargeItem]:
    """What has to be added to `metered_cents` so that the provider's total is `cents`."""
    items, so_far = [], metered_cents
    for key, description, microusd in _sums(invoice):
        due = microusd // MICROUSD_PER_CENT
        if due != so_far:
            items.append(ChargeItem(key, description, due - so_far))
            so_far = due
    if cents != so_far:
        carried = ChargeItem("carried", "Parts of a cent from earlier months", cents - so_far)
        items.append(carried)
    return [*items[: _MOST_ITEMS - 1], *_together(items[_MOST_ITEMS - 1 :])]


def _together(items: list[ChargeItem]) -> list[ChargeItem]:
    if len(items) <= 1:
        return items
    total = sum(item.cents for item in items)
    return [ChargeItem("others", f"{len(items)} other items", total)] if total else []


def _sums(invoice: Invoice) -> Iterator[tuple[str, str, int]]:
    """Lines with the sum up to and including each: usage first, as the meter's own line is."""
    usage = [line for line in invoice.lines if line.kind is LineKind.USAGE]
    total = sum(line.amount_microusd for line in usage)
    yield "usage", "Usage beside what was metered", total
    others = [line for line in invoice.lines if line.kind is not LineKind.USAGE]
    for number, line in enumerate(others, start=1):
        total += line.amount_microusd
        yield f"line-{number}", _description(line), total


def _description(line: InvoiceLine) -> str:
    return f"{line.description} ({line.from_day} to {line.to_day})"
