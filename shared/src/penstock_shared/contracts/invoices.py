"""Invoices: what a tenant owes for a month, line by line, and why."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints

from penstock_shared.contracts.ids import TenantId
from penstock_shared.contracts.plans import Currency

Month = Annotated[str, StringConstraints(pattern=r"^[12][0-9]{3}-(0[1-9]|1[0-2])$")]
"""A calendar month in UTC: `2026-11`."""
MICROUSD_PER_CENT: Final = 10_000


def first_day(month: Month) -> date:
    """Of that month: what the tables call its period."""
    return date.fromisoformat(f"{month}-01")


class LineKind(StrEnum):
    """What a line is for."""

    FEE = "fee"
    USAGE = "usage"  # at the prices that its facts carry
    TIERED = "tiered"  # rated from the month's quantities
    INCLUDED = "included"  # usage that is in the fee: negative
    MINIMUM = "minimum"  # what is missing to the least amount
    LATE = "late"  # usage of a month that was closed before it came
    ADJUSTMENT = "adjustment"  # an operator's, with a reason
    CREDIT = "credit"  # a grant that pays: negative


class InvoiceLine(BaseModel):
    """One item."""

    model_config = ConfigDict(frozen=True)

    kind: LineKind
    description: str
    from_day: date
    to_day: date
    """The last day, included."""
    model: str | None = None
    meter: str | None = None
    quantity: int | None = None
    unit_microusd: int | None = None
    """For 1,000 tokens, one request or one call."""
    amount_microusd: int


class Invoice(BaseModel):
    """A month of one tenant: a preview while `issued_at` is None, final after that."""

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    month: Month
    currency: Currency = "USD"
    lines: tuple[InvoiceLine, ...]
    usage_microusd: int
    """Metered in the month, at the facts' prices: what the ledger's `usage` account says."""
    subtotal_microusd: int
    """All lines but credits."""
    credit_microusd: int
    """What credits pay; not negative."""
    due_microusd: int
    """What is left to be paid; not negative."""
    number: str | None = None
    issued_at: datetime | None = None
    events_seq: int
    """All of the event log up to here is in it."""
