"""What happened to a tenant's money: `v1.<tenant>.events.billing.<fact>`."""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.ids import TenantId

BILLING_TOPIC: Final = "billing"


class BillingFact(BaseModel):
    """What all of them have."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str]
    FACT: ClassVar[str]

    tenant: TenantId
