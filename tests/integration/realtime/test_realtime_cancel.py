"""Who stops a response, and how: each way ends in one command that the holder obeys (I3)."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.support.realtime import Edge, StartEdge
from tests.support.realtime_backend import Backend, echo, until_cancelled
from websockets.asyncio.client import connect

from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.streams import CONTROL


async def commanded(edge: Edge) -> bool:
    """Whether the first job's cancellation stands in CONTROL."""
    job = edge.backend.jobs[0]
    subject = subjects.control(job.tenant, job.request_id)
    return await edge.broker.last_message(CONTROL, subject) is not None


async def eventually_commanded(edge: Edge, within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not edge.backend.jobs or not await commanded(edge):
            await asyncio.sleep(0.02)


async def test_post_cancel(edge: Edge) -> None:
    """`POST …/cancel` answers with the response as it ended, its tokens counted."""
    edge.backend.generate = until_cancelled
    async with edge.client() as client:
        stream = await client.responses.create(input="long", stream=True)
        created = await anext(aiter(stream))
        cancelled = await client.responses.cancel(created.response.id)
        rest = [event async for event in stream]
        again = await client.responses.cancel(created.response.id)
    assert cancelled.status == again.status == "cancelled"
    assert cancelled.output_text == "Hel"
    assert cancelled.usage.output_tokens == 1
    assert rest[-1].type == "response.incomplete"
    assert rest[-1].response.status == "cancelled"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_closed_http_connection_cancels(edge: Edge, stream: bool) -> None:  # noqa: FBT001
    """A client that goes away stops the generation that nobody waits for."""
    edge.backend.generate = until_cancelled
    async with edge.http() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("responses", json={"input": "x", "stream": stream}, timeout=0.5)
    await eventually_commanded(edge)


async def test_a_client_with_a_key_may_come_back(edge: Edge) -> None:
    """With an idempotency key a lost connection cancels nothing: the retry gets the answer."""
    release = asyncio.Event()

    async def slow(backend: Backend, job: Job, prompt: str) -> None:
        await release.wait()
        await echo(backend, job, prompt)

    edge.backend.generate = slow
    headers = {"idempotency-key": "back"}
    async with edge.http() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("responses", json={"input": "x"}, headers=headers, timeout=0.5)
        await asyncio.sleep(0.2)
        assert not await commanded(edge)
        release.set()
        answer = await client.post("responses", json={"input": "x"}, headers=headers)
    assert answer.json()["status"] == "completed"
    assert len(edge.backend.jobs) == 1


async def test_response_cancel_over_websocket(edge: Edge) -> None:
    """`response.cancel` stops one response and leaves the socket open."""
    edge.backend.generate = until_cancelled
    async with edge.client() as client, client.responses.connect() as connection:
        await connection.send({"type": "response.create", "input": "long"})
        created = await connection.recv()
        await connection.send({"type": "response.cancel", "response_id": created.response.id})
        async for event in connection:
            if event.type == "response.incomplete":
                assert event.response.status == "cancelled"
                break
        await connection.send({"type": "response.cancel", "response_id": created.response.id})
        error = await connection.recv()
        assert error.type == "error"
        assert error.error.code == "response_not_found"


async def test_closing_with_1000_cancels(edge: Edge) -> None:
    """A socket that its client closes on purpose takes its responses along."""
    edge.backend.generate = until_cancelled
    async with edge.client() as client, client.responses.connect() as connection:
        await connection.send({"type": "response.create", "input": "long"})
        await connection.recv()
    await eventually_commanded(edge)


async def test_a_lost_socket_has_a_grace(start_edge: StartEdge) -> None:
    """A socket lost in any other way lets its responses go on for a while, then cancels them."""
    edge = await start_edge(lost_socket_grace_s=0.7)
    edge.backend.generate = until_cancelled
    headers = {"authorization": f"Bearer {edge.account.secret}"}
    url = f"{edge.base_url.replace('http', 'ws')}/responses"
    socket = await connect(url, additional_headers=headers)
    await socket.send('{"type":"response.create","input":"long"}')
    await socket.recv()
    socket.transport.abort()
    await asyncio.sleep(0.3)
    assert not await commanded(edge)
    await eventually_commanded(edge)
