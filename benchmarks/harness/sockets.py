"""WebSocket clients that cost little: they share their cores with what they measure.

The protocol is the `websockets` library's sans-I/O one (RFC 6455) over raw asyncio transports on
uvloop. Of an event it reads the type, and of the last one the usage. A closed loop: each client
sends its next request when the last response is complete.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any, Final, cast

import uvloop
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from benchmarks.harness.load import LoadError

_DELTA: Final = b'{"type":"response.output_text.delta"'
_ENDS: Final = (b'{"type":"response.completed"', b'{"type":"response.incomplete"')
_FAILURES: Final = (b'{"type":"error"', b'{"type":"response.failed"')
_DRAIN_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Streamed:
    """What all clients saw together."""

    tokens: int
    deltas: int
    duration_s: float
    first_token_s: tuple[float, ...]
    client_cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        """Delivered, from the first request sent to the last response complete."""
        return self.tokens / self.duration_s


class _Client(asyncio.Protocol):
    """One socket that works through its requests."""

    def __init__(
        self, url: str, key: str, requests: Sequence[bytes], done: asyncio.Future[None]
    ) -> None:
        self._socket = ClientProtocol(parse_uri(url))
        self._key = key
        self._requests = iter(requests)
        self._done = done
        self._sent_s = 0.0
        self._waiting = False
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first_token_s: list[float] = []
        self.tokens = 0
        self.deltas = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        request = self._socket.connect()
        request.headers["Authorization"] = f"Bearer {self._key}"
        self._socket.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._text(bytes(event.data))
            elif isinstance(event, Response) and self._socket.handshake_exc is None:
                self.opened.set_result(None)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._fail("the connection was closed")

    def send_next(self) -> None:
        """The next request, or the end."""
        request = next(self._requests, None)
        if request is None:
            self._done.set_result(None)
            self._socket.send_close(1000)
        else:
            self._socket.send_text(request)
            self._sent_s, self._waiting = perf_counter(), True
        self._flush()

    def _text(self, data: bytes) -> None:
        if data.startswith(_DELTA):
            self.deltas += 1
            if self._waiting:
                self._waiting = False
                self.first_token_s.append(perf_counter() - self._sent_s)
        elif data.startswith(_ENDS):
            self.tokens += json.loads(data)["response"]["usage"]["output_tokens"]
            self.send_next()
        elif data.startswith(_FAILURES):
            self._fail(data[:600].decode(errors="replace"))

    def _fail(self, why: str) -> None:
        for waited_for in (self.opened, self._done):
            if not waited_for.done():
                waited_for.set_exception(LoadError(why))

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._socket.data_to_send():
            if data:
                self._transport.write(data)


def stream(url: str, key: str, clients: int, bodies: Sequence[dict[str, Any]]) -> Streamed:
    """Share the requests among so many clients; the clock runs from when all are connected.

    Raises:
        LoadError: a response failed, or a socket was closed.
        TimeoutError: a response never ended.
    """
    requests = [json.dumps({"type": "response.create", **body}).encode() for body in bodies]
    return uvloop.run(_stream(url, key, [requests[i::clients] for i in range(clients)]))


async def _stream(url: str, key: str, shares: Sequence[Sequence[bytes]]) -> Streamed:
    loop = asyncio.get_running_loop()
    place = parse_uri(url)
    clients, ends = [], []
    for share in shares:
        done: asyncio.Future[None] = loop.create_future()
        client = _Client(url, key, share, done)
        await loop.create_connection(lambda c=client: c, place.host, place.port)  # type: ignore[misc]
        await client.opened
        clients.append(client)
        ends.append(done)
    started_s, cpu_before_s = perf_counter(), process_time()
    for client in clients:
        client.send_next()
    async with asyncio.timeout(_DRAIN_S):
        await asyncio.gather(*ends)
    return Streamed(
        tokens=sum(client.tokens for client in clients),
        deltas=sum(client.deltas for client in clients),
        duration_s=perf_counter() - started_s,
        first_token_s=tuple(value for client in clients for value in client.first_token_s),
        client_cpu_s=process_time() - cpu_before_s,
    )
