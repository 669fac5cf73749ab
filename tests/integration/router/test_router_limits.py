"""NATS publishers under the same limits as HTTP clients: the same buckets, the same words."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.limits import demand, limiter
from tests.support.router import IDS, StartRouter, count, last_of, model_record, put_model, submit

from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.ids import keyed_request_id
from penstock_shared.contracts.output_schema import MAX_SCHEMA_DEPTH
from penstock_shared.contracts.requests import (
    Accepted,
    Rejected,
    RequestEnded,
    RequestRouted,
    Status,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.streams import DEAD, EVENTS, INGRESS, Bucket
from penstock_shared.contracts.usage import Usage
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker


async def put_limited(broker: Broker, **limits: int) -> str:
    """A tenant of its own: Redis outlives the test."""
    name = f"t{os.urandom(4).hex()}"
    record = TenantRecord(tenant=name, name=name, created_at=datetime.now(UTC), **limits)
    await kv.put(broker, Bucket.TENANTS, name, record.model_dump_json().encode())
    await put_model(broker, model_record())
    return name


async def end(broker: Broker, tenant: str, request_id: str, output_tokens: int) -> None:
    """What a worker writes."""
    stored = await last_of(broker, request_id, tenant)
    routed = RequestRouted.model_validate_json(stored.data)
    ended = RequestEnded.unstarted(
        routed, datetime.now(UTC), status=Status.COMPLETED, reason="stop"
    ).model_copy(update={"usage": Usage(input_tokens=5, output_tokens=output_tokens)})
    envelope = Envelope(
        id=terminal_id(request_id, 1, None), source="/t", type=terminal_type(ended.status)
    )
    subject = subjects.request_event(tenant, request_id)
    await broker.publish(subject, ended.model_dump_json().encode(), envelope)


async def test_submissions_over_the_limit(
    broker: Broker, start_router: StartRouter, redis_url: str
) -> None:
    """429 with the time to come back, also across two routers; nothing reaches the log."""
    tenant = await put_limited(broker, requests_per_minute=3)
    async with start_router(redis_url=redis_url), start_router(redis_url=redis_url):
        asked = (submit(broker, IDS.new(), {"input": "hi"}, tenant) for _ in range(8))
        replies = await asyncio.gather(*asked)
    refused = [reply for reply in replies if isinstance(reply, Rejected)]
    assert len(refused) == 5
    for reply in refused:
        assert (reply.http_status, reply.error.code) == (429, "rate_limit_exceeded")
        assert "3 requests per minute of this tenant" in reply.error.message
        assert reply.retry_after_s is not None
        assert 10 < reply.retry_after_s <= 20
    assert await count(broker, EVENTS) == 3


async def test_nats_and_http_share_a_tenants_limit(
    broker: Broker, start_router: StartRouter, redis_url: str
) -> None:
    """What came over HTTP leaves so much less over NATS (I8: no way around)."""
    tenant = await put_limited(broker, requests_per_minute=3)
    edge = limiter(redis_url)
    for _ in range(2):
        (await edge.take(demand(tenant=tenant, requests_per_minute=3))).require()
    async with start_router(redis_url=redis_url):
        first = await submit(broker, IDS.new(), {"input": "hi"}, tenant)
        second = await submit(broker, IDS.new(), {"input": "hi"}, tenant)
    assert isinstance(first, Accepted)
    assert isinstance(second, Rejected)


async def test_a_bad_submission_counts_too(
    broker: Broker, start_router: StartRouter, redis_url: str
) -> None:
    """As at the HTTP edge: who sends rubbish is told so, until the limit is reached."""
    tenant = await put_limited(broker, requests_per_minute=2)
    async with start_router(redis_url=redis_url):
        replies = [await submit(broker, IDS.new(), b"{no", tenant) for _ in range(3)]
    assert [reply.error.code for reply in replies if isinstance(reply, Rejected)] == [
        "invalid_json",
        "invalid_json",
        "rate_limit_exceeded",
    ]


async def test_tokens_are_charged_once_and_given_back_at_the_end(
    broker: Broker, start_router: StartRouter, redis_url: str
) -> None:
    """The most is charged; a repetition charges none; the terminal brings the rest back."""
    tenant = await put_limited(broker, tokens_per_minute=1000)
    body = {"input": "hi", "max_output_tokens": 900}
    async with start_router(redis_url=redis_url):
        accepted = [await submit(broker, "order-7", body, tenant) for _ in range(3)]
        assert all(isinstance(reply, Accepted) for reply in accepted)
        assert isinstance(await submit(broker, "order-8", body, tenant), Rejected)
        assert isinstance(accepted[0], Accepted)
        await end(broker, tenant, accepted[0].request_id, output_tokens=7)
        async with asyncio.timeout(10):
            while isinstance(await submit(broker, "order-8", body, tenant), Rejected):
                await asyncio.sleep(0.05)


async def test_a_refused_submission_uses_no_tokens(
    broker: Broker, start_router: StartRouter, redis_url: str
) -> None:
    """What the router itself turns away is given back at once."""
    tenant = await put_limited(broker, tokens_per_minute=1000)
    body = {"input": "hi", "max_output_tokens": 900}
    stale = "0190e0f0-0000-7000-8000-00000000000a"
    async with start_router(redis_url=redis_url):
        refused = await submit(broker, stale, body, tenant)
        assert isinstance(refused, Rejected)
        assert refused.error.code == "stale_request_id"
        assert isinstance(await submit(broker, IDS.new(), body, tenant), Accepted)


async def test_a_spoilt_repetition_gives_no_tokens_back(
    broker: Broker, start_router: StartRouter, redis_url: str
) -> None:
    """It took none: what it is a repetition of still runs."""
    tenant = await put_limited(broker, tokens_per_minute=1000)
    body = {"input": "hi", "max_output_tokens": 900}
    schema: dict[str, Any] = {}
    for _ in range(MAX_SCHEMA_DEPTH):
        schema = {"items": schema}
    async with start_router(redis_url=redis_url):
        assert isinstance(await submit(broker, "order-7", body, tenant), Accepted)
        await submit(broker, "order-7", body | {"output_schema": schema}, tenant)
        assert isinstance(await submit(broker, "order-8", body, tenant), Rejected)


@pytest.mark.parametrize("redis", [True, False])
async def test_the_queue_waits_for_the_limit(
    broker: Broker, start_router: StartRouter, redis_url: str, *, redis: bool
) -> None:
    """Over the limit is handed back, later admitted, never buried; without Redis just the same."""
    tenant = await put_limited(broker, requests_per_minute=60)
    other = await put_limited(broker)
    settings: dict[str, Any] = {"redis_url": redis_url} if redis else {}
    async with start_router(**settings):
        for n in range(62):
            await queue(broker, tenant, f"job-{n}")
        await queue(broker, other, "job-0")  # nobody else waits with them
        theirs = subjects.request_event(other, keyed_request_id(other, "job-0"))
        async with asyncio.timeout(10):
            while await broker.last_message(EVENTS, theirs) is None:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(30):
            while await count(broker, INGRESS):
                await asyncio.sleep(0.05)
    assert await count(broker, EVENTS) == 63
    assert await count(broker, DEAD) == 0


async def queue(broker: Broker, tenant: str, event_id: str) -> None:
    envelope = Envelope(id=event_id, source="/client", type="penstock.request.submit.v1")
    subject = subjects.queue(tenant)
    await broker.client.publish(subject, b'{"input":"hi"}', headers=envelope.headers())
