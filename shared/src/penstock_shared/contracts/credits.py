"""What operators ask billing about credit. Each command is a verb: `v1.platform.billing.<verb>`."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from penstock_shared.contracts.accounts import PRINTABLE
from penstock_shared.contracts.ids import TenantId
from penstock_shared.contracts.invoices import Month
from penstock_shared.contracts.plans import MAX_MICROUSD

Reference = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=PRINTABLE)]
"""Names one act of one tenant's, so that doing it again changes nothing."""
CARRIED_FROM: Final = "Carried from "
"""So begins the reference of what closing a month carries to the next: nobody else's may."""
DEFAULT_PRIORITY: Final = 100


class CreditKind(StrEnum):
    """Where credit comes from."""

    PREPAID = "prepaid"  # bought: what was paid for it is in the ledger
    PROMOTIONAL = "promotional"  # given


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GrantCredit(_Command):
    """Verb `grant-credit`; the same reference again is the same grant."""

    tenant: TenantId
    kind: CreditKind
    microusd: Annotated[int, Field(ge=1, le=MAX_MICROUSD)]
    priority: Annotated[int, Field(ge=0, le=1_000)] = DEFAULT_PRIORITY
    """The lower, the earlier it is used; then by expiry, then by age."""
    expires_on: date | None = None
    """The last UTC day on whose accepted requests it pays; None: it does not expire."""
    reference: Reference


def _something(microusd: int) -> int:
    if not microusd:
        msg = "nothing to correct: name an amount"
        raise ValueError(msg)
    return microusd


def _not_carried(reference: str) -> str:
    if reference.startswith(CARRIED_FROM):
        msg = f"'{CARRIED_FROM.strip()}' begins billing's own references: choose another"
        raise ValueError(msg)
    return reference


class ListCredits(_Command):
    """Verb `list-credits`, in the order of use; all tenants' when None."""

    tenant: TenantId | None = None


class Adjust(_Command):
    """Verb `adjust`: correct what a tenant owes. The same reference again changes nothing."""

    tenant: TenantId
    microusd: Annotated[int, Field(ge=-MAX_MICROUSD, le=MAX_MICROUSD), AfterValidator(_something)]
    """Negative: in the tenant's favour."""
    reason: Reference
    """For the invoice."""
    reference: Annotated[Reference, AfterValidator(_not_carried)]


class CreditGrant(BaseModel):
    """Answer to `grant-credit`."""

    model_config = ConfigDict(frozen=True)

    grant_id: str
    tenant: TenantId
    kind: CreditKind
    microusd: int
    spent_microusd: int
    """By invoices; open months have not taken theirs yet."""
    expired_microusd: int
    priority: int
    expires_on: date | None
    reference: str
    granted_at: datetime


class PrepaidState(BaseModel):
    """How far a tenant whose plan allows no overage may go today, in micro-dollars."""

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    covered_microusd: int
    """By credit and by what its plan includes, this month's use among it."""
    settled_microusd: int
    """Used by attempts that have ended."""
    reserved_microusd: int
    """The most that open requests may still use."""
    left_microusd: int


class CreditList(BaseModel):
    """Answer to `list-credits`."""

    model_config = ConfigDict(frozen=True)

    credits: tuple[CreditGrant, ...]
    prepaid: tuple[PrepaidState, ...]


class AdjustmentMade(BaseModel):
    """Answer to `adjust`."""

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    month: Month
    """On whose invoice it will be."""
    microusd: int
    reason: str
    reference: str
    made_at: datetime
