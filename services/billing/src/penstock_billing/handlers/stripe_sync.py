"""Keeps Stripe in step with the tenants: customers, the meter, its price, subscriptions."""

from __future__ import annotations

import asyncio

from penstock_billing import metrics
from penstock_billing.ports.mirror import Catalogue, Mirror, MirrorBook, MirroredTenant
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.telemetry import log


class StripeSync:
    """Makes what is missing and tells what has changed; a look that finds all in step asks nobody.

    One tenant that Stripe refuses stops no other.
    """

    def __init__(self, book: MirrorBook, mirror: Mirror) -> None:
        self._book = book
        self._mirror = mirror

    async def run(self, interval_s: float) -> None:
        """Look for ever, at once for the first time."""
        while True:
            try:
                await self.look()
            except PenstockError as error:
                log().warning("stripe_sync.postponed", code=error.code)
            except Exception as error:  # noqa: BLE001  the next look may succeed
                log().error("stripe_sync.failed", kind=type(error).__name__, exc_info=error)
            await asyncio.sleep(interval_s)

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
        return known

    async def look(self) -> int:
        """Bring every tenant in step; how many could not be."""
        price = (await self.catalogue()).price
        behind = 0
        for tenant in await self._book.tenants():
            try:
                await self._bring_in_step(tenant, price)
            except PenstockError as error:
                behind += 1
                log().warning("stripe_sync.behind", tenant=tenant.tenant, code=error.code)
        metrics.STRIPE_BEHIND.set(behind)
        return behind

    async def _bring_in_step(self, tenant: MirroredTenant, price: str) -> None:
        customer = tenant.customer
        if customer is None or tenant.told_name != tenant.name:
            customer = await self._mirror.put_customer(tenant.tenant, tenant.name)
        if tenant.subscription is None:
            subscription, since = await self._mirror.find_subscription(customer, price)
            await self._book.keep_subscription(tenant.tenant, subscription, since)
