"""An edge that is told to stop in the middle of an answer: the session goes on at another one."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import websockets
from tests.support.edges import Edges
from tests.support.resuming_client import (
    Seen,
    assert_honest,
    open_socket,
    receive,
    send,
    start_session,
)
from tests.support.trickle import trickle
from websockets.asyncio.client import ClientConnection

PROMPT = "a sentence that takes its time, so that a drain comes into its middle. " * 12


async def test_a_drain_hands_its_sessions_over_without_a_gap(edges: Edges) -> None:
    """SIGTERM: 1012 once the grace is over, exit 0, and every number once over both (I3, I6)."""
    edges.backend.generate = trickle
    leaving = await edges.start_process(drain_grace_s=0.3)
    staying = await edges.start_process()
    socket = await open_socket(leaving.port, edges.account.secret)
    session_id = await start_session(socket)
    await send(socket, "response.create", input=PROMPT)
    seen = Seen("", PROMPT)
    while seen.text == "":
        seen.take(await receive(socket))
    leaving.signal(signal.SIGTERM)
    assert await until_closed(socket, seen) == 1012
    assert seen.end is None
    assert seen.response_id is not None
    assert await leaving.ended() == 0

    socket = await open_socket(staying.port, edges.account.secret)
    positions = {seen.response_id: seen.last}
    await send(socket, "session.resume", session_id=session_id, positions=positions)
    assert (await receive(socket))["type"] == "session.resumed"
    while seen.end is None:
        seen.take(await receive(socket))
    await socket.close()
    assert_honest(seen)
    assert seen.gaps == []


async def test_a_draining_edge_takes_nothing_new_and_finishes_what_runs(edges: Edges) -> None:
    """Within the grace a response ends where it began; a new one is told to go elsewhere (I1)."""
    edges.backend.generate = trickle
    leaving = await edges.start_process(drain_grace_s=20)
    socket = await open_socket(leaving.port, edges.account.secret)
    await send(socket, "response.create", input=PROMPT, stream_id="first")
    seen = Seen("first", PROMPT)
    while seen.text == "":
        seen.take(await receive(socket))
    leaving.signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        while await leaving.listens():  # it still takes connections: the drain has not begun
            await asyncio.sleep(0.005)
    await send(socket, "response.create", input="too late", stream_id="second")
    refused = []
    while seen.end is None:
        event = await receive(socket)
        if event.get("stream_id") == "first":
            seen.take(event)
        else:
            refused.append(event["error"]["code"])
    assert refused == ["draining"]
    assert_honest(seen)
    assert await until_closed(socket, seen) == 1012
    assert await leaving.ended() == 0


async def until_closed(socket: ClientConnection, seen: Seen) -> int | None:
    """Take every event there is; the close code."""
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            event = await receive(socket)
            if event["type"] != "error":  # one more refusal may be on its way
                seen.take(event)
    return socket.close_code
