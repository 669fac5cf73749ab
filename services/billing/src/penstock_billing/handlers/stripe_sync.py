"""Keeps Stripe in step with the tenants: customers, the meter, its price, subscriptions."""

from __future__ import annotations

from collections.abc import Awaitable

from penstock_billing import metrics
from penstock_billing.ports.mirror import (
    Catalogue,
    EmptyMonth,
    EmptyMonths,
    Mirror,
    MirrorBook,
    MirroredTenant,
)
from penstock_shared.contracts.errors import PenstockError, PermanentError
from penstock_shared.runtime.telemetry import log


class StripeSync:
    """Makes what is missing and tells what has changed.

    A look that finds all in step asks for the meter only.

    One tenant that Stripe refuses stops no other.
    """

    def __init__(self, book: MirrorBook, mirror: Mirror, months: EmptyMonths) -> None:
        self._book = book
        self._mirror = mirror
        self._months = months

    async def catalogue(self) -> Catalogue:
        """The meter and the price: known, found or made.

        Raises:
            UnavailableError: Postgres or Stripe does not answer.
            PermanentError: Stripe refuses us.
        """
        known = await self._book.catalogue()
        if known is None:
            known = await self._mirror.find_catalogue()
            await self._book.keep_catalogue(known)
        else:
            await self._mirror.confirm(known)
        return known

    async def look(self) -> int:
        """Bring every tenant in step; how often that failed."""
        tenants = await self._book.tenants()
        try:
            price = (await self.catalogue()).price
        except PermanentError:
            metrics.STRIPE_BEHIND.set(len(tenants))
            raise
        behind = 0
        for tenant in tenants:
            behind += await self._tried(tenant.tenant, self._bring_in_step(tenant, price))
        for month in await self._book.empty_months():
            behind += await self._tried(month.tenant, self._close(month))
        metrics.STRIPE_BEHIND.set(behind)
        return behind

    async def _tried(self, tenant: str, step: Awaitable[None]) -> bool:
        """Whether it failed."""
        try:
            await step
        except PenstockError as error:
            log().warning("stripe_sync.behind", tenant=tenant, code=error.code)
            return True
        return False

    async def _close(self, month: EmptyMonth) -> None:
        await self._months.close_empty(month)
        await self._book.keep_empty(month)

    async def _bring_in_step(self, tenant: MirroredTenant, price: str) -> None:
        customer = tenant.customer
        if customer is None or tenant.told_name != tenant.name:
            customer = await self._mirror.put_customer(tenant.tenant, tenant.name)
        if tenant.subscription is None:
            subscription, since = await self._mirror.find_subscription(customer, price)
            await self._book.keep_subscription(tenant.tenant, subscription, since)
