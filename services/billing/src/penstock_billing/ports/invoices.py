"""What a month is rated from, and what becomes of it. Amounts are micro-dollars, days UTC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from penstock_billing.ports.credits import CreditTransaction, CreditUse, Grant
from penstock_billing.ports.outbox import OutboxEntry
from penstock_billing.ports.usage import Position
from penstock_shared.contracts.invoices import Invoice
from penstock_shared.contracts.plans import Meter, Subscription


@dataclass(frozen=True, slots=True)
class DayUsage:
    """What a tenant used of one model among the requests accepted on one day."""

    day: date
    """Before the month: usage that came after its own month was cut."""
    model: str
    requests: int
    input_tokens: int
    """Cached ones included."""
    cached_input_tokens: int
    output_tokens: int
    tool_calls: int
    cost_microusd: int
    """As its facts say (ADR 5)."""

    def quantity(self, meter: Meter) -> int:
        """What a price of that meter is for."""
        if meter is Meter.INPUT_TOKENS:
            return self.input_tokens - self.cached_input_tokens
        return int(getattr(self, meter.value))


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction of what a tenant owes for a month."""

    reason: str
    amount_microusd: int
    """Negative: in the tenant's favour."""


@dataclass(frozen=True, slots=True)
class MonthRecords:
    """All that a month is rated from."""

    tenant: str
    period: date
    """The month's first day."""
    timeline: tuple[Subscription, ...]
    """The tenant's, whole."""
    usage: tuple[DayUsage, ...]
    adjustments: tuple[Adjustment, ...] = ()


@dataclass(frozen=True, slots=True)
class Cut:
    """A month that is to be closed: nothing of the event log beyond the cut belongs to it."""

    tenant: str
    period: date
    cut_seq: int


class MonthReader(Protocol):
    """One tenant's months, all at one moment. Periods are the first days of months."""

    async def known(self) -> bool:
        """Whether the tenant exists."""
        ...

    async def issued(self, before: date, limit: int) -> list[Invoice]:
        """Its invoices of months before that day, latest first."""
        ...

    async def open_months(self, before: date) -> list[date]:
        """Those before that day which are not closed, earliest first."""
        ...

    async def records(self, period: date) -> MonthRecords:
        """All that the month is rated from."""
        ...

    async def grants(self) -> list[Grant]:
        """Credits of which something is left."""
        ...


class MonthClosing(MonthReader, Protocol):
    """One tenant's month in the transaction that closes it. Nobody else changes its terms now."""

    @property
    def credits(self) -> CreditTransaction:
        """Corrections and the ledger, within the same transaction."""
        ...

    async def issue(self, invoice: Invoice) -> None:
        """Write it with its lines."""
        ...

    async def use_credits(self, paid: Sequence[CreditUse], expired: Sequence[CreditUse]) -> None:
        """Take from the grants what pays for the month, and what is gone with it."""
        ...

    async def receivable(self) -> int:
        """What the tenant owes for the month, as the ledger says."""
        ...

    async def close(self, at: datetime) -> None:
        """From here on the month stays as it is."""
        ...

    async def enqueue(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish these, in this order, once the transaction is committed."""
        ...


class InvoiceBook(Protocol):
    """Months and invoices. Every method may raise UnavailableError."""

    def reading(self, tenant: str) -> AbstractAsyncContextManager[MonthReader]:
        """For one tenant's questions: sees nothing of any other (I8)."""
        ...

    def closing(self, cut: Cut) -> AbstractAsyncContextManager[MonthClosing | None]:
        """Commits at the end, or changes nothing; None where the month is closed already.

        Raises:
            UnavailableError: the event log is being read again, and usage is not known.
        """
        ...

    async def cut(
        self, before: date, at: datetime, last_seq: Callable[[], Awaitable[int]], tenant: str | None
    ) -> int:
        """Cut the earliest open month of some tenants, or of one, if it is before that day.

        Nothing is metered while `last_seq` is asked for the end of the event log. A tenant of
        which a cut month waits to be closed is passed over. Returns how many months were cut; 0:
        none is left.
        """
        ...

    async def cuts(self, tenant: str | None) -> list[Cut]:
        """The months that wait to be closed."""
        ...

    async def held(self, before: date) -> int:
        """Tenants whose months before that day wait for what is reserved in them."""
        ...

    async def now(self) -> datetime:
        """By the one clock that all replicas share."""
        ...


class EventLog(Protocol):
    """Where the event log ends, and how far billing has read it. May raise UnavailableError."""

    async def read(self) -> Position:
        """How far billing has read."""
        ...

    async def last_seq(self) -> int:
        """Where the log ends."""
        ...
