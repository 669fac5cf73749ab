"""A tenant's share: counted across replicas, durable in `routed`, the same after a restart."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.support.router import IDS, StartRouter, admit, count, put_tenant, routed_of

from penstock_router.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    Accepted,
    Rejected,
    RequestEnded,
    Status,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.streams import JOBS
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker


async def lanes_of(broker: Broker, ids: list[str], tenant: str = "acme") -> Counter[Lane]:
    return Counter([(await routed_of(broker, request_id, tenant)).lane for request_id in ids])


async def flood(broker: Broker, requests: int, tenant: str = "acme") -> list[str]:
    """That many requests at once, all of them accepted."""
    ids = [IDS.new() for _ in range(requests)]
    replies = await asyncio.gather(*(admit(broker, each, tenant=tenant) for each in ids))
    assert all(isinstance(reply, Accepted) for reply in replies)
    return ids


async def end(broker: Broker, request_id: str) -> None:
    """Write the terminal, as a worker does."""
    routed = await routed_of(broker, request_id)
    ended = RequestEnded.unstarted(
        routed, routed.accepted_at, status=Status.CANCELLED, reason="cancelled"
    )
    await broker.publish(
        subjects.request_event("acme", request_id),
        ended.model_dump_json().encode(),
        Envelope(
            id=terminal_id(request_id, 1, None), source="/t", type=terminal_type(ended.status)
        ),
    )


async def until_lane_is(broker: Broker, lane: Lane) -> None:
    """A request finds its way to `lane` once the fold has seen what was written."""
    async with asyncio.timeout(10):
        while (await routed_of(broker, (await flood(broker, 1))[0])).lane is not lane:
            await asyncio.sleep(0.02)


async def test_the_excess_goes_to_the_over_share_lane(
    broker: Broker, acme: None, start_router: StartRouter
) -> None:
    """Of 30 at once exactly the share is in the fair lane; another tenant has its own share."""
    await put_tenant(broker, "gold", weight=3)
    async with start_router(fair_in_flight=4):
        assert await lanes_of(broker, await flood(broker, 30)) == {
            Lane.STANDARD: 4,
            Lane.OVER_SHARE: 26,
        }
        gold = await flood(broker, 15, "gold")
        assert await lanes_of(broker, gold, "gold") == {Lane.STANDARD: 12, Lane.OVER_SHARE: 3}
        assert (await routed_of(broker, gold[0], "gold")).weight == 3


async def test_room_comes_back_with_the_terminals(
    broker: Broker, acme: None, start_router: StartRouter
) -> None:
    """A request that ended makes room for another one in the lane that was asked for."""
    async with start_router(fair_in_flight=2):
        ids = await flood(broker, 2)
        assert await lanes_of(broker, await flood(broker, 1)) == {Lane.OVER_SHARE: 1}
        for request_id in ids:
            await end(broker, request_id)
        await until_lane_is(broker, Lane.STANDARD)


async def test_replicas_count_each_others_requests_and_a_restart_forgets_none(
    broker: Broker, acme: None, start_router: StartRouter
) -> None:
    """What one replica routed counts in the next one from its first admission on (I9)."""
    async with start_router(fair_in_flight=3):
        await flood(broker, 3)
    async with start_router(fair_in_flight=3):
        assert await lanes_of(broker, await flood(broker, 2)) == {Lane.OVER_SHARE: 2}
    async with start_router(fair_in_flight=8), start_router(fair_in_flight=8):
        await until_lane_is(broker, Lane.OVER_SHARE)


async def test_a_repetition_keeps_its_lane(broker: Broker, router: App) -> None:
    """The decision is in `routed`: whatever the counts say later, the identical job (I2)."""
    request_id = IDS.new()
    for _ in range(3):
        assert isinstance(await admit(broker, request_id, lane=Lane.BATCH), Accepted)
    assert (await routed_of(broker, request_id)).lane is Lane.BATCH
    assert await count(broker, JOBS) == 1
    raw = await broker.jetstream.get_msg(JOBS, 1)
    assert raw.subject == subjects.job("acme", "small", Lane.BATCH)
    assert Job.model_validate_json(raw.data or b"").weight == 1


async def test_refusals_do_not_count(broker: Broker, acme: None, start_router: StartRouter) -> None:
    """A tenant that sends nonsense does not use up its share by it."""
    async with start_router(fair_in_flight=1):
        for _ in range(3):
            assert isinstance(await admit(broker, IDS.new(), model="nope"), Rejected)
        assert await lanes_of(broker, await flood(broker, 1)) == {Lane.STANDARD: 1}
