"""Limits at the border: rates, sizes, methods, and the headers that go with every answer."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator

import openai
import pytest
from redis.asyncio import Redis
from tests.support.realtime import Edge, StartEdge

from penstock_realtime.adapters.redis_rate_limit import RedisRateLimiter
from penstock_realtime.domain.gcra import allowance, take


async def test_a_tenant_over_its_rate(start_edge: StartEdge) -> None:
    """429 in the SDK's own exception, with the waiting time and OpenAI's headers."""
    edge = await start_edge(per_minute=2)
    async with edge.client() as client:
        for left in ("1", "0"):
            raw = await client.responses.with_raw_response.create(input="x")
            assert raw.headers["x-ratelimit-remaining-requests"] == left
        with pytest.raises(openai.RateLimitError) as caught:
            await client.responses.create(input="x")
    headers = caught.value.response.headers
    assert 25 <= int(headers["retry-after"]) <= 30
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 50 < float(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    other = await edge.add_account(f"{edge.account.tenant.tenant}d")
    async with edge.client(other.secret) as client:
        assert (await client.responses.create(input="x")).output_text == "x"


async def test_concurrent_requests_never_exceed_the_limit(redis_url: str) -> None:
    """Two instances at once let through exactly the limit: the step is atomic."""
    tenant = f"t{os.urandom(4).hex()}"
    async with Redis.from_url(redis_url) as redis:
        limiters = [RedisRateLimiter(redis, 1.0, lambda: 0.0) for _ in range(2)]
        taken = await asyncio.gather(*(limiters[n % 2].take(tenant, 50) for n in range(120)))
    assert sum(one.allowed for one in taken) == 50


async def test_redis_and_the_local_rule_agree(redis_url: str) -> None:
    """The script computes what the pure function computes, step for step."""
    rng = random.Random(seed := random.randrange(2**32))
    print("seed", seed)
    tenant, ahead_us, per_minute = f"t{os.urandom(4).hex()}", 0, 60
    async with Redis.from_url(redis_url) as redis:
        limiter = RedisRateLimiter(redis, 1.0, lambda: 0.0)
        for _ in range(20):
            wanted = rng.randint(1, 9)
            real = await asyncio.gather(*(limiter.take(tenant, per_minute) for _ in range(wanted)))
            taken = take(ahead_us, per_minute, wanted)
            ahead_us = taken.ahead_us
            rule = [allowance(taken, per_minute, index) for index in range(wanted)]
            # Both clocks run on between the steps; less than one interval passes in this test.
            assert [one.allowed for one in real] == [one.allowed for one in rule]
            assert real[-1].reset_s == pytest.approx(rule[-1].reset_s, abs=0.9)


async def test_a_body_over_the_limit(edge: Edge) -> None:
    """413 with a clear error, announced length or not."""
    async with edge.http() as client:

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"x" * 65_536

        for content in (b"x" * 1_200_000, chunks()):
            answer = await client.post("responses", content=content)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"


async def test_headers_over_the_limit(edge: Edge) -> None:
    """The head is bounded while it is being read; what is no HTTP gets 400."""
    heads = (b"a: " + b"x" * 300_000, b"a: b\r\n" * 6_000, b"a: " + b"x" * 40_000 + b"\r\n\r\n")
    for head in heads:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.app.http_port)
        writer.write(b"GET / HTTP/1.1\r\n" + head)
        assert b" 431 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()  # what follows may be cut off: the server does not read on
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.app.http_port)
    writer.write(b"no http at all\r\n\r\n")
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "responses", 405, "method_not_allowed"),
        ("GET", "nothing", 404, "not_found"),
        ("GET", "responses/resp_0190e0f000007000800000000000000a", 404, "response_not_found"),
        ("GET", "responses/nonsense", 400, "invalid_request_id"),
        ("GET", "responses/a.b.*", 400, "invalid_request_id"),
        (
            "GET",
            "responses/resp_0190e0f000007000800000000000000a?stream=true",
            400,
            "unsupported_parameter",
        ),
        (
            "POST",
            "responses/resp_0190e0f000007000800000000000000a/cancel",
            404,
            "response_not_found",
        ),
        ("POST", "responses", 400, "invalid_json"),
    ],
)
async def test_every_answer_is_dressed(edge: Edge, method, path, status, code) -> None:
    """Errors have the API's format; every answer has an id, security headers and no banner."""
    async with edge.http() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


async def test_the_key_belongs_into_the_header(edge: Edge) -> None:
    """No key in a query, another scheme or nothing at all: 401 (I8)."""
    async with edge.http() as client:
        for headers, code in (
            ({"authorization": "Basic abc"}, "unsupported_authorization"),
            ({"authorization": ""}, "unsupported_authorization"),
            ({"authorization": "Bearer"}, "missing_api_key"),
        ):
            answer = await client.get(f"models?api_key={edge.account.secret}", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_another_tenants_response_is_not_found(edge: Edge) -> None:
    """Whoever guesses an id learns nothing, and can cancel nothing (I8)."""
    other = await edge.add_account(f"{edge.account.tenant.tenant}e")
    async with edge.client() as mine, edge.client(other.secret) as theirs:
        created = await mine.responses.create(input="secret")
        with pytest.raises(openai.NotFoundError):
            await theirs.responses.retrieve(created.id)
        with pytest.raises(openai.NotFoundError):
            await theirs.responses.cancel(created.id)
