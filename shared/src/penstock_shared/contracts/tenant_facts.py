"""What facts have in common that belong to a tenant and to no request."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.ids import TenantId


class TenantFact(BaseModel):
    """A fact on `v1.<tenant>.events.<topic>.<fact>`."""

    model_config = ConfigDict(frozen=True)

    TOPIC: ClassVar[str]
    TYPE: ClassVar[str]
    FACT: ClassVar[str]

    tenant: TenantId
