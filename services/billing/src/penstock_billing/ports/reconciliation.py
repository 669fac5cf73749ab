"""What the reconciliation compares, and how far it has come."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date
from typing import Final, NamedTuple, Protocol

from penstock_billing.ports.credits import Grant
from penstock_billing.ports.invoices import MonthRecords
from penstock_billing.ports.ledger import Account
from penstock_billing.ports.usage import MeteredUsage


class DeadFacts(Protocol):
    """Facts that could not be metered."""

    async def letters(self, tenant: str) -> Collection[str]:
        """The ids (`dead_id`) of the tenant's that lie in DEAD. May raise UnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class UsageFound:
    """A row of usage, and the month to which it belongs."""

    usage: MeteredUsage
    period: date
    due_period: date
    """As its time and the tenant's cuts have it."""


class Sums(NamedTuple):
    """Usage of a tenant's month, by one way of adding it up."""

    attempts: int
    """0 where they are not counted."""
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    tool_calls: int
    cost_microusd: int


NOTHING: Final = Sums(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Issued:
    """What an invoice says."""

    usage_microusd: int
    due_microusd: int


@dataclass(frozen=True, slots=True)
class Pushes:
    """What Stripe's meter was told of a month, in cents."""

    acknowledged: int
    unsettled: int
    """Sent, or about to be: the meter may have them."""


@dataclass(slots=True)
class MonthSums:
    """What billing's tables say of a tenant's month, all at one moment. None: nothing."""

    tenant: str
    period: date
    rows: Sums = NOTHING
    days: Sums = NOTHING
    """By the month to which the usage belongs, as the rows."""
    accepted_days: Sums = NOTHING
    """By the month of acceptance, as minutes and users, and of the same days as they."""
    minutes: Sums = NOTHING
    users: Sums = NOTHING
    balances: dict[str, int] = field(default_factory=dict)
    """Of each account what the ledger's balances say, debit minus credit."""
    transfers: dict[str, int] = field(default_factory=dict)
    """The same, added up from its transfers."""
    reserved_microusd: int = 0
    """What its open reservations hold."""
    charged_microusd: int = 0
    """What the tenant owes for the month before any payment, from the transfers."""
    closed: bool = False
    invoice: Issued | None = None
    pushes: Pushes | None = None

    def add(self, debit: str, credit: str, microusd: int) -> None:
        """What transfers from one account to the other come to."""
        for account, amount in ((debit, microusd), (credit, -microusd)):
            self.transfers[account] = self.transfers.get(account, 0) + amount
            if account == Account.RECEIVABLE and Account.PAYMENTS not in (debit, credit):
                self.charged_microusd += amount

    @property
    def used_microusd(self) -> int:
        """What was metered, as the ledger has it."""
        return -self.balances.get(Account.USAGE, 0)


@dataclass(frozen=True, slots=True)
class CreditLeft:
    """What a tenant may still use up."""

    tenant: str
    granted_microusd: int
    """By its grants and their uses."""
    ledger_microusd: int
    """By the ledger's account of all months."""


@dataclass(frozen=True, slots=True)
class OpenMonths:
    """A tenant's open months, from which a preview is drawn up."""

    records: tuple[MonthRecords, ...]
    """Earliest first; the last is the present one."""
    grants: tuple[Grant, ...]


class Snapshot(Protocol):
    """All of billing at one moment."""

    async def months(self, since: date, recent: date | None) -> list[MonthSums]:
        """Of every tenant that has anything in them, by tenant and month.

        Rows and transfers that were summed before are not read again, and of minutes and users only
        what was accepted from `recent` on. None: all is read.
        """
        ...

    async def credits(self) -> list[CreditLeft]:
        """Of every tenant that has had any."""
        ...

    async def open_months(self, tenant: str, period: date) -> OpenMonths | None:
        """Up to and including `period`; None: there is no such tenant."""
        ...


class ReconciliationBook(Protocol):
    """Every method may raise UnavailableError."""

    async def rebuilding(self) -> bool:
        """Whether the log is being read again: nothing can be compared then."""
        ...

    async def compared_seq(self) -> int:
        """How far the log has been compared."""
        ...

    async def rows_of(self, facts: Sequence[MeteredUsage]) -> list[UsageFound]:
        """The rows that have the facts' identities."""
        ...

    async def rows_between(self, after: int, until: int) -> list[UsageFound]:
        """The rows whose facts have sequences in (after, until]."""
        ...

    async def advance(self, after: int, until: int) -> bool:
        """The log is compared up to `until`, its rows are summed; False: another was faster."""
        ...

    async def sum_transfers(self) -> None:
        """Sum those transfers of which there will be no more, once."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Reads only.

        Raises:
            UnavailableError: the log is being read again (`rebuilding`).
        """
        ...
