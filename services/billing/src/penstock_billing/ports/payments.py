"""Payment providers: what Stripe and Braintree both do for an invoice, in whole cents.

Neither vendor shapes this alone. Stripe has invoices, idempotency keys and event ids; Braintree
has transactions, order ids and neither of the others. What is left when both are looked at: a
customer with a payment method, an amount that is collected under a name of ours, refunds of it,
a state that can always be asked for, and notices that say only that it is worth asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol


class Provider(StrEnum):
    """Who moves the money."""

    STRIPE = "stripe"
    BRAINTREE = "braintree"


class PaymentStatus(StrEnum):
    """What the provider says of a payment, or of a refund."""

    PENDING = "pending"  # accepted; no money has moved yet, and nothing may be tried beside it
    SUCCEEDED = "succeeded"  # the money has moved
    FAILED = "failed"  # of this attempt no money will ever move


@dataclass(frozen=True, slots=True)
class Payer:
    """How a tenant pays: one provider, one customer there, one payment method."""

    tenant: str
    provider: Provider
    customer: str
    """The provider's id of the customer."""
    method: str
    """The provider's id of the payment method: never a card number."""


@dataclass(frozen=True, slots=True)
class Charge:
    """An attempt to collect an invoice. Written down before the provider hears of it."""

    payment_id: str
    """UUID, ours: the same attempt has the same id however often it is asked for."""
    payer: Payer
    period: date
    """The month of the invoice: its first day."""
    number: str
    """The invoice's number, as its reader knows it."""
    cents: int


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """Money to be given back. Written down before the provider hears of it."""

    refund_id: str
    """UUID, ours."""
    reference: str
    """The provider's id of the payment."""
    cents: int


@dataclass(frozen=True, slots=True)
class RefundState:
    """A refund as the provider knows it."""

    reference: str
    """The provider's id of the refund."""
    refund_id: str | None
    """Ours; None: it was made at the provider's own desk."""
    status: PaymentStatus
    cents: int


@dataclass(frozen=True, slots=True)
class PaymentState:
    """A payment as the provider knows it now."""

    reference: str
    """The provider's id of what moves the money: Stripe's invoice, Braintree's transaction."""
    status: PaymentStatus
    cents: int
    failure: str | None = None
    """The provider's code for why it failed, such as `card_declined`; no person's data."""
    refunds: tuple[RefundState, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """A webhook whose signature was verified: a reason to ask, never a truth to act upon."""

    provider: Provider
    notice_id: str
    """The same notice has the same id, however often it is delivered."""
    kind: str
    """As the provider names it."""
    reference: str | None
    """What it is about, as in the `reference` of a payment or a refund; None: about neither."""
    at: datetime
    """When the provider says that it happened."""


class PaymentGateway(Protocol):
    """One provider.

    Every method may be repeated with the same arguments, also after an error that left open
    whether it took effect: it takes effect once. All but `read_notice` may raise

    - UnavailableError: the provider does not answer, or is busy; it may have taken effect or not.
    - PermanentError: it refuses the request itself (a bug, wrong keys); money has not moved.
    """

    @property
    def provider(self) -> Provider:
        """Which one it is."""
        ...

    async def add_customer(self, tenant: str, name: str) -> str:
        """The provider's id of the tenant's customer, which is made if there is none."""
        ...

    async def add_method(self, customer: str, token: str) -> str:
        """Keep the payment method that the tenant's browser gave the provider.

        `token` is what the provider's own form returned: Stripe's `pm_…`, Braintree's nonce.
        Returns the id under which it can be charged from now on; it is the customer's default.

        Raises:
            SchemaError: the provider does not know the token, or has refused the method.
        """
        ...

    async def collect(self, charge: Charge) -> PaymentState:
        """Collect the amount. A decline is a state, not an error.

        The caller makes one call at a time for one invoice, and another attempt only when the
        last one is FAILED.
        """
        ...

    async def refetch(self, reference: str) -> PaymentState:
        """How a payment stands now, with its refunds.

        Raises:
            NotFoundError: the provider has no such payment.
        """
        ...

    async def refund(self, order: RefundOrder) -> RefundState:
        """Give money of a payment back.

        Raises:
            ConflictError: the payment cannot be refunded (any more, or not by so much).
            UnavailableError: as above; also while the payment has not settled yet.
        """
        ...

    def read_notice(self, headers: Mapping[str, str], body: bytes, at: datetime) -> Notice:
        """Verify a webhook; `headers` have lower-case names.

        Raises:
            AuthenticationError: not signed by the provider, or signed too long ago or ahead.
            SchemaError: signed, but not of the provider's documented shape.
        """
        ...


class NoticeHandler(Protocol):
    """Who acts upon notices, after they were stored and answered."""

    async def on_notice(self, notice: Notice) -> None:
        """Ask the provider and write down what it says; again: the same.

        Raises:
            UnavailableError: the provider or Postgres does not answer; try the notice again.
        """
        ...
