"""Frames published on the bus, and when each arrives at a WebSocket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from benchmarks.harness.edge_bench import MODEL, RUN, TENANT, EdgeBench, Served
from benchmarks.harness.load import LoadError
from benchmarks.harness.raw_sockets import RawSocket, connect
from penstock_realtime.domain.rendering import FIRST_DELTA
from penstock_shared.contracts import subjects
from penstock_shared.contracts.ids import parse_request_id, uuid7
from penstock_shared.contracts.responses import encode_delta
from penstock_shared.runtime.broker import Broker

_CREATE: Final = json.dumps({"type": "response.create", "model": MODEL, "input": "x"}).encode()
_DELTA: Final = b'{"type":"response.output_text.delta"'
_ERROR: Final = b'{"type":"error"'
_CREATED: Final = b'{"type":"response.created"'
_WAIT_S: Final = 60.0


@dataclass(slots=True)
class Ear:
    """One socket that listens to one subject."""

    socket: RawSocket
    subject: str
    heard: int = 1
    """Deltas, the first included; an event that joins several counts as what it joins."""


@dataclass(slots=True)
class Fan:
    """So many sockets, and what they hear."""

    broker: Broker
    text: str
    ears: list[Ear] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=lambda: [0.0])
    """By number; the first delta is none of ours."""

    async def attach_edge(self, bench: EdgeBench, edge: Served, sockets: int) -> list[float]:
        """Responses that run on the edge, a socket each; how long each first delta took (s)."""
        url = f"ws://127.0.0.1:{edge.port}/v1/responses"
        opened = [await connect(url, bench.key) for _ in range(sockets)]
        return await asyncio.gather(*(self._created(socket) for socket in opened))

    async def _created(self, socket: RawSocket) -> float:
        first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        named: list[str] = []

        def on_frame(_: int, payload: bytes) -> None:
            if payload.startswith(_CREATED):
                named.append(json.loads(payload)["response"]["id"])
            elif payload.startswith(_DELTA):
                first.set_result(perf_counter())
            elif payload.startswith(_ERROR):
                first.set_exception(LoadError(payload[:600].decode()))

        socket.on_frame = on_frame
        sent_s = perf_counter()
        socket.send(_CREATE)
        async with asyncio.timeout(_WAIT_S):
            first_s = await first - sent_s
        ear = Ear(socket, subjects.responses(TENANT, parse_request_id(named[0])))
        socket.on_frame = self._edge_listener(ear)
        self.ears.append(ear)
        return first_s

    async def attach_plain(self, plain: Served, sockets: int) -> None:
        """Sockets of the peer, each on a subject of its own."""
        for n in range(sockets):
            loop = asyncio.get_running_loop()
            subscribed: asyncio.Future[None] = loop.create_future()

            def opened(_: int, __: bytes, done: asyncio.Future[None] = subscribed) -> None:
                done.set_result(None)

            subject = subjects.responses(TENANT, uuid7(n, os.urandom))
            socket = await connect(f"ws://127.0.0.1:{plain.port}/nats?{subject}", "", opened)
            async with asyncio.timeout(_WAIT_S):
                await subscribed
            ear = Ear(socket, subject)
            socket.on_frame = self._plain_listener(ear)
            self.ears.append(ear)

    async def pump(self, frames: int, window: int, pause_s: float = 0.0) -> float:
        """Publish frame after frame to all, at most `window` of them unheard; returns how long."""
        publish = self.broker.client.publish
        started_s, first = perf_counter(), len(self.sent_s)
        async with asyncio.timeout(_WAIT_S):
            for n in range(first, first + frames):
                self.sent_s.append(perf_counter())
                frame = encode_delta(1, RUN, n, self.text)
                for ear in self.ears:
                    await publish(ear.subject, frame)
                await asyncio.sleep(pause_s)
                await self._heard_by_all(n + 1 - window)
            await self._heard_by_all(first + frames)
        return perf_counter() - started_s

    def close(self) -> None:
        """Cut all sockets."""
        for ear in self.ears:
            if ear.socket.transport is not None:
                ear.socket.transport.abort()

    async def _heard_by_all(self, count: int) -> None:
        while any(ear.heard < count for ear in self.ears):  # noqa: ASYNC110  counters
            await asyncio.sleep(0.0005)

    def _edge_listener(self, ear: Ear) -> Callable[[int, bytes], None]:
        def on_frame(_: int, payload: bytes) -> None:
            if payload.startswith(_DELTA):
                last = _number(payload) - FIRST_DELTA
                self._note(ear, last)

        return on_frame

    def _plain_listener(self, ear: Ear) -> Callable[[int, bytes], None]:
        def on_frame(_: int, __: bytes) -> None:
            self._note(ear, ear.heard)

        return on_frame

    def _note(self, ear: Ear, number: int) -> None:
        ear.heard = number + 1
        self.delays_s.append(perf_counter() - self.sent_s[number])


def _number(event: bytes) -> int:
    """An event's `sequence_number`, without parsing the rest."""
    start = event.index(b'"sequence_number":') + 18
    return int(event[start : event.index(b",", start)])
