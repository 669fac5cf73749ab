"""Credits: what was granted, what is left of it, and where both are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from penstock_billing.ports.accounts import AccountTransaction
from penstock_billing.ports.ledger import Transfer
from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.billing_facts import QuotaReached
from penstock_shared.contracts.credits import AdjustmentMade, CreditGrant, PrepaidState


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant of which something is left."""

    grant_id: str
    """A UUID."""
    left_microusd: int
    priority: int
    """The lower, the earlier it is used."""
    expires_on: date | None
    """The last UTC day on whose accepted usage it pays; None: it does not expire."""
    granted_at: datetime


@dataclass(frozen=True, slots=True)
class CreditUse:
    """What one grant pays of a month."""

    grant_id: str
    microusd: int


class CreditTransaction(Protocol):
    """Changes to a tenant's credit that take effect together, ledger and outbox included."""

    @property
    def accounts(self) -> AccountTransaction:
        """The accounts, within the same transaction."""
        ...

    async def grant(self, tenant: str, reference: str) -> CreditGrant | None:
        """The grant of that reference."""
        ...

    async def add_grant(self, grant: CreditGrant) -> None:
        """One whose reference the tenant has not used."""
        ...

    async def adjustment(self, tenant: str, reference: str) -> AdjustmentMade | None:
        """The correction of that reference."""
        ...

    async def add_adjustment(self, adjustment: AdjustmentMade) -> None:
        """One whose reference the tenant has not used."""
        ...

    async def open_month(self, tenant: str, since: date) -> date:
        """The first month from that of `since` on that is neither closing nor closed."""
        ...

    async def post(self, transfers: Sequence[Transfer]) -> None:
        """Write these to the ledger."""
        ...


class CreditStore(Protocol):
    """The truth about credit. Every method may raise UnavailableError."""

    def transaction(self) -> AbstractAsyncContextManager[CreditTransaction]:
        """Commits at the end, or changes nothing."""
        ...

    async def grants(self, tenant: str | None) -> list[CreditGrant]:
        """One tenant's, or everybody's, in the order of use."""
        ...

    async def prepaid(self, tenant: str | None, day: date) -> list[PrepaidState]:
        """How far those may go on a day whose plan then allows no overage."""
        ...


class QuotaWatch(Protocol):
    """Which quotas have reached which share since somebody last looked."""

    async def reached(
        self, percents: Sequence[int], at: datetime, tell: Callable[[QuotaReached], OutboxEntry]
    ) -> int:
        """Tell of what was reached, each once, and of some tenants at a time.

        Returns how many tenants were looked at: 0 when nothing has moved. May raise
        UnavailableError.
        """
        ...
