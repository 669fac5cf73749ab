"""A WebSocket and what is thrown at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import websockets
from tests.support.realtime import Edge, StartEdge, revoke, suspend
from tests.support.realtime_backend import until_cancelled
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection


async def open_socket(edge: Edge) -> ClientConnection:
    url = f"{edge.base_url.replace('http', 'ws')}/responses"
    headers = {"authorization": f"Bearer {edge.account.secret}"}
    return await connect(url, additional_headers=headers)


async def read_all(socket: Connection) -> tuple[list[str], int]:
    """The types of all events until the socket is closed, and the code it was closed with."""
    kinds = []
    try:
        while True:
            kinds.append(json.loads(await socket.recv())["type"])
    except websockets.ConnectionClosed as closed:
        return kinds, closed.rcvd.code if closed.rcvd else 0


@pytest.fixture
async def socket(edge: Edge) -> AsyncIterator[ClientConnection]:
    connected = await open_socket(edge)
    yield connected
    await connected.close()


@pytest.mark.parametrize(
    ("frame", "code", "status"),
    [
        (b"\x00\x01", "binary_frame", 400),
        ("{not json", "invalid_json", 400),
        ("[1]", "invalid_json", 400),
        ('{"type":"response.steer"}', "unknown_event", 400),
        ("{}", "unknown_event", 400),
        ('{"type":"response.create"}', "missing_required_parameter", 400),
        ('{"type":"response.create","input":"x","wat":1}', "unknown_parameter", 400),
        ('{"type":"response.create","input":"x","stream_id":7}', "invalid_type", 400),
        ('{"type":"response.create","input":"x","model":"nope"}', "model_not_found", 404),
        ('{"type":"response.cancel"}', "missing_required_parameter", 400),
        ('{"type":"response.cancel","response_id":"resp_1"}', "invalid_value", 400),
    ],
)
async def test_what_is_wrong_is_said_and_the_socket_stays(socket, frame, code, status) -> None:
    """Hostile input gets an error event in the API's format; the next request is served."""
    await socket.send(frame)
    error = json.loads(await asyncio.wait_for(socket.recv(), 5))
    assert error["type"] == "error"
    assert (error["error"]["code"], error["status"]) == (code, status)
    await socket.send('{"type":"response.create","input":"still here"}')
    async with asyncio.timeout(5):
        while (event := json.loads(await socket.recv()))["type"] != "response.completed":
            pass
    assert event["response"]["output"][0]["content"][0]["text"] == "still here"


async def test_a_frame_that_is_too_large_closes_with_1009(socket) -> None:
    """The limit holds before the frame is in memory."""
    await socket.send("x" * 2_000_000)
    assert await asyncio.wait_for(read_all(socket), 5) == ([], 1009)


async def test_too_many_side_by_side(start_edge: StartEdge) -> None:
    """One socket cannot start responses without end; it may start the next when one ends."""
    edge = await start_edge(max_responses_per_socket=1)
    edge.backend.generate = until_cancelled
    async with await open_socket(edge) as socket:
        await socket.send('{"type":"response.create","input":"one"}')
        await socket.send('{"type":"response.create","input":"two"}')
        async with asyncio.timeout(5):
            while (event := json.loads(await socket.recv()))["type"] != "error":
                pass
        assert event["status"] == 429
        assert event["error"]["headers"]["retry-after"]


@pytest.mark.parametrize("cut", [revoke, suspend])
async def test_revocation_closes_the_socket_within_a_second(edge: Edge, cut) -> None:
    """A revoked key, or a suspended tenant's, ends its live sockets (I8), with no reconnecting."""
    edge.backend.generate = until_cancelled
    async with await open_socket(edge) as socket:
        await socket.send('{"type":"response.create","input":"x"}')
        await socket.recv()
        await cut(edge.broker, edge.account)
        _, code = await asyncio.wait_for(read_all(socket), 1)
        assert code == 1008
    with pytest.raises(websockets.InvalidStatus):
        await open_socket(edge)


async def test_a_drain_lets_responses_end_and_closes_with_1012(edge: Edge) -> None:
    """What runs ends with its answer; then the socket says "restart"; nobody new comes in."""
    release = asyncio.Event()

    async def slow(backend, job, prompt) -> None:
        await release.wait()
        await backend.delta(job, "0190e0f0-0000-7000-8000-000000000000", 0, prompt)
        await backend.end(job, "0190e0f0-0000-7000-8000-000000000000", [prompt])

    edge.backend.generate = slow
    idle, busy = await open_socket(edge), await open_socket(edge)
    await busy.send('{"type":"response.create","input":"finish me"}')
    await busy.recv()
    draining = asyncio.create_task(edge.app.drain())
    assert await asyncio.wait_for(read_all(idle), 5) == ([], 1012)
    with pytest.raises(ConnectionRefusedError):
        await open_socket(edge)
    release.set()
    kinds, code = await asyncio.wait_for(read_all(busy), 5)
    assert (kinds[-1], code) == ("response.completed", 1012)
    await draining
