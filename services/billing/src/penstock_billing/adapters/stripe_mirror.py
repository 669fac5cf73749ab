"""What Stripe has to know of us: customers, a meter, the price of a cent, subscriptions.

Every object is looked for before it is made, by what makes it ours: lists are up to date at once
(docs.stripe.com/api/pagination), searches are not (docs.stripe.com/search#data-freshness), and an
idempotency key is forgotten after a day and until then repeats even an answer of 500
(docs.stripe.com/api/idempotent_requests).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import stripe

from penstock_billing.adapters.stripe_client import StripeConnection, plain, translated
from penstock_billing.adapters.stripe_meter import EVENT_NAME
from penstock_billing.domain.pushing import month_end
from penstock_billing.ports.mirror import Catalogue, MirrorBook
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

TENANT: Final = "penstock_tenant"
"""In the metadata of customers, subscriptions and invoices."""
_LOOKUP_KEY: Final = "penstock_usage_cent"
_PRODUCT: Final = "penstock_usage"
_NOT_FOUND: Final = 404
_CLOCKS_DIFFER: Final = timedelta(hours=1)


class StripeMirror:
    """A `Mirror`."""

    def __init__(self, connection: StripeConnection, book: MirrorBook, clock: Clock) -> None:
        self._v1 = connection.client.v1
        self._book = book
        self._clock = clock
        self._claiming = asyncio.Lock()
        """A claim holds a connection while Stripe is asked: never more than one of them."""

    async def confirm(self, catalogue: Catalogue) -> None:
        """Make sure that it is this account's.

        Raises:
            PermanentError: the key is of another account, or the meter was archived.
        """
        with translated():
            try:
                meter = await self._v1.billing.meters.retrieve_async(catalogue.meter)
            except stripe.InvalidRequestError as error:
                if error.http_status != _NOT_FOUND:
                    raise
                raise _other_account() from error
        if meter.status != "active":
            raise _other_account()

    async def find_catalogue(self) -> Catalogue:
        """The meter and the price, made where they are missing."""
        with translated():
            meter = await self._find_meter()
            return Catalogue(meter=meter, price=await self._find_price(meter))

    async def put_customer(self, tenant: str, name: str) -> str:
        """The tenant's customer, made if there is none, under this name."""
        async with self._claiming, self._book.claim(tenant, self._clock.now()) as claim:
            with translated():
                customer = claim.customer or await self._find_customer(tenant, claim.begun_at)
                if customer is None or not await self._renamed(customer, name):
                    made = await self._v1.customers.create_async(
                        {"name": name, "metadata": {TENANT: tenant}}
                    )
                    customer = made.id
            await claim.keep(customer, name)
        return customer

    async def find_subscription(self, customer: str, price: str) -> tuple[str, datetime]:
        """The customer's subscription to the price, made where it is missing; and since when.

        Its cycle is the calendar month in UTC, and Stripe never sends its invoices by itself: they
        stay drafts until the month is closed here
        (docs.stripe.com/billing/subscriptions/pause-payment).
        """
        with translated():
            subscription = await self._living(customer, price) or await self._subscribe(
                customer, price
            )
            if (subscription["pause_collection"] or {}).get("behavior") != "keep_as_draft":
                await self._v1.subscriptions.update_async(
                    subscription["id"], {"pause_collection": {"behavior": "keep_as_draft"}}
                )
        return subscription["id"], datetime.fromtimestamp(subscription["created"], UTC)

    async def _find_meter(self) -> str:
        """An active meter's event name is its own: there is no second one to be made."""
        meters = await self._v1.billing.meters.list_async({"status": "active", "limit": 100})
        async for meter in meters.auto_paging_iter():
            if meter.event_name == EVENT_NAME:
                return meter.id
        made = await self._v1.billing.meters.create_async(
            {
                "display_name": "Usage in cents",
                "event_name": EVENT_NAME,
                "default_aggregation": {"formula": "sum"},
                "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                "value_settings": {"event_payload_key": "value"},
            }
        )
        return made.id

    async def _find_price(self, meter: str) -> str:
        """Of one cent for each unit of this meter; the lookup key moves from another meter's."""
        found = await self._v1.prices.list_async({"lookup_keys": [_LOOKUP_KEY], "active": True})
        for price in found.data:
            if price.recurring is not None and price.recurring.meter == meter:
                return price.id
        made = await self._v1.prices.create_async(
            {
                "currency": "usd",
                "unit_amount": 1,
                "lookup_key": _LOOKUP_KEY,
                "transfer_lookup_key": True,
                "product": await self._find_product(),
                "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
            }
        )
        return made.id

    async def _find_product(self) -> str:
        """Its id is ours: there is no second one to be made."""
        try:
            found = await self._v1.products.retrieve_async(_PRODUCT)
        except stripe.InvalidRequestError as error:
            if error.http_status != _NOT_FOUND:
                raise
            found = await self._v1.products.create_async({"id": _PRODUCT, "name": "Usage"})
        return found.id

    async def _renamed(self, customer: str, name: str) -> bool:
        """Whether there was one: it may have been deleted at Stripe's own desk."""
        try:
            await self._v1.customers.update_async(customer, {"name": name})
        except stripe.InvalidRequestError as error:
            if error.http_status != _NOT_FOUND:
                raise
            log().warning("stripe.customer_gone", customer=customer)
            return False
        return True

    async def _find_customer(self, tenant: str, begun_at: datetime) -> str | None:
        since = int((begun_at - _CLOCKS_DIFFER).timestamp())
        found = await self._v1.customers.list_async({"created": {"gte": since}, "limit": 100})
        async for customer in found.auto_paging_iter():
            if plain(customer).get("metadata", {}).get(TENANT) == tenant:
                return customer.id
        return None

    async def _living(self, customer: str, price: str) -> dict[str, Any] | None:
        found = await self._v1.subscriptions.list_async({"customer": customer, "limit": 100})
        async for subscription in found.auto_paging_iter():
            known = plain(subscription)
            if any(item["price"]["id"] == price for item in known["items"]["data"]):
                return known
        return None

    async def _subscribe(self, customer: str, price: str) -> dict[str, Any]:
        anchor = month_end(self._clock.now().astimezone(UTC).date().replace(day=1))
        made = await self._v1.subscriptions.create_async(
            {
                "customer": customer,
                "items": [{"price": price}],
                "billing_cycle_anchor": int(anchor.timestamp()),
                "proration_behavior": "none",
            }
        )
        return plain(made)


def _other_account() -> PermanentError:
    msg = "Stripe does not have our meter: PENSTOCK_STRIPE_API_KEY is of another account than "
    msg += "before, or the meter was archived there. See 'Stripe' in billing's README."
    return PermanentError(msg, code="stripe_account_changed")
