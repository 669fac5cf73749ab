"""A service that never touches HTTP: nats-py with an API key, and nothing of another tenant's."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from tests.support.operator import operate
from tests.support.stack import Stack

from penstock_shared.contracts.ids import uuid7
from penstock_shared.runtime.clock import IdSource, SystemClock

pytestmark = pytest.mark.xdist_group("stack")
IDS = IdSource(SystemClock())


async def connect(stack: Stack, tenant: str, key: str) -> Client:
    return await nats.connect(
        stack.ready["nats"],
        token=key,
        inbox_prefix=f"_INBOX_{tenant}".encode(),
        allow_reconnect=False,
        connect_timeout=5,
        error_cb=_quiet,
    )


async def _quiet(_: Exception) -> None:
    """Refusals by the server are what these tests look for."""


def headers(event_id: str) -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-source": "/test",
        "ce-type": "penstock.request.submit.v1",
    }


@pytest.fixture
async def tenant_client(stack: Stack) -> AsyncIterator[Client]:
    client = await connect(stack, "demo", stack.ready["api_key"])
    yield client
    await client.close()


async def ask(client: Client, tenant: str, payload: Any, event_id: str | None = None) -> Any:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    reply = await client.request(
        f"v1.{tenant}.requests.submit", data, timeout=5, headers=headers(event_id or IDS.new())
    )
    return json.loads(reply.data)["reply"]


async def final_frame(subscription: Any) -> Any:
    async with asyncio.timeout(30):
        while True:
            frame = json.loads((await subscription.next_msg(timeout=30)).data)
            if frame["t"] == "final":
                return frame


async def test_submit_and_follow(tenant_client: Client) -> None:
    """Accepted, deltas numbered from 0 without a gap, one final frame with usage (I6)."""
    request_id = IDS.new()
    subscription = await tenant_client.subscribe(f"v1.demo.responses.{request_id}")
    accepted = await ask(
        tenant_client, "demo", {"model": "echo", "input": "one two three"}, request_id
    )
    assert accepted["status"] == "accepted"
    assert accepted["request_id"] == request_id
    numbers, text = [], ""
    while (frame := json.loads((await subscription.next_msg(timeout=20)).data))["t"] == "delta":
        numbers.append(frame["n"])
        text += frame["delta"]
    assert numbers == list(range(len(numbers)))
    assert text == frame["text"] == "one two three"
    assert frame["usage"]["output_tokens"] == 3


async def test_fire_and_forget_and_come_late(tenant_client: Client) -> None:
    """The durable queue needs nobody to wait; the answer is read later by id."""
    request_id = IDS.new()
    await tenant_client.publish(
        "v1.demo.requests.queue",
        json.dumps({"model": "echo", "input": "later please"}).encode(),
        headers=headers(request_id),
    )
    async with asyncio.timeout(20):
        while True:
            question = json.dumps({"request_id": request_id}).encode()
            reply = await tenant_client.request("v1.demo.requests.get", question, timeout=5)
            state = json.loads(reply.data)
            if state.get("status") == "ended":
                break
            await asyncio.sleep(0.1)
    assert state["final"]["text"] == "later please"


async def test_poison_is_listed_for_the_operator(tenant_client: Client, stack: Stack) -> None:
    """No CloudEvent, no JSON: to DEAD, with the reason, the content sealed."""
    marker = uuid.uuid4().hex
    await tenant_client.publish("v1.demo.requests.queue", f"no json {marker}".encode())
    await tenant_client.publish(
        "v1.demo.requests.queue", f"{{no json {marker}".encode(), headers=headers("poison")
    )
    async with asyncio.timeout(20):
        while len(listed := (await operate(stack, "dead", "list"))["letters"]) < 2:
            await asyncio.sleep(0.2)
    assert {"not_a_cloudevent", "invalid_json"} <= {x["error"]["code"] for x in listed}
    assert marker not in json.dumps(listed)
    poison = next(one["number"] for one in listed if one["error"]["code"] == "invalid_json")
    with pytest.raises(AssertionError, match="refused again"):  # it has not got any better
        await operate(stack, "dead", "replay", str(poison))


async def test_a_tenant_cannot_touch_another(tenant_client: Client, stack: Stack) -> None:
    """Publishing, subscribing, requesting and spying outside one's own subjects all fail (I8)."""
    await operate(stack, "tenants", "create", "rival", "--name", "Rival")
    key = (await operate(stack, "keys", "create", "rival", "--name", "k"))["secret"]
    rival = await connect(stack, "rival", key)
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(message)

    for subject in (
        "v1.demo.responses.*",
        "v1.demo.>",
        "v1.*.events.>",
        ">",
        "_INBOX.>",
        "_INBOX_demo.>",
        "$JS.API.>",
        "$KV.>",
        "$SYS.>",
    ):
        await rival.subscribe(subject, cb=hear)
    request_id = IDS.new()
    frames = await tenant_client.subscribe(f"v1.demo.responses.{request_id}")
    await ask(tenant_client, "demo", {"model": "echo", "input": "private words"}, request_id)
    await final_frame(frames)
    for subject in (
        "v1.demo.requests.submit",
        "v1.demo.requests.admitted",
        "v1.rival.requests.admitted",
        "v1.platform.accounts.list-keys",
        "$JS.API.STREAM.LIST",
        "$KV.keys.x",
    ):
        with pytest.raises(nats.errors.Error):
            await rival.request(subject, b"{}", timeout=0.5)
    await rival.close()
    assert not heard


async def test_a_reply_cannot_be_sent_into_another_tenants_inbox(
    tenant_client: Client, stack: Stack
) -> None:
    """The broker does not check the reply subject; whoever answers does (I8)."""
    await operate(stack, "tenants", "create", "spy", "--name", "Spy")
    key = (await operate(stack, "keys", "create", "spy", "--name", "k"))["secret"]
    spy = await connect(stack, "spy", key)
    inbox = await tenant_client.subscribe("_INBOX_demo.injected")
    await spy.publish(
        "v1.spy.requests.submit",
        b'{"model":"echo","input":"x"}',
        reply="_INBOX_demo.injected",
        headers=headers(IDS.new()),
    )
    await spy.publish("v1.spy.requests.get", b'{"request_id":"x"}', reply="_INBOX_demo.injected")
    await spy.flush()
    with pytest.raises(nats.errors.TimeoutError):
        await inbox.next_msg(timeout=1.0)
    await spy.close()


@pytest.mark.parametrize("secret", ["", "psk_nonsense"])
async def test_a_bad_key_does_not_connect(stack: Stack, secret: str) -> None:
    """The auth callout refuses what HTTP refuses."""
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await asyncio.wait_for(connect(stack, "demo", secret), 10)


async def test_a_revoked_key_is_disconnected_within_a_second(stack: Stack) -> None:
    """A live NATS connection does not outlast its key."""
    made = await operate(stack, "keys", "create", "demo", "--name", "nats-short")
    client = await connect(stack, "demo", made["secret"])
    accepted = await ask(client, "demo", {"model": "echo", "input": "hi"})
    assert accepted["status"] == "accepted"
    await operate(stack, "keys", "revoke", made["key"]["key_id"])
    await asyncio.sleep(1.0)
    assert not client.is_connected
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await asyncio.wait_for(connect(stack, "demo", made["secret"]), 10)


async def test_stale_request_ids_are_refused(tenant_client: Client) -> None:
    """A UUIDv7 older than the log's memory may not run (I2)."""
    old = uuid7(1_600_000_000_000, bytes)
    refused = await ask(tenant_client, "demo", {"model": "echo", "input": "hi"}, old)
    assert refused["status"] == "rejected"
    assert refused["error"]["code"] == "stale_request_id"
