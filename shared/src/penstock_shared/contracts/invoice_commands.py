"""Questions about invoices, and the command that closes a month."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.ids import TenantId
from penstock_shared.contracts.invoices import Invoice, Month

MAX_INVOICES: Final = 36
"""Of one page."""


class _Question(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId


class PreviewInvoice(_Question):
    """What the invoice would be if the month ended now."""

    month: Month | None = None
    """None: the present one."""


class ListInvoices(_Question):
    """The issued ones, latest first."""

    before: Month | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_INVOICES + 1)] = 12
    """One more than a page has: whoever shows pages asks whether there is another."""


class ShowInvoice(_Question):
    """The issued invoice of a month."""

    month: Month


class ClosePeriod(_Question):
    """Close a month that is over, without waiting for the grace to pass."""

    month: Month


class InvoiceList(BaseModel):
    """Invoices with their lines."""

    model_config = ConfigDict(frozen=True)

    invoices: tuple[Invoice, ...]


class PeriodClosed(BaseModel):
    """What became of a month."""

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    month: Month
    closed: bool
    """False: some of its requests are open, or billing has not read their facts yet: ask again."""
    invoice: Invoice | None = None
    """None where nothing was used, paid for or corrected."""
