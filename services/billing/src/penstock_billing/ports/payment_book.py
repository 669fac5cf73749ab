"""What is written down of payments: what is owed in cents, attempts, refunds, standings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from penstock_billing.ports.ledger import Transfer
from penstock_billing.ports.outbox import OutboxEntry
from penstock_billing.ports.payments import Payer, Provider
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.payments import (
    PaymentList,
    PaymentProgress,
    Standing,
)


@dataclass(frozen=True, slots=True)
class Collection:
    """What of an invoice is collected, and how that goes."""

    tenant: str
    period: date
    number: str
    """The invoice's."""
    cents: int
    paid_cents: int = 0
    failing_since: datetime | None = None
    next_try_at: datetime | None = None

    @property
    def owed_cents(self) -> int:
        """What is left to be collected."""
        return max(0, self.cents - self.paid_cents)


@dataclass(frozen=True, slots=True)
class Payment:
    """One attempt to collect."""

    payment_id: str
    payer: Payer
    period: date
    number: str
    attempt: int
    cents: int
    progress: PaymentProgress
    started_at: datetime
    reference: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    """Money of a payment that is given back."""

    refund_id: str
    payment: Payment
    cents: int
    reason: str
    progress: PaymentProgress
    started_at: datetime
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """How a tenant stands, and by what."""

    standing: Standing = Standing.CURRENT
    failing_since: datetime | None = None
    """The first failure to collect what is unpaid; None: nothing failed, or all is paid."""
    extended_until: datetime | None = None
    """An operator's word: no suspension before that time."""
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Arrears:
    """What of a tenant's invoices could not be collected."""

    failing_since: datetime | None = None
    """The first failure to collect anything that is unpaid."""
    is_on_its_way: bool = False
    """The provider has taken on to move all of it: nobody is shut out meanwhile."""


@dataclass(frozen=True, slots=True)
class Debtor:
    """A tenant whose standing may have changed by the passing of time."""

    tenant: str
    situation: Situation
    """As it was written last."""
    arrears: Arrears
    is_active: bool
    """Whether anything is accepted from it."""


class PaymentTransaction(Protocol):
    """Changes that take effect together. It begins with `lock_tenant`: one at a time of each."""

    async def lock_tenant(self, tenant: str) -> TenantRecord:
        """The tenant, held until the transaction ends. Raises NotFoundError."""
        ...

    async def change_tenant(self, record: TenantRecord) -> None:
        """Write its terms and status."""
        ...

    async def save_payer(self, payer: Payer, at: datetime) -> None:
        """How the tenant pays from now on; what is owed is tried at once."""
        ...

    async def payer(self, tenant: str) -> Payer | None:
        """How the tenant pays; None: it was never said."""
        ...

    async def collection(self, tenant: str, period: date) -> Collection | None:
        """What of that month's invoice is collected; None: there is no such invoice."""
        ...

    async def save_collection(self, collection: Collection) -> None:
        """Write how it goes."""
        ...

    async def payments(self, tenant: str, period: date) -> list[Payment]:
        """All attempts, the first one first."""
        ...

    async def payment(self, payment_id: str) -> Payment | None:
        """One attempt."""
        ...

    async def save_payment(
        self, payment: Payment, ended_at: datetime | None, next_look_at: datetime | None
    ) -> None:
        """Write an attempt, new or known."""
        ...

    async def refunds(self, payment_id: str) -> list[Refund]:
        """What was given back of a payment, or is to be."""
        ...

    async def save_refund(
        self, refund: Refund, ended_at: datetime | None, next_look_at: datetime | None
    ) -> None:
        """Write a refund, new or known."""
        ...

    async def arrears(self, tenant: str) -> Arrears:
        """What could not be collected from it."""
        ...

    async def situation(self, tenant: str) -> Situation:
        """As it was written last."""
        ...

    async def save_situation(self, tenant: str, situation: Situation) -> None:
        """Write it."""
        ...

    async def post(self, transfers: Sequence[Transfer]) -> None:
        """Into the ledger, each once."""
        ...

    async def enqueue(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish these once the transaction is committed."""
        ...


class PaymentBook(Protocol):
    """Payments in Postgres. Every method may raise UnavailableError."""

    def transaction(self) -> AbstractAsyncContextManager[PaymentTransaction]:
        """Commits at the end, or changes nothing."""
        ...

    async def due(self, at: datetime, limit: int) -> list[tuple[str, date]]:
        """Tenant and month of invoices that can and should be collected now."""
        ...

    async def claim_payments(self, at: datetime, until: datetime, limit: int) -> list[Payment]:
        """Attempts that should be looked at; nobody else gets them before `until`."""
        ...

    async def claim_refunds(self, at: datetime, until: datetime, limit: int) -> list[Refund]:
        """As `claim_payments`."""
        ...

    async def payment_of(self, provider: Provider, reference: str) -> Payment | None:
        """The latest attempt that has this id at the provider, or a refund that has it."""
        ...

    async def debtors(self) -> list[Debtor]:
        """Tenants that could not be collected from, or are not in good standing."""
        ...

    async def situations(self, tenant: str | None) -> list[tuple[str, Situation]]:
        """As written, of one tenant or of all that have one."""
        ...

    async def listed(self, tenant: str, period: date | None, limit: int) -> PaymentList:
        """Collections, attempts and refunds as they are shown, the latest first."""
        ...
