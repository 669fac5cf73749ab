"""What happened to a tenant's money: `v1.<tenant>.events.billing.<fact>`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.ids import TenantId
from penstock_shared.contracts.invoices import Month

BILLING_TOPIC: Final = "billing"


class BillingFact(BaseModel):
    """What all of them have."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str]
    FACT: ClassVar[str]

    tenant: TenantId


class InvoiceIssued(BillingFact):
    """Fact `billing.invoice-issued`: a month was closed, and this is what it comes to."""

    TYPE = "penstock.billing.invoice_issued.v1"
    FACT = "invoice-issued"

    month: Month
    number: str
    subtotal_microusd: int
    credit_microusd: int
    due_microusd: int
    events_seq: int
    """All of the event log up to here is in it."""
    issued_at: datetime
