"""The real package asks the fake: what several of its tests do."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import stripe
from tests.support.stripe_fake import API_KEY, StripeFake

NOON: Final = datetime(2028, 1, 31, 12, tzinfo=UTC)
"""Of the last day of January of a leap year."""
_DAY_S: Final = 86_400
_NAMES: Final = itertools.count()


@contextlib.asynccontextmanager
async def package_client(fake: StripeFake) -> AsyncIterator[stripe.StripeClient]:
    """A client that tries nothing again by itself."""
    http = stripe.HTTPXClient(timeout=0.5)
    yield stripe.StripeClient(
        API_KEY, base_addresses=fake.addresses, max_network_retries=0, http_client=http
    )
    await http.close_async()  # type: ignore[no-untyped-call]


async def stream_client(fake: StripeFake, client: stripe.StripeClient) -> stripe.StripeClient:
    """A client with a session of the meter event stream."""
    session = await client.v2.billing.meter_event_session.create_async()
    return stripe.StripeClient(
        session.authentication_token,
        base_addresses=fake.addresses,
        http_client=client._requestor._client,
    )


async def new_meter(client: stripe.StripeClient) -> stripe.billing.Meter:
    """One that adds up events of the name `usage`."""
    return await client.v1.billing.meters.create_async(
        {
            "display_name": "usage",
            "event_name": "usage",
            "default_aggregation": {"formula": "sum"},
        }
    )


def event(customer: str, value: str = "5", **members: Any) -> Any:
    """An event with an identifier that no other has."""
    payload = {"stripe_customer_id": customer, "value": value}
    identifier = str(next(_NAMES))
    return {"event_name": "usage", "payload": payload, "identifier": identifier, **members}


async def used(client: stripe.StripeClient, meter: str, customer: str) -> float:
    """All that a meter has of a customer, in the months around the tests' time."""
    day = int(NOON.timestamp()) // _DAY_S * _DAY_S
    found = await client.v1.billing.meters.event_summaries.list_async(
        meter,
        {"customer": customer, "start_time": day - 40 * _DAY_S, "end_time": day + 90 * _DAY_S},
    )
    return sum(one.aggregated_value for one in found.data)


async def metered_price(client: stripe.StripeClient) -> str:
    """One cent for each unit of a new meter."""
    meter = await new_meter(client)
    product = await client.v1.products.create_async({"name": "Usage"})
    price = await client.v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 1,
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
        }
    )
    return price.id
