"""Plans and who has which, and the models that they may price."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime
from typing import Protocol

from penstock_billing.ports.accounts import AccountTransaction
from penstock_shared.contracts.plans import PlanVersion, Subscription, TenantPrices


class PlanTransaction(Protocol):
    """Changes to plans, and to the accounts that have them, that take effect together."""

    @property
    def accounts(self) -> AccountTransaction:
        """The accounts, within the same transaction."""
        ...

    async def last_version(self, plan: str) -> PlanVersion | None:
        """The last version, and nobody publishes another until the transaction ends."""
        ...

    async def add_version(self, version: PlanVersion) -> None:
        """The one after `last_version`."""
        ...

    async def version(self, plan: str, version: int | None) -> PlanVersion:
        """That version, or the last.

        Raises:
            NotFoundError: there is none.
        """
        ...

    async def closed_month(self, tenant: str, since: date) -> date | None:
        """The last month from that of `since` on that is closing or closed."""
        ...

    async def timeline(self, tenant: str) -> list[Subscription]:
        """All subscriptions of a tenant, by day."""
        ...

    async def put_subscription(self, subscription: Subscription, at: datetime) -> None:
        """In place of one of the same day."""
        ...

    async def put_prices(self, prices: TenantPrices) -> None:
        """What the bucket `prices` must hold of the tenant from now on."""
        ...


class PlanStore(Protocol):
    """The truth about plans. Every method may raise UnavailableError."""

    def transaction(self) -> AbstractAsyncContextManager[PlanTransaction]:
        """Commits at the end, or changes nothing."""
        ...

    async def plans(self) -> list[PlanVersion]:
        """The last version of each."""
        ...

    async def plan(self, plan: str, version: int | None) -> PlanVersion:
        """That version, or the last.

        Raises:
            NotFoundError: there is none.
        """
        ...

    async def subscriptions(self, tenant: str | None) -> list[Subscription]:
        """One tenant's, or everybody's, by tenant and day."""
        ...


class PriceRecords(Protocol):
    """All that the bucket `prices` must hold."""

    async def prices(self) -> dict[str, str]:
        """The records by tenant. May raise UnavailableError."""
        ...


class KnownModels(Protocol):
    """The models that are registered."""

    async def names(self) -> Collection[str]:
        """May raise UnavailableError."""
        ...
