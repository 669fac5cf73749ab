"""The quick client against a real server: what it does is what nats-py does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from penstock_shared.runtime.quick_client import QuickClient


@pytest.fixture
async def quick(nats_url: str) -> AsyncIterator[QuickClient]:
    client = QuickClient()
    await client.connect(nats_url, error_cb=_quiet)
    yield client
    await client.close()


@pytest.fixture
async def plain(nats_url: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_url)
    yield client
    await client.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"ce-id": "a", "traceparent": "00-aa-bb-01"},
        {"ce-source": "/penstock/router/ä", "empty": ""},
        {"forged": "one\r\nNats-Msg-Id: two", "ce-id": "a"},
        {},
        None,
    ],
)
async def test_what_it_publishes_is_what_plain_nats_publishes(
    quick: QuickClient, plain: Client, headers: dict[str, str] | None
) -> None:
    """Headers and data arrive alike; a value cannot become a header of its own."""
    arrived = await plain.subscribe("compare")
    await _processed(plain)
    for client in (quick, plain):
        await client.publish("compare", b"data", headers=headers)
    one, other = [await arrived.next_msg(timeout=5) for _ in range(2)]
    assert (one.headers, one.data) == (other.headers, other.data)
    assert "Nats-Msg-Id" not in (one.headers or {})


async def test_concurrent_requests_get_their_own_answers(quick: QuickClient, plain: Client) -> None:
    """Answers may come in any order."""

    async def answer(msg: Msg) -> None:
        await msg.respond(b"re: " + msg.data)

    await plain.subscribe("ask", cb=answer)
    await _processed(plain)
    texts = [f"{n}".encode() for n in range(50)]
    answers = await asyncio.gather(*(quick.request("ask", text, timeout=5) for text in texts))
    assert [msg.data for msg in answers] == [b"re: " + text for text in texts]


async def test_a_request_nobody_serves_or_answers(quick: QuickClient, plain: Client) -> None:
    """Both are told apart, and a late answer hurts nobody."""
    with pytest.raises(nats.errors.NoRespondersError):
        await quick.request("nobody", b"", timeout=5)
    late = await plain.subscribe("silent")
    await _processed(plain)
    with pytest.raises(nats.errors.TimeoutError):
        await quick.request("silent", b"", timeout=0.05)
    await (await late.next_msg(timeout=5)).respond(b"too late")
    await _processed(plain)
    await quick.flush()
    assert quick.is_connected
    assert not quick._answers


async def test_a_listener_survives_its_own_errors_and_a_reconnect(
    quick: QuickClient, plain: Client
) -> None:
    """An error in it reaches the error callback, not the read loop; it is subscribed anew."""
    heard: list[bytes] = []

    def listener(msg: Msg) -> None:
        if msg.data == b"bad":
            raise RuntimeError
        heard.append(msg.data)

    subscription = await quick.listen("news", listener)
    await quick.flush()
    for data in (b"one", b"bad", b"two"):
        await plain.publish("news", data)
    await _until(lambda: heard == [b"one", b"two"])
    assert quick._transport is not None
    quick._transport.close()  # type: ignore[no-untyped-call]
    await _until(lambda: quick.stats["reconnects"] == 1 and quick.is_connected)
    await quick.flush()
    await plain.publish("news", b"three")
    await _until(lambda: heard[-1] == b"three")
    await subscription.unsubscribe()
    await quick.flush()
    await plain.publish("news", b"four")
    await _processed(plain)
    assert not quick._listeners
    assert heard[-1] == b"three"


async def _processed(client: Client) -> None:
    """nats-py's own flush overtakes its buffer: the second one is after what the first sent."""
    await client.flush()
    await client.flush()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def _quiet(_: Exception) -> None:
    """The errors are the test's own."""


@pytest.mark.parametrize(
    "line",
    [b"PUB t.\xff t.\xfe 2\r\n{}", b"HPUB t.x 14 16\r\nNATS/1.0 \xff\r\n\r\n{}",
     b"HPUB t.x 18 20\r\nNATS/1.0 503 \xff\r\n\r\n{}", b"HPUB t.x 4 6\r\n\xff\xff\r\n{}"],
)  # fmt: skip
@pytest.mark.parametrize("listens", [True, False])
async def test_no_message_ends_the_connection(
    quick: QuickClient, plain: Client, line: bytes, *, listens: bool
) -> None:
    """Whatever bytes a tenant writes as subject, reply or headers: what comes next is read (I8)."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(msg: Msg) -> None:
        heard.put_nowait(msg.data)

    if listens:
        await quick.listen("t.*", lambda msg: heard.put_nowait(msg.data))
    else:
        await quick.subscribe("t.*", cb=hear)
    await quick.flush()
    await plain._send_command(line + b"\r\n")
    await plain.publish("t.after", b"after")
    await plain.flush()
    async with asyncio.timeout(2):
        assert [await heard.get(), await heard.get()] == [b"{}", b"after"]
