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


async def load(edges: Edges, ports: list[int], rng: random.Random, responses: int) -> list[int]:
    """Every answer is honest and whole, whatever dies; how many gaps were told, per client."""
    edges.backend.generate = trickle
    secret = edges.account.secret
    clients = [ResumingClient(lambda: rng.choice(ports), secret) for _ in range(CLIENTS)]
    seen = await asyncio.gather(
        *(ask_all(one, random.Random(rng.random()), responses // CLIENTS) for one in clients)
    )
    for one in itertools.chain(*seen):
        assert_honest(one)
    assert sum(client.reconnects for client in clients)
    return [sum(len(one.gaps) for one in of_client) for of_client in seen]


async def kill_in_turn(
    edges: Edges, live: list[EdgeProcess], ports: list[int], rng: random.Random
) -> None:
    """One dies at a time, and another one takes its place."""
    while True:
        await asyncio.sleep(rng.uniform(0.3, 2.0))
        victim = rng.randrange(len(live))
        await live[victim].kill()
        live[victim] = await edges.start_process()
        ports[victim] = live[victim].port


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
    live = [await edges.start_process() for _ in range(2)]
    ports = [edge.port for edge in live]
    async with meanwhile(kill_in_turn(edges, live, ports, rng)):
        assert not any(await load(edges, ports, rng, 40))


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_kill_9_under_load_for_long(edges: Edges) -> None:
    """The same for longer, while RESPONSES is lost now and then: what is gone is told as a gap."""
    rng = chosen_rng()
    live = [await edges.start_process() for _ in range(3)]
    ports = [edge.port for edge in live]
    async with (
        meanwhile(kill_in_turn(edges, live, ports, rng)),
        meanwhile(lose_responses(edges, rng)),
    ):
        print("gaps", await load(edges, ports, rng, 800))


@pytest.mark.timeout(120)
async def test_redis_dies_empty_in_mid_stream(edges: Edges, servers: Stack, redis_url: str) -> None:
    """Killed, restarted and flushed: the streams that run do not notice (I9)."""
    rng = chosen_rng()
    edges.backend.generate = trickle
    edge = await edges.start()

    async def flush() -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            servers.kill("redis")
            with contextlib.suppress(Exception):
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
