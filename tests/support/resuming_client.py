"""A WebSocket client that comes back, and holds every event against what I6 promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import websockets
from tests.support.realtime_backend import split
from websockets.asyncio.client import ClientConnection, connect

FIRST_DELTA = 4
"""The sequence number of a response's first delta."""
_ENDS = {"response.completed", "response.incomplete", "response.failed", "error"}
_AGAIN_AFTER_S = 0.02


@dataclass
class Seen:
    """One response as the client has it."""

    stream_id: str
    prompt: str
    response_id: str | None = None
    last: int = -1
    text: str = ""
    ranges: list[tuple[int, int, str]] = field(default_factory=list)
    """Text by the numbers of its first and last delta, from 0."""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    kinds: list[str] = field(default_factory=list)

    def take(self, event: dict[str, Any]) -> None:
        """Numbers never repeat or go back, and none is left out without a gap event."""
        kind = event["type"]
        self.kinds.append(kind)
        if kind == "error":
            raise AssertionError(event)
        number = event["sequence_number"]
        first = event.get("first_sequence_number", number)
        assert first == self.last + 1, (self.last, event, self.kinds[-8:])
        assert number >= first, event
        self.last = number
        if kind == "response.created":
            self.response_id = event["response"]["id"]
        elif kind == "response.output_text.delta":
            self.text += event["delta"]
            self.ranges.append((first - FIRST_DELTA, number - FIRST_DELTA, event["delta"]))
        elif kind == "penstock.gap":
            self.gaps.append(event)
        if kind in _ENDS:
            self.end = event


def assert_honest(seen: Seen) -> None:
    """Every piece is what the worker said under its numbers, and only gap events leave out any."""
    pieces = split(seen.prompt)
    for first, last, text in seen.ranges:
        assert text == "".join(pieces[first : last + 1]), (first, last)
    assert seen.end is not None
    assert seen.end["type"] == "response.completed", seen.end
    assert seen.end["response"]["output"][0]["content"][0]["text"] == seen.prompt
    if not seen.gaps:
        assert seen.text == seen.prompt


async def open_socket(port: int, secret: str) -> ClientConnection:
    """A bare WebSocket."""
    return await connect(
        f"ws://127.0.0.1:{port}/v1/responses",
        additional_headers={"authorization": f"Bearer {secret}"},
        ping_interval=None,
        compression=None,
        open_timeout=5,
        close_timeout=1,
    )


async def receive(socket: ClientConnection, within_s: float = 10.0) -> dict[str, Any]:
    """The next event."""
    event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), within_s))
    return event


async def send(socket: ClientConnection, kind: str, **fields: Any) -> None:
    """One event."""
    await socket.send(json.dumps({"type": kind, **fields}))


async def start_session(socket: ClientConnection, **fields: Any) -> str:
    """The id of the session that this socket holds."""
    await send(socket, "session.start", **fields)
    event = await receive(socket)
    assert event["type"] == "session.started", event
    return str(event["session"]["id"])


class ResumingClient:
    """Asks for responses side by side, and resumes its session wherever `port` says next."""

    def __init__(self, port: Callable[[], int], secret: str) -> None:
        self._port = port
        self._secret = secret
        self._session_id: str | None = None
        self._asked: dict[str, Seen] = {}
        """By stream id."""
        self._by_id: dict[str, Seen] = {}
        self.reconnects = 0
        self._stored = False
        """The session has had a response: an empty one lives on its socket only."""
        self.expired = 0
        """Sessions that had a response and were not found."""

    async def ask(self, prompts: dict[str, str]) -> list[Seen]:
        """Every answer, however often the connection breaks; prompts by stream id."""
        asked = [Seen(stream_id, prompt) for stream_id, prompt in prompts.items()]
        self._asked |= {seen.stream_id: seen for seen in asked}
        while self._unfinished():
            try:
                socket = await open_socket(self._port(), self._secret)
            except (OSError, TimeoutError, websockets.InvalidHandshake, EOFError):
                await asyncio.sleep(_AGAIN_AFTER_S)
                continue
            try:
                await self._use(socket)
            except (websockets.ConnectionClosed, TimeoutError):
                self.reconnects += 1
            finally:
                socket.transport.abort()  # 1000 would end the session
        return asked

    def _unfinished(self) -> list[Seen]:
        return [seen for seen in self._asked.values() if seen.end is None]

    async def _use(self, socket: ClientConnection) -> None:
        known = {s.response_id: s.last for s in self._unfinished() if s.response_id}
        if self._session_id is None:
            self._session_id = await start_session(socket)
            for response_id, last in known.items():  # without a session they can still be had
                await send(socket, "response.resume", response_id=response_id, starting_after=last)
            listed: set[str] = set()
        else:
            await send(socket, "session.resume", session_id=self._session_id, positions=known)
            event = await receive(socket)
            if event["type"] == "error":
                await self._refused(event)
                return
            assert event["type"] == "session.resumed", event
            listed = await self._pick_up(socket, event["responses"])
        for seen in self._unfinished():
            if seen.response_id is None and seen.stream_id not in listed:
                fields = {"input": seen.prompt, "stream_id": seen.stream_id}
                await send(socket, "response.create", **fields)
        while self._unfinished():
            self._take(await receive(socket, 30))

    async def _pick_up(self, socket: ClientConnection, responses: list[dict[str, Any]]) -> set[str]:
        """Go on with those that began while nobody listened; returns their names."""
        waiting = {seen.stream_id for seen in self._unfinished() if seen.response_id is None}
        unheard = {one["stream_id"]: one["response_id"] for one in responses}
        for stream_id in waiting & unheard.keys():
            fields = {"response_id": unheard[stream_id], "stream_id": stream_id}
            await send(socket, "response.resume", **fields)
        return waiting & unheard.keys()

    async def _refused(self, event: dict[str, Any]) -> None:
        code = event["error"]["code"]
        if code == "session_expired":
            self.expired += self._stored
            self._session_id, self._stored = None, False
        else:
            assert event["status"] == 503, event
            await asyncio.sleep(_AGAIN_AFTER_S)

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "response.created":
            self._stored = True
            seen = self._asked[event["stream_id"]]
            self._by_id[event["response"]["id"]] = seen
        seen = self._of(event)
        seen.take(event)

    def _of(self, event: dict[str, Any]) -> Seen:
        if event.get("stream_id") is not None:
            return self._asked[event["stream_id"]]
        named = event.get("response_id") or event.get("response", {}).get("id")
        item_id = event.get("item_id") or event.get("item", {}).get("id")
        return self._by_id[named or f"resp_{item_id.partition('_')[2]}"]
