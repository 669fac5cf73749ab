"""Edges that die, or freeze, while clients listen; and what becomes of what they were following.

`PENSTOCK_FAULT_SEED=<n>` replays prompts, moments and victims.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator

import pytest
from nats.js import errors as js_errors
from redis.asyncio import Redis
from redis.exceptions import RedisError
from tests.support.edges import EdgeProcess, Edges
from tests.support.realtime_backend import until_cancelled
from tests.support.resuming_client import (
    ResumingClient,
    assert_honest,
    open_socket,
    receive,
    send,
    start_session,
)
from tests.support.stack import Stack
from tests.support.trickle import ask_all, chosen_rng, trickle
from tests.support.worker_rig import until

from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.streams import CONTROL, RESPONSES
from penstock_shared.runtime.provision import provision_volatile

CLIENTS = 4
GRACE_S = 2.0


@contextlib.asynccontextmanager
async def meanwhile(work: object) -> AsyncIterator[None]:
    """Something that goes on beside, until the end."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload] # a coroutine
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Fleet:
    """Edges that are killed one after the other, each while somebody uses it."""

    def __init__(self, edges: Edges, rng: random.Random) -> None:
        self._edges = edges
        self._rng = rng
        self._live: list[EdgeProcess] = []
        self._last = 0

    async def start(self, count: int) -> None:
        """So many more, side by side."""
        self._live += await asyncio.gather(*(self._edges.start_process() for _ in range(count)))

    def port(self) -> int:
        """Where a client tries next; the edge may be dead by then."""
        self._last = self._rng.choice(self._live).port
        return self._last

    async def die(self, *, replaced: bool) -> None:
        """All but one, or for ever if others take their places."""
        while len(self._live) > 1:
            await asyncio.sleep(self._rng.uniform(0.2, 1.5))
            victim = next((edge for edge in self._live if edge.port == self._last), self._live[0])
            await victim.kill()
            self._live.remove(victim)
            if replaced:
                await self.start(1)


async def load(edges: Edges, fleet: Fleet, rng: random.Random, responses: int) -> int:
    """Every answer is honest and whole, whatever dies; how many gaps were told."""
    edges.backend.generate = trickle
    clients = [ResumingClient(fleet.port, edges.account.secret) for _ in range(CLIENTS)]
    asked = await asyncio.gather(
        *(ask_all(one, random.Random(rng.random()), responses // CLIENTS) for one in clients)
    )
    seen = list(itertools.chain(*asked))
    for one in seen:
        assert_honest(one)
    reconnects, gaps = sum(one.reconnects for one in clients), sum(len(one.gaps) for one in seen)
    print(f"{responses} responses, {reconnects} reconnects, {gaps} gaps")
    assert reconnects, "the kills met nobody"
    return gaps


async def lose_responses(edges: Edges, rng: random.Random) -> None:
    """What a broker's restart does to the memory stream."""
    while True:
        await asyncio.sleep(rng.uniform(2.0, 6.0))
        with contextlib.suppress(js_errors.NotFoundError):
            await edges.broker.jetstream.delete_stream(RESPONSES)
        await provision_volatile(edges.broker)


@pytest.mark.timeout(120)
async def test_kill_9_under_load(edges: Edges) -> None:
    """Clients go on at another instance, with nothing lost and nothing repeated (I6)."""
    rng = chosen_rng()
    fleet = Fleet(edges, rng)
    await fleet.start(3)
    async with meanwhile(fleet.die(replaced=False)):
        assert not await load(edges, fleet, rng, 40)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_kill_9_under_load_for_long(edges: Edges) -> None:
    """The same for longer, while RESPONSES is lost now and then: what is gone is told as a gap."""
    rng = chosen_rng()
    fleet = Fleet(edges, rng)
    await fleet.start(3)
    async with (
        meanwhile(fleet.die(replaced=True)),
        meanwhile(lose_responses(edges, rng)),
    ):
        await load(edges, fleet, rng, 800)


@pytest.mark.timeout(120)
async def test_redis_dies_empty_in_mid_stream(edges: Edges, servers: Stack, redis_url: str) -> None:
    """Killed, restarted and flushed: the streams that run do not notice (I9)."""
    rng = chosen_rng()
    edges.backend.generate = trickle
    edge = await edges.start()

    async def flush() -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            with contextlib.suppress(KeyError, ProcessLookupError, RedisError):
                servers.kill("redis")  # nothing, while the supervisor starts it again
                async with Redis.from_url(redis_url) as redis:
                    await redis.flushall()

    client = ResumingClient(lambda: edge.http_port, edges.account.secret)
    async with meanwhile(flush()):
        for seen in await ask_all(client, rng, 24):
            assert_honest(seen)
            assert not seen.gaps
    assert not client.reconnects


async def test_after_a_flush_the_session_is_back_within_a_beat(
    edges: Edges, redis_url: str
) -> None:
    """Sessions whose sockets are open are written again; nothing needs them in between (I9)."""
    here, there = [await edges.start(lost_socket_grace_s=GRACE_S) for _ in range(2)]
    edges.backend.generate = until_cancelled
    socket = await open_socket(here.http_port, edges.account.secret)
    session_id = await start_session(socket)
    await send(socket, "response.create", input="x")
    await receive(socket)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    other = await open_socket(there.http_port, edges.account.secret)
    await send(other, "session.resume", session_id=session_id)
    assert (await receive(other))["error"]["code"] == "session_expired"

    async def resumed() -> bool:
        await send(other, "session.resume", session_id=session_id)
        return bool((await receive(other))["type"] == "session.resumed")

    await until(resumed, 3 * GRACE_S)
    await other.close()


async def commanded(edges: Edges, job: Job) -> bool:
    subject = subjects.control(job.tenant, job.request_id)
    return await edges.broker.last_message(CONTROL, subject) is not None


@pytest.mark.timeout(120)
async def test_a_dead_instances_responses_are_cancelled(edges: Edges) -> None:
    """Another instance does so after the grace, but for those that are followed elsewhere by then.

    What runs in the background is nobody's to cancel.
    """
    edges.backend.generate = until_cancelled
    victim = await edges.start_process(lost_socket_grace_s=GRACE_S)
    survivors = [await edges.start(lost_socket_grace_s=GRACE_S) for _ in range(2)]
    names = ("left alone", "resumed", "response resumed", "background")
    jobs: dict[str, Job] = {}
    sessions: dict[str, tuple[str, str]] = {}
    for name in names:
        socket = await open_socket(victim.port, edges.account.secret)
        session_id = await start_session(socket)
        background = {"background": True} if name == "background" else {}
        await send(socket, "response.create", input=name, **background)
        created = await receive(socket)
        jobs[name] = edges.backend.jobs[-1]
        sessions[name] = (session_id, created["response"]["id"])
    await victim.kill()
    port = survivors[0].http_port
    back = [await open_socket(port, edges.account.secret) for _ in range(2)]
    await send(back[0], "session.resume", session_id=sessions["resumed"][0])
    await send(back[1], "response.resume", response_id=sessions["response resumed"][1])
    assert not await commanded(edges, jobs["left alone"])

    async def cancelled() -> bool:
        return await commanded(edges, jobs["left alone"])

    await until(cancelled, 30)
    await asyncio.sleep(GRACE_S)
    assert [name for name in names if await commanded(edges, jobs[name])] == ["left alone"]
    for socket in back:
        await socket.close()


@pytest.mark.timeout(120)
async def test_an_instance_that_was_frozen_keeps_its_responses(edges: Edges) -> None:
    """It missed its heartbeats, but it answers again before the grace is over."""
    grace_s = 4.0
    edges.backend.generate = until_cancelled
    frozen = await edges.start_process(lost_socket_grace_s=grace_s)
    await edges.start(lost_socket_grace_s=grace_s)
    socket = await open_socket(frozen.port, edges.account.secret)
    await send(socket, "response.create", input="x")
    await receive(socket)
    frozen.freeze()
    await asyncio.sleep(grace_s * 0.6)
    frozen.thaw()
    await asyncio.sleep(grace_s * 1.5)
    assert not await commanded(edges, edges.backend.jobs[0])
    await socket.close()
