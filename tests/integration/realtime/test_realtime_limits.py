"""Limits at the border: rates, sizes, methods, and the headers that go with every answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from redis.asyncio import Redis
from tests.support.realtime import Edge, StartEdge

NOT_FOUND = "response_not_found"


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


async def test_tokens_are_charged_and_given_back(edge: Edge) -> None:
    """The most is charged at first, what was used in the end; one too large is told so (I3)."""
    account = await edge.add_account(f"{edge.account.tenant.tenant}t", tokens_per_minute=1000)
    async with edge.client(account.secret) as client:
        raw = await client.responses.with_raw_response.create(input="hi", max_output_tokens=900)
        assert raw.headers["x-ratelimit-limit-tokens"] == "1000"
        assert int(raw.headers["x-ratelimit-remaining-tokens"]) in range(98, 200)
        again = await until_allowed(client)
        assert 80 <= int(again.headers["x-ratelimit-remaining-tokens"]) < 200
        with pytest.raises(openai.APIStatusError) as caught:
            await client.responses.create(input="hi", max_output_tokens=1001)
    assert caught.value.status_code == 413
    assert caught.value.param == "max_output_tokens"
    assert "retry-after" not in caught.value.response.headers


async def test_a_conversation_that_goes_on_is_charged(edge: Edge) -> None:
    """All that the model reads counts at once, also in the background, where nobody settles."""
    account = await edge.add_account(f"{edge.account.tenant.tenant}c", tokens_per_minute=6000)
    async with edge.http(account.secret) as client:
        body: dict[str, Any] = {"input": "x" * 8000, "max_output_tokens": 16}
        first = (await client.post("responses", json=body)).json()["id"]
        body |= {"input": "more", "previous_response_id": first, "background": True}
        told = [(await client.post("responses", json=body)).status_code for _ in range(10)]
    assert 1 <= told.count(200) <= 4
    assert told[-1] == 429


async def until_allowed(client: Any) -> Any:
    """What was not used is given back without anybody waiting for it."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(openai.RateLimitError):
                return await client.responses.with_raw_response.create(
                    input="hi", max_output_tokens=900
                )
            await asyncio.sleep(0.01)


async def test_a_user_over_his_limit_leaves_the_tenants_others_alone(edge: Edge) -> None:
    """Two keys of one tenant: each is a user of its own, and the message says which limit."""
    first = await edge.add_account(f"{edge.account.tenant.tenant}u", user_requests_per_minute=1)
    second = await edge.add_account(first.tenant.tenant, user_requests_per_minute=1)
    for account in (first, second):
        async with edge.client(account.secret) as client:
            await client.responses.create(input="x")
            with pytest.raises(openai.RateLimitError, match="1 requests per minute of this user"):
                await client.responses.create(input="x")


async def test_the_address_tier_behind_a_proxy(start_edge: StartEdge) -> None:
    """A trusted proxy's word names the client, from the right; what it cannot know does not."""
    edge = await start_edge(trusted_proxies="127.0.0.0/8", address_requests_per_minute=1)
    client_id = f"2001:db8:{random.randrange(65536):x}:{random.randrange(65536):x}"
    async with edge.http() as client:
        statuses = []
        for forwarded in (
            f"{client_id}::1",
            f"{client_id}::ffff:1",  # the same subscriber's /64
            f"198.51.100.7, {client_id}::2",  # made up by the client: the proxy appended the last
            f"[{client_id}::3]:443",
        ):
            answer = await client.post(
                "responses", json={"input": "x"}, headers={"x-forwarded-for": forwarded}
            )
            statuses.append(answer.status_code)
    assert statuses == [200, 429, 429, 429]
    assert "1 requests per minute of your address" in answer.json()["error"]["message"]


async def test_nobody_else_is_believed_about_addresses(start_edge: StartEdge) -> None:
    """Without a trusted proxy `X-Forwarded-For` is the client's own invention (I8)."""
    edge = await start_edge(address_requests_per_minute=1_000_000)
    async with edge.http() as client:
        made_up = {"x-forwarded-for": f"203.0.113.{random.randrange(256)}"}
        assert (await client.post("responses", json={"input": "x"}, headers=made_up)).is_success
    assert edge.app.settings.redis_url is not None
    async with Redis.from_url(edge.app.settings.redis_url.get_secret_value()) as redis:
        keys = [key async for key in redis.scan_iter("*requests:a:*", count=1000)]
    assert not [key for key in keys if b"203.0.113." in key]


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
        ("GET", "responses/resp_0190e0f000007000800000000000000a", 404, NOT_FOUND),
        ("GET", "responses/nonsense", 400, "invalid_request_id"),
        ("GET", "responses/a.b.*", 400, "invalid_request_id"),
        ("GET", "responses/resp_0190e0f000007000800000000000000a?stream=true", 404, NOT_FOUND),
        (
            "POST",
            "responses/resp_0190e0f000007000800000000000000a/cancel",
            404,
            NOT_FOUND,
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
        for path, headers, code in (
            ("models", {"authorization": "Basic abc"}, "unsupported_authorization"),
            ("models", {"authorization": ""}, "unsupported_authorization"),
            ("models", {"authorization": "Bearer"}, "missing_api_key"),
            (f"models?api_key={edge.account.secret}", {}, "credential_in_url"),
        ):
            answer = await client.get(path, headers=headers)
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
