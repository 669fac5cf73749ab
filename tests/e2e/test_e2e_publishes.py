"""The price of a request in durable writes, held where DESIGN.md puts it."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.publishes import Counts, durable_counts
from openai import AsyncOpenAI
from tests.support.stack import Stack

pytestmark = pytest.mark.xdist_group("stack")
REQUESTS = 20


async def test_three_durable_publishes_and_one_ack_per_request(
    stack: Stack, client: AsyncOpenAI
) -> None:
    """`routed`, the job and the terminal fact, and nothing else reaches a disk (I1, I2)."""
    url = stack.addresses["nats_url"]
    await client.responses.create(model="echo", input="the first one may make its data key")
    before = await _at_rest(url)
    await asyncio.gather(
        *(client.responses.create(model="echo", input=f"request {n}") for n in range(REQUESTS))
    )
    added = (await _at_rest(url)).since(before)
    assert added == Counts(request_events=2 * REQUESTS, jobs=REQUESTS, others=0, job_acks=REQUESTS)


async def _at_rest(url: str) -> Counts:
    """The counts once every job has been acknowledged: nobody waits for those acks."""
    async with asyncio.timeout(20):
        while True:
            counts = await durable_counts(url)
            if counts.job_acks == counts.jobs:
                return counts
            await asyncio.sleep(0.05)
