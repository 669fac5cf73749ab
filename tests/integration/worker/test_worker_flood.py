"""Two tenants, one of them flooding: how long the other one waits."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from tests.support.worker_rig import WorkerRig, until

from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import RequestEnded, Status
from penstock_shared.contracts.subjects import Lane

FLOOD = 1_000
FAIR_IN_FLIGHT = 64
"""The router's default: what a tenant has open beyond it goes to the over-share lane."""
SLOTS, BATCH = 4, 64
"""Of the echo model."""
TEXT = "word " * 20


async def flood(rig: WorkerRig) -> list[Job]:
    """A thousand jobs at once, in the lanes that the router gives them."""

    async def send(number: int) -> Job:
        lane = Lane.STANDARD if number < FAIR_IN_FLIGHT else Lane.OVER_SHARE
        job = await rig.route(TEXT, lane=lane, deadline_s=120)
        await rig.publish(job)
        return job

    return list(await asyncio.gather(*map(send, range(FLOOD))))


def started_at(ended: RequestEnded) -> datetime:
    assert ended.timings is not None
    return ended.routed_at + timedelta(milliseconds=ended.timings.queued_ms)


async def test_a_flood_of_a_thousand_jobs_delays_nobody_by_more_than_what_is_in_the_air(
    rig: WorkerRig,
):
    """Of the other tenant's jobs 95 % wait for the batches in the air and one more (I8).

    Counted in jobs of the flood that start between a quiet job's arrival and its start, so a busy
    machine changes nothing: FIFO would let up to a thousand pass.
    """
    flooding = await flood(rig)
    await rig.start_worker(echo_tokens_per_s=50)
    quiet = []
    for _ in range(20):
        job = await rig.route(TEXT, tenant="quiet", deadline_s=120)
        await rig.publish(job)
        quiet.append(job)
        await asyncio.sleep(0.05)

    async def ended() -> bool:
        lags = [await rig.lag("echo", lane) for lane in (Lane.STANDARD, Lane.OVER_SHARE)]
        return lags == [(0, 0), (0, 0)]

    await until(ended, timeout_s=60)
    starts = [started_at(await rig.terminal(job)) for job in flooding]
    passed = []
    for job in quiet:
        fact = await rig.terminal(job)
        assert fact.status is Status.COMPLETED
        passed.append(sum(fact.routed_at < start < started_at(fact) for start in starts))
    assert sorted(passed)[int(len(passed) * 0.95)] <= (SLOTS + 1) * BATCH
    assert len(starts) == FLOOD
