"""A session that is resumed on another instance, and what becomes of responses left alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets
from redis.asyncio import Redis
from tests.support.edges import Edges
from tests.support.realtime import add_account
from tests.support.realtime_backend import Backend, echo, new_run, until_cancelled
from tests.support.resuming_client import Seen, open_socket, receive, send, start_session
from tests.support.tcp_proxy import TcpProxy
from websockets.asyncio.client import ClientConnection

from penstock_realtime.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import Role
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.streams import CONTROL, RESPONSES

GRACE_S = 2.0
PIECES = [f"word{n} " for n in range(40)]


class Stepwise:
    """A worker that says only what it is told to."""

    def __init__(self) -> None:
        self.run = new_run()
        self._may = asyncio.Semaphore(0)
        self._said = asyncio.Semaphore(0)

    async def generate(self, backend: Backend, job: Job, _: str) -> None:
        for n, piece in enumerate(PIECES):
            await self._may.acquire()
            await backend.delta(job, self.run, n, piece)
            self._said.release()
        await backend.end(job, self.run, PIECES)

    async def say(self, count: int) -> None:
        """So many more deltas, all of them published."""
        for _ in range(count):
            self._may.release()
        for _ in range(count):
            await self._said.acquire()


async def connected(edges: Edges, edge: App) -> ClientConnection:
    return await open_socket(edge.http_port, edges.account.secret)


async def read_until(socket: ClientConnection, seen: Seen, last: int | None = None) -> None:
    """Up to an event of at least this number, or to the end."""
    while seen.end is None and (last is None or seen.last < last):
        seen.take(await receive(socket))


async def resume(
    socket: ClientConnection, session_id: str, positions: dict[str, int] | None = None
) -> dict[str, Any]:
    await send(socket, "session.resume", session_id=session_id, positions=positions or {})
    return await receive(socket)


async def closed_with(socket: ClientConnection) -> int:
    """The code that the server closes it with."""
    try:
        async with asyncio.timeout(10):
            while True:
                await socket.recv()
    except websockets.ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 0


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """A way to a server that can be cut."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with TcpProxy(parts.hostname, parts.port) as proxy:
        yield proxy, url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}")


@asynccontextmanager
async def retrieving(edges: Edges, edge: App, response_id: str) -> AsyncIterator[None]:
    """Somebody reads a response's events over HTTP."""
    headers = {"authorization": f"Bearer {edges.account.secret}"}
    url = f"http://127.0.0.1:{edge.http_port}/v1/responses/{response_id}?stream=true"
    async with httpx.AsyncClient(headers=headers) as client, client.stream("GET", url) as answer:
        assert answer.status_code == 200
        yield


async def begin(edges: Edges, edge: App, worker: Stepwise) -> tuple[ClientConnection, str, Seen]:
    """A session with one response, of which the client has ten deltas."""
    edges.backend.generate = worker.generate
    socket = await connected(edges, edge)
    session_id = await start_session(socket)
    await send(socket, "response.create", input="go", stream_id="a")
    seen = Seen("a", "".join(PIECES))
    await worker.say(10)
    await read_until(socket, seen, last=4 + 9)
    return socket, session_id, seen


def assert_whole(seen: Seen) -> None:
    assert seen.end is not None
    assert seen.end["type"] == "response.completed"
    assert seen.text == seen.prompt
    assert not seen.gaps


async def commanded(edges: Edges, job: Job) -> bool:
    """Whether the job's cancellation stands in CONTROL."""
    subject = subjects.control(job.tenant, job.request_id)
    return await edges.broker.last_message(CONTROL, subject) is not None


async def eventually_commanded(edges: Edges, job: Job, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not await commanded(edges, job):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("moment", ["running", "ended"])
async def test_it_goes_on_at_another_instance(edges: Edges, moment: str) -> None:
    """Nothing is lost, repeated or reordered, whether it still runs or has ended (I6)."""
    here, there = await edges.start(), await edges.start()
    worker = Stepwise()
    socket, session_id, seen = await begin(edges, here, worker)
    socket.transport.abort()
    await worker.say(10 if moment == "running" else 30)
    other = await connected(edges, there)
    assert seen.response_id is not None
    resumed = await resume(other, session_id, {seen.response_id: seen.last})
    assert resumed["type"] == "session.resumed", resumed
    if moment == "running":
        await read_until(other, seen, last=4 + 19)
        await worker.say(20)
    await read_until(other, seen)
    assert_whole(seen)
    await other.close()


async def test_what_the_client_does_not_name_is_listed(edges: Edges) -> None:
    """It may never have heard of it, or have all of it: nothing comes that was not asked for."""
    here, there = await edges.start(), await edges.start()
    worker = Stepwise()
    socket, session_id, _ = await begin(edges, here, worker)
    socket.transport.abort()
    other = await connected(edges, there)
    resumed = await resume(other, session_id)
    (listed,) = resumed["responses"]
    assert (listed["stream_id"], listed["starting_after"]) == ("a", None)
    await send(other, "response.resume", response_id=listed["response_id"], stream_id="a")
    await worker.say(30)
    again = Seen("a", "".join(PIECES))
    await read_until(other, again)
    assert_whole(again)
    await other.close()


async def test_deltas_that_are_gone_are_a_gap(edges: Edges) -> None:
    """While it runs, what RESPONSES has no more is told with its numbers; the rest follows (I6)."""
    here, there = await edges.start(), await edges.start()
    worker = Stepwise()
    socket, session_id, seen = await begin(edges, here, worker)
    socket.transport.abort()
    await worker.say(10)
    job = edges.backend.jobs[0]
    subject = subjects.responses(job.tenant, job.request_id)
    await edges.broker.flush()
    await edges.broker.jetstream.purge_stream(RESPONSES, subject=subject, keep=5)
    other = await connected(edges, there)
    assert seen.response_id is not None
    await resume(other, session_id, {seen.response_id: seen.last})
    await read_until(other, seen, last=4 + 19)
    await worker.say(20)
    await read_until(other, seen)
    (gap,) = seen.gaps
    assert (gap["first_sequence_number"], gap["sequence_number"]) == (4 + 10, 4 + 14)
    assert gap["reason"] == "expired"
    assert seen.text == "".join(PIECES[:10] + PIECES[15:])
    assert seen.end is not None
    assert seen.end["response"]["output"][0]["content"][0]["text"] == "".join(PIECES)
    await other.close()


@pytest.mark.parametrize("session_id", ["sess_x", "0190e0f0-0000-7000-8000-000000000000"])
async def test_an_unknown_session(edges: Edges, session_id: str) -> None:
    """It says what to do, and the socket stays."""
    socket = await connected(edges, await edges.start())
    error = await resume(socket, session_id)
    assert error["error"]["code"] in {"session_expired", "invalid_request_id"}
    await send(socket, "response.create", input="still here")
    seen = Seen("", "still here")
    await read_until(socket, seen)
    assert_whole(seen)
    await socket.close()


async def test_past_the_window(edges: Edges) -> None:
    """The session is gone, its response is not."""
    here = await edges.start(session_window_s=0.5)
    worker = Stepwise()
    socket, session_id, seen = await begin(edges, here, worker)
    socket.transport.abort()
    await asyncio.sleep(0.8)
    other = await connected(edges, here)
    error = await resume(other, session_id)
    assert (error["error"]["code"], error["status"]) == ("session_expired", 404)
    await worker.say(30)
    await send(other, "response.resume", response_id=seen.response_id, starting_after=seen.last)
    await read_until(other, seen)
    assert_whole(seen)
    await other.close()


async def test_its_own_session(edges: Edges) -> None:
    """There is nothing to take: the socket is not closed as the older one of two."""
    socket = await connected(edges, await edges.start())
    session_id = await start_session(socket)
    await send(socket, "response.create", input="first")
    await read_until(socket, Seen("", "first"))
    assert (await resume(socket, session_id))["error"]["code"] == "session_in_use"
    await send(socket, "response.create", input="still here")
    seen = Seen("", "still here")
    await read_until(socket, seen)
    assert_whole(seen)
    await socket.close()


async def test_a_reader_takes_no_session(edges: Edges) -> None:
    """Whoever may only read could end with it what runs in it; its holder notices nothing."""
    reader = await add_account(edges.broker, edges.account.tenant.tenant, role=Role.READ_ONLY)
    edge = await edges.start()
    worker = Stepwise()
    socket, session_id, seen = await begin(edges, edge, worker)
    other = await open_socket(edge.http_port, reader.secret)
    error = await resume(other, session_id)
    assert error["status"] == 403
    await other.close()
    await worker.say(30)
    await read_until(socket, seen)
    assert_whole(seen)
    await socket.close()


async def test_another_tenants_session(edges: Edges) -> None:
    """It is as unknown as one that never was (I8)."""
    stranger = await add_account(edges.broker, f"t{os.urandom(4).hex()}")
    edge = await edges.start()
    socket, session_id, _ = await begin(edges, edge, Stepwise())
    other = await open_socket(edge.http_port, stranger.secret)
    assert (await resume(other, session_id))["error"]["code"] == "session_expired"
    await other.close()
    await socket.close()


@pytest.mark.parametrize("same_instance", [True, False])
async def test_the_newer_of_two_sockets_wins(edges: Edges, same_instance: bool) -> None:  # noqa: FBT001
    """The older one is closed with 4001, again and again, in both directions; no text is lost."""
    here = await edges.start()
    there = here if same_instance else await edges.start()
    worker = Stepwise()
    older, session_id, seen = await begin(edges, here, worker)
    assert seen.response_id is not None
    for edge in (there, here, there):
        newer = await connected(edges, edge)
        resumed = await resume(newer, session_id, {seen.response_id: seen.last})
        assert resumed["type"] == "session.resumed"
        assert await closed_with(older) == 4001
        await worker.say(10)
        await read_until(newer, seen, last=seen.last + 5)
        older = newer
    await read_until(older, seen)
    assert_whole(seen)
    await older.close()


async def test_taken_over_while_the_older_instance_is_cut_off(
    edges: Edges, nats_url: str, redis_url: str
) -> None:
    """When it is back, what it writes of the session changes nothing, and it closes its socket."""
    async with (
        proxied(nats_url) as (nats, behind_nats),
        proxied(redis_url) as (redis, behind_redis),
    ):
        cut_off = await edges.start(nats_url=behind_nats, redis_url=behind_redis)
        there = await edges.start()
        worker = Stepwise()
        older, session_id, seen = await begin(edges, cut_off, worker)
        await nats.cut()
        await redis.cut()
        newer = await connected(edges, there)
        assert seen.response_id is not None
        await resume(newer, session_id, {seen.response_id: seen.last})
        await worker.say(15)
        await read_until(newer, seen, last=4 + 24)
        await nats.mend()
        await redis.mend()
        assert await closed_with(older) == 4001
        await worker.say(15)
        await read_until(newer, seen)
        assert_whole(seen)
        newest = await connected(edges, there)
        assert (await resume(newest, session_id))["type"] == "session.resumed"
        assert await closed_with(newer) == 4001
        await newest.close()
        await cut_off.stop()


async def test_the_grace(edges: Edges) -> None:
    """A lost socket's response is cancelled after it, and no sooner."""
    edge = await edges.start(lost_socket_grace_s=0.6)
    edges.backend.generate = until_cancelled
    socket = await connected(edges, edge)
    await send(socket, "response.create", input="x")
    await receive(socket)
    socket.transport.abort()
    await asyncio.sleep(0.3)
    assert not await commanded(edges, edges.backend.jobs[0])
    await eventually_commanded(edges, edges.backend.jobs[0])


@pytest.mark.parametrize("how", ["session.resume", "response.resume", "retrieve", "background"])
async def test_not_cancelled(edges: Edges, how: str) -> None:
    """Whoever is followed elsewhere by then runs on, and so does what runs in the background."""
    here, there = [await edges.start(lost_socket_grace_s=GRACE_S) for _ in range(2)]
    edges.backend.generate = until_cancelled
    socket = await connected(edges, here)
    session_id = await start_session(socket)
    background = {"background": True} if how == "background" else {}
    await send(socket, "response.create", input="x", **background)
    created = await receive(socket)
    socket.transport.abort()
    other = await connected(edges, there)
    if how == "session.resume":
        assert (await resume(other, session_id))["type"] == "session.resumed"
    elif how == "response.resume":
        await send(other, "response.resume", response_id=created["response"]["id"])
        assert (await receive(other))["type"] == "response.created"
    async with AsyncExitStack() as stack:
        if how == "retrieve":
            await stack.enter_async_context(retrieving(edges, there, created["response"]["id"]))
        await asyncio.sleep(1.5 * GRACE_S)
        assert not await commanded(edges, edges.backend.jobs[0])
    if how == "retrieve":  # it has gone, too
        await eventually_commanded(edges, edges.backend.jobs[0])
    await other.close()


async def test_the_second_loss_counts_as_well(edges: Edges) -> None:
    """Resumed elsewhere and lost there, it is cancelled from there."""
    here, there = [await edges.start(lost_socket_grace_s=GRACE_S) for _ in range(2)]
    edges.backend.generate = until_cancelled
    socket = await connected(edges, here)
    session_id = await start_session(socket)
    await send(socket, "response.create", input="x")
    await receive(socket)
    socket.transport.abort()
    other = await connected(edges, there)
    await resume(other, session_id)
    await asyncio.sleep(1.5 * GRACE_S)
    assert not await commanded(edges, edges.backend.jobs[0])
    other.transport.abort()
    await eventually_commanded(edges, edges.backend.jobs[0])


async def test_closed_on_purpose_it_is_forgotten(edges: Edges) -> None:
    """1000 cancels at once, and there is nothing to come back to."""
    edge = await edges.start()
    edges.backend.generate = until_cancelled
    socket = await connected(edges, edge)
    session_id = await start_session(socket)
    await send(socket, "response.create", input="x")
    await receive(socket)
    await socket.close()
    await eventually_commanded(edges, edges.backend.jobs[0])
    other = await connected(edges, edge)
    assert (await resume(other, session_id))["error"]["code"] == "session_expired"
    await other.close()


async def test_an_idle_socket_costs_redis_nothing(edges: Edges, redis_url: str) -> None:
    """Only a session that had a response is written, and its content never is (I10)."""
    edge = await edges.start()
    socket = await connected(edges, edge)
    session_id = await start_session(socket)
    name = f"penstock:session:{edges.account.tenant.tenant}:{session_id}"
    redis = Redis.from_url(redis_url)
    assert not await redis.exists(name)
    edges.backend.generate = echo
    await send(socket, "response.create", input="a secret prompt")
    await read_until(socket, Seen("", ""))
    kept = await redis.hgetall(name)
    assert set(kept) == {b"term", b"holder", b"policy", b"responses"}
    assert "secret" not in str(kept)
    await redis.aclose()
    await socket.close()
