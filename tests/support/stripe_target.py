"""What the rules of Stripe are checked against: the fake always, Stripe's test mode with a key.

`PENSTOCK_STRIPE_TEST_KEY` holds a key of a sandbox (`sk_test_…`): then every rule is asked of
Stripe itself, too. It leaves meters and products behind, which Stripe does not delete.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import stripe
from stripe._base_address import BaseAddresses
from tests.support import stripe_fake

KEY: Final = "PENSTOCK_STRIPE_TEST_KEY"
TARGETS: Final = ("fake", "stripe") if KEY in os.environ else ("fake",)
_PATIENCE_S: Final = {"fake": 2.0, "stripe": 120.0}
"""How long it may take until what is processed later shows."""
_POLL_S: Final = {"fake": 0.005, "stripe": 1.0}


@dataclass
class StripeTarget:
    """An account with a test clock of this test's own."""

    name: str
    client: stripe.StripeClient
    addresses: BaseAddresses
    clock: str = ""
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    """Makes names unique in an account that others use, too."""

    @property
    def v1(self) -> stripe.V1Services:
        """The API."""
        return self.client.v1

    def with_key(self, key: str) -> stripe.StripeClient:
        """The same with another credential: a stream's session."""
        return stripe.StripeClient(
            key, base_addresses=self.addresses, http_client=stripe.HTTPXClient(timeout=30)
        )

    async def customer(self, *, card: str | None = "pm_card_visa") -> stripe.Customer:
        """A customer on the test clock, with a default card."""
        made = await self.v1.customers.create_async({"name": self.run, "test_clock": self.clock})
        if card is not None:
            method = await self.v1.payment_methods.attach_async(card, {"customer": made.id})
            settings = {"invoice_settings": {"default_payment_method": method.id}}
            made = await self.v1.customers.update_async(made.id, settings)  # type: ignore[arg-type]
        return made

    async def metered_price(self) -> tuple[stripe.billing.Meter, stripe.Price]:
        """A meter that adds up, and a price of one cent for each unit."""
        meter = await self.v1.billing.meters.create_async(
            {
                "display_name": self.run,
                "event_name": f"usage_{self.run}",
                "default_aggregation": {"formula": "sum"},
            }
        )
        product = await self.v1.products.create_async({"name": self.run})
        price = await self.v1.prices.create_async(
            {
                "product": product.id,
                "currency": "usd",
                "unit_amount": 1,
                "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
            }
        )
        return meter, price

    async def use(
        self, meter: stripe.billing.Meter, customer: str, value: int, at: datetime, name: str
    ) -> None:
        """Report usage."""
        await self.v1.billing.meter_events.create_async(
            {
                "event_name": meter.event_name,
                "identifier": f"{self.run}:{name}",
                "timestamp": int(at.timestamp()),
                "payload": {"stripe_customer_id": customer, "value": str(value)},
            }
        )

    async def now(self) -> datetime:
        """The test clock's time."""
        clock = await self.v1.test_helpers.test_clocks.retrieve_async(self.clock)
        return datetime.fromtimestamp(clock.frozen_time, UTC)

    async def advance(self, to: datetime) -> None:
        """Move the test clock, and wait until everything due was done."""
        clocks = self.v1.test_helpers.test_clocks
        await clocks.advance_async(self.clock, {"frozen_time": int(to.timestamp())})

        async def ready() -> bool:
            return (await clocks.retrieve_async(self.clock)).status == "ready"

        await self.eventually(ready)

    async def eventually(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """What is processed later holds in the end."""
        async with asyncio.timeout(_PATIENCE_S[self.name]):
            while not await holds():
                await asyncio.sleep(_POLL_S[self.name])


@contextlib.asynccontextmanager
async def stripe_target(name: str) -> AsyncIterator[StripeTarget]:
    """The fake, or Stripe's test mode; with a test clock, which goes away afterwards."""
    with contextlib.ExitStack() as stack:
        if name == "fake":
            fake = stack.enter_context(stripe_fake.running())
            key, addresses = stripe_fake.API_KEY, fake.addresses
        else:
            key, addresses = os.environ[KEY], BaseAddresses()
        http = stripe.HTTPXClient(timeout=30)
        client = stripe.StripeClient(key, base_addresses=addresses, http_client=http)
        target = StripeTarget(name, client, addresses)
        clocks = client.v1.test_helpers.test_clocks
        clock = await clocks.create_async({"frozen_time": int(datetime.now(UTC).timestamp())})
        target.clock = clock.id
        try:
            yield target
        finally:
            await clocks.delete_async(clock.id)
            await http.close_async()  # type: ignore[no-untyped-call]
