"""A tenant's own prices, from the bucket to the fact by which it is billed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.router import IDS, StartRouter, admit, model_record, put_model, routed_of

from penstock_shared.contracts.plans import PricesFrom, TenantPrices
from penstock_shared.contracts.streams import Bucket
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

OWN = Price(input_microusd_per_1k=7, output_microusd_per_1k=9, request_microusd=11)


async def put_prices(broker: Broker, *changes: tuple[int, Price]) -> None:
    """As billing does: in force so many days from today."""
    today = datetime.now(UTC).date()
    record = TenantPrices(
        tenant="acme",
        changes=tuple(
            PricesFrom(
                from_day=today + timedelta(days=days), plan="p", version=1, prices={"small": price}
            )
            for days, price in changes
        ),
    )
    await kv.put(broker, Bucket.PRICES, "acme", record.model_dump_json().encode())


async def priced(broker: Broker) -> Price:
    """At what price a new request of the tenant's is routed."""
    request_id = IDS.new()
    await admit(broker, request_id, model="small")
    return (await routed_of(broker, request_id)).price


@pytest.mark.usefixtures("acme")
async def test_a_request_is_priced_by_the_plan_in_force(
    broker: Broker, start_router: StartRouter
) -> None:
    """What was there at the start, what comes while the router runs; not what is for tomorrow."""
    usual = model_record().price
    await put_prices(broker, (-3, OWN), (1, usual))
    async with start_router():
        assert await priced(broker) == OWN
        await put_prices(broker, (0, usual), (1, OWN))
        async with asyncio.timeout(5):
            while await priced(broker) != usual:
                await asyncio.sleep(0.02)


@pytest.mark.usefixtures("acme")
async def test_auto_goes_where_it_is_cheap_for_the_tenant(
    broker: Broker, start_router: StartRouter
) -> None:
    """The model that the plan makes dear is the cheaper one for everybody else."""
    dear = Price(input_microusd_per_1k=9_000_000, output_microusd_per_1k=9_000_000)
    other = model_record("other").model_copy(
        update={"price": Price(input_microusd_per_1k=2, output_microusd_per_1k=4)}
    )
    await put_model(broker, other)
    await put_prices(broker, (0, dear))
    async with start_router():
        request_id = IDS.new()
        await admit(broker, request_id, model="auto")
        assert (await routed_of(broker, request_id)).model == "other"
