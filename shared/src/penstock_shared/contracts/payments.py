"""Payments: commands and questions to billing, `v1.platform.billing.<verb>`, and their answers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from penstock_shared.contracts.accounts import PRINTABLE
from penstock_shared.contracts.ids import TenantId
from penstock_shared.contracts.invoices import Month

ProviderName = Literal["stripe", "braintree"]
Cents = Annotated[int, Field(ge=1, le=10**12)]
_Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
_Reason = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]


class Standing(StrEnum):
    """How a tenant stands with what it owes."""

    CURRENT = "current"  # it owes nothing that could not be collected
    PAST_DUE = "past_due"  # a payment failed; it is tried again
    GRACE = "grace"  # it was tried often enough: the tenant must act, or is suspended
    SUSPENDED = "suspended"  # nothing is accepted from it
    RESTORED = "restored"  # it was suspended, and has paid


class PaymentProgress(StrEnum):
    """How far an attempt to collect, or a refund, has come."""

    STARTED = "started"  # written down; the provider may have heard of it or not
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class SetPayer(_Command):
    """Verb `set-payer`: from now on the tenant pays like this. Again: the same answer."""

    tenant: TenantId
    provider: ProviderName
    token: _Token
    """What the provider's own form returned: a payment method of Stripe's, Braintree's nonce."""


class ListPayments(_Command):
    """Verb `list-payments`: the latest first."""

    tenant: TenantId
    month: Month | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class CollectInvoice(_Command):
    """Verb `collect-invoice`: try now, not when the next try is due."""

    tenant: TenantId
    month: Month


class RefundPayment(_Command):
    """Verb `refund-payment`."""

    tenant: TenantId
    payment_id: UUID
    refund_id: UUID
    """The asker's: sent again it is the same refund."""
    cents: Cents | None = None
    """None: all that is left of the payment."""
    reason: _Reason


class ListStandings(_Command):
    """Verb `list-standings`: of one tenant, or of all that ever missed a payment."""

    tenant: TenantId | None = None


class ExtendGrace(_Command):
    """Verb `extend-grace`: no suspension for what is owed before that time."""

    tenant: TenantId
    until: AwareDatetime


class PayerRecord(_Answer):
    """Answer to `set-payer`."""

    tenant: TenantId
    provider: ProviderName
    customer: str
    updated_at: datetime


class RefundRecord(_Answer):
    """A refund. Also the answer to `refund-payment`."""

    refund_id: UUID
    payment_id: UUID
    cents: int
    reason: str
    progress: PaymentProgress
    started_at: datetime
    ended_at: datetime | None = None


class PaymentRecord(_Answer):
    """One attempt to collect an invoice."""

    payment_id: UUID
    tenant: TenantId
    month: Month
    attempt: int
    provider: ProviderName
    cents: int
    progress: PaymentProgress
    reference: str | None = None
    """The provider's id: for whoever looks it up there."""
    failure: str | None = None
    """The provider's code."""
    started_at: datetime
    ended_at: datetime | None = None
    refunds: tuple[RefundRecord, ...] = ()


class CollectionRecord(_Answer):
    """What of an invoice is collected: whole cents. Also the answer to `collect-invoice`."""

    tenant: TenantId
    month: Month
    due_microusd: int
    carried_in_microusd: int
    """What was left of a cent before it."""
    cents: int
    carried_microusd: int
    """What is left of a cent, and goes to the next invoice."""
    paid_cents: int
    failing_since: datetime | None = None
    next_try_at: datetime | None = None


class PaymentList(_Answer):
    """Answer to `list-payments`."""

    collections: tuple[CollectionRecord, ...]
    payments: tuple[PaymentRecord, ...]


class StandingRecord(_Answer):
    """How a tenant stands. Also the answer to `extend-grace`."""

    tenant: TenantId
    standing: Standing
    failing_since: datetime | None = None
    suspends_at: datetime | None = None
    """When it is suspended unless it pays; None: nothing is owed, or it is suspended."""
    extended_until: datetime | None = None
    changed_at: datetime


class StandingList(_Answer):
    """Answer to `list-standings`."""

    standings: tuple[StandingRecord, ...]
