"""A load client that costs little: it shares its cores with what it measures.

HTTP/1.1 (RFC 9112) with keep-alive over raw asyncio protocols on uvloop. Requests are bytes made
once; of a response it reads the status, `content-length` and whether a given mark is in the body.
A closed loop: each connection sends its next request when the answer to its last one is complete.
"""

from __future__ import annotations

import asyncio
import json
import resource
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.harness.arithmetic import percentile

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_DRAIN_S: Final = 30.0


class LoadError(Exception):
    """The server answered something else than what is being measured."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent again and again, and how a right answer is known."""

    host: str
    port: int
    request: bytes
    mark: bytes

    @classmethod
    def post(cls, url: str, key: str, body: dict[str, Any], mark: str) -> Call:
        """A JSON POST with a bearer key; `mark` must occur in the body of every answer."""
        parts, payload = urlsplit(url), json.dumps(body).encode()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        return cls(parts.hostname or "", parts.port or 80, head.encode() + payload, mark.encode())


@dataclass(frozen=True, slots=True)
class Measured:
    """What one stretch of load saw."""

    requests: int
    duration_s: float
    latencies_s: tuple[float, ...]
    client_cpu_s: float

    def row(self) -> dict[str, float]:
        """Its figures, in the units that people compare."""
        return {
            "requests_per_s": self.requests / self.duration_s,
            "p50_ms": percentile(self.latencies_s, 0.5) * 1000,
            "p99_ms": percentile(self.latencies_s, 0.99) * 1000,
        }


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, call: Call, stop_at_s: float, done: asyncio.Future[None]) -> None:
        self._call = call
        self._stop_at_s = stop_at_s
        self._done = done
        self._buffer = b""
        self._sent_s = 0.0
        self._transport: asyncio.Transport | None = None
        self.latencies_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(_LENGTH)
        if at < 0 or not head.startswith(b"http/1.1 200"):
            self._fail(self._buffer)
            return
        length = int(head[at + len(_LENGTH) :].split(b"\r", 1)[0])
        if len(self._buffer) < head_end + len(_HEAD_END) + length:
            return
        now_s = perf_counter()
        if self._call.mark not in self._buffer:
            self._fail(self._buffer)
            return
        self.latencies_s.append(now_s - self._sent_s)
        self._buffer = b""
        if now_s < self._stop_at_s:
            self._send()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._done.done():
            self._fail(b"the connection was closed")

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_s = perf_counter()
        self._transport.write(self._call.request)

    def _fail(self, answer: bytes) -> None:
        if not self._done.done():
            self._done.set_exception(LoadError(answer[:600].decode(errors="replace")))
        self._end()

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def _measure(call: Call, concurrency: int, duration_s: float) -> Measured:
    loop = asyncio.get_running_loop()
    started_s, cpu_before_s = perf_counter(), _own_cpu_s()
    connections, ends = [], []
    for _ in range(concurrency):
        done: asyncio.Future[None] = loop.create_future()
        connection = _Connection(call, started_s + duration_s, done)
        await loop.create_connection(lambda c=connection: c, call.host, call.port)  # type: ignore[misc]
        connections.append(connection)
        ends.append(done)
    async with asyncio.timeout(duration_s + _DRAIN_S):
        await asyncio.gather(*ends)
    latencies_s = tuple(value for one in connections for value in one.latencies_s)
    return Measured(
        requests=len(latencies_s),
        duration_s=perf_counter() - started_s,
        latencies_s=latencies_s,
        client_cpu_s=_own_cpu_s() - cpu_before_s,
    )


def measure(call: Call, concurrency: int, duration_s: float) -> Measured:
    """Keep `concurrency` requests running for `duration_s`.

    Raises:
        LoadError: an answer was not a 200 with the mark in its body.
        TimeoutError: an answer never came.
    """
    return uvloop.run(_measure(call, concurrency, duration_s))


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
