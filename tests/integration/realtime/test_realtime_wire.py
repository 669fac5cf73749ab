"""What one connection may cost, on the wire: time, memory, places; and answers, never a 500."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tests.support.websocket_wire import HANDSHAKE

from penstock_realtime.http.body import read_body
from penstock_realtime.http.errors import error_response
from penstock_realtime.http.protocol import WireLimits, server_options
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.http_server import HttpServer

POST = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
GET = b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass
class Served:
    """An edge's server around an application that can be told to wait."""

    server: HttpServer
    go: asyncio.Event = field(default_factory=asyncio.Event)
    lost: int = 0
    """Requests whose client left before the answer."""
    running: int = 0
    """Requests that are being answered."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        self.running += 1
        try:
            await self.answer(scope, receive, send)
        finally:
            self.running -= 1

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await read_body(request, 1000)
        except PenstockError as error:
            await error_response(error)(scope, receive, send)
            return
        if scope["path"] == "/wait":
            wait = asyncio.create_task(self.go.wait())
            gone = asyncio.create_task(_left(receive))
            await asyncio.wait((wait, gone), return_when=asyncio.FIRST_COMPLETED)
            self.lost += not self.go.is_set()
            wait.cancel()
            gone.cancel()
        if scope["path"] == "/named":
            body = request.headers.get("x-forwarded-for", "nobody").encode()
        body = b"*" * 300_000 if scope["path"] == "/large" else body
        await Response(body or b"nothing")(scope, receive, send)


async def _left(receive: Receive) -> None:
    await receive()


@asynccontextmanager
async def serve(**limits: Any) -> AsyncIterator[Served]:
    options = server_options(2048, 4096, limits=WireLimits(**limits))
    served: Served

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await served.app(scope, receive, send)

    served = Served(HttpServer(app, "127.0.0.1", 0, **options))
    await served.server.start()
    yield served
    served.go.set()
    await served.server.stop(0.1)


@asynccontextmanager
async def connected(
    served: Served,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    async with asyncio.timeout(20):
        yield reader, writer
    writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One whole answer: every one of them has a length here."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.rstrip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers, body


async def refused(reader: asyncio.StreamReader, status: int, code: str) -> None:
    """An error in the API's format, dressed like all answers, and the end of the connection."""
    found, headers, body = await answer(reader)
    assert (found, json.loads(body)["error"]["code"]) == (status, code)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["connection"] == "close"
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("head", "more"), [(b"GET / HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n"), (b"GET /", b"x")]
)
async def test_a_head_that_never_ends(head: bytes, more: bytes) -> None:
    """Slowloris: one header now and then does not keep a connection (408)."""
    async with serve(head_timeout_s=0.4) as served, connected(served) as (reader, writer):
        started_s = time.monotonic()
        writer.write(head)
        drip = asyncio.create_task(drip_into(writer, more))
        await refused(reader, 408, "request_timeout")
        drip.cancel()
        assert time.monotonic() - started_s > 0.35


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
async def test_who_says_nothing_is_not_kept(sent: bytes) -> None:
    """A connection without a request ends without an answer; empty lines are none."""
    async with serve(head_timeout_s=0.3) as served, connected(served) as (reader, writer):
        writer.write(sent)
        assert await reader.read() == b""


async def test_a_second_head_that_never_ends() -> None:
    """The same after a good request: the idle time is not the head's time."""
    async with (
        serve(head_timeout_s=0.3, keep_alive_s=30.0) as served,
        connected(served) as (reader, writer),
    ):
        writer.write(POST + b"12345")
        assert (await answer(reader))[0] == 200
        await asyncio.sleep(0.5)  # idle for longer than a head may take
        writer.write(POST + b"12345")
        assert (await answer(reader))[0] == 200
        writer.write(b"POST /echo HTTP/1.1\r\n")
        await refused(reader, 408, "request_timeout")


async def test_an_idle_connection_is_closed() -> None:
    """After the keep-alive time, without a word."""
    async with serve(keep_alive_s=0.3) as served, connected(served) as (reader, writer):
        writer.write(POST + b"12345")
        assert (await answer(reader))[0] == 200
        assert await reader.read() == b""


async def test_a_body_that_stops() -> None:
    """No progress for the given time: 408; the application is told that nobody is there."""
    async with serve(body_timeout_s=0.3) as served, connected(served) as (reader, writer):
        writer.write(POST + b"123")
        await refused(reader, 408, "request_timeout")


async def test_a_body_that_trickles() -> None:
    """Progress by the byte is none: on the whole a body has a least rate."""
    async with serve(body_timeout_s=0.4) as served, connected(served) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n")
        drip = asyncio.create_task(drip_into(writer, b"x"))
        await refused(reader, 408, "request_timeout")
        drip.cancel()


async def test_a_slow_body_with_progress_is_taken() -> None:
    """A phone on a bad network is no attacker: altogether it takes longer than one pause may."""
    async with serve(body_timeout_s=1.0) as served, connected(served) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(0.3)
            writer.write(b"x" * 250)
        status, _, body = await answer(reader)
        assert (status, len(body)) == (200, 1000)


async def test_an_answer_takes_as_long_as_it_takes() -> None:
    """No timeout of the client's side runs while the server is at work."""
    async with (
        serve(head_timeout_s=0.2, body_timeout_s=0.2, keep_alive_s=0.2) as served,
        connected(served) as (reader, writer),
    ):
        writer.write(GET)
        await asyncio.sleep(0.6)
        served.go.set()
        assert (await answer(reader))[0] == 200


@pytest.mark.parametrize(
    "request_",
    [
        CHUNKED + b"\r\nzz\r\n",
        CHUNKED + b"\r\n-1\r\n\r\n",
        CHUNKED + b"\r\nfffffffffffffffff\r\n",
        CHUNKED + b"\r\n2\r\nabcd\r\n",
        CHUNKED + b"content-length: 5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost : x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
        b"POST /echo HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://[:::/ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_gets_400(request_: bytes) -> None:
    """Chunked oddities, lengths that disagree, TLS on the wrong port: 400, never a 500."""
    async with serve() as served, connected(served) as (reader, writer):
        writer.write(request_)
        await refused(reader, 400, "invalid_http")


async def test_trailers_are_no_headers() -> None:
    """What follows a chunked body cannot pass for what a proxy has put into the head (I8)."""
    head = CHUNKED.replace(b"/echo", b"/named") + b"\r\n"
    async with serve() as served, connected(served) as (reader, writer):
        writer.write(head + b"1\r\nx\r\n0\r\nx-forwarded-for: 192.0.2.1\r\n\r\n")
        assert (await answer(reader))[2] == b"nobody"


async def test_requests_in_a_row_are_answered_in_order() -> None:
    """Pipelining works as far as RFC 9112 §9.3.2 asks."""
    async with serve() as served, connected(served) as (reader, writer):
        writer.write(b"".join(POST + b"%05d" % n for n in range(8)))
        assert [(await answer(reader))[2] for _ in range(8)] == [b"%05d" % n for n in range(8)]


@pytest.mark.parametrize("bad", [b"GET / HTTP/1.1\r\n\r\n" * 5000, b"no http\r\n\r\n"])
async def test_what_follows_a_good_request_does_not_spoil_its_answer(bad: bytes) -> None:
    """Too many ahead of their answers, or rubbish: the good one is answered, then it is over."""
    async with serve() as served, connected(served) as (reader, writer):
        writer.write(GET + bad)
        await asyncio.sleep(0.2)
        served.go.set()
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_a_client_that_leaves_is_noticed_behind_its_own_pipeline() -> None:
    """The request being answered learns of it, not only the last one that was read (I3)."""
    async with serve() as served:
        async with connected(served) as (_, writer):
            writer.write(GET + POST + b"12345")
            await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            while not served.lost:
                await asyncio.sleep(0.01)


async def test_no_websocket_begins_inside_an_answer() -> None:
    """An upgrade behind a request that still runs: the answer comes, the upgrade does not."""
    upgrade = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
    async with serve() as served, connected(served) as (reader, writer):
        writer.write(GET + f"GET / HTTP/1.1\r\n{upgrade}\r\n".encode())
        await asyncio.sleep(0.1)
        served.go.set()
        assert (await answer(reader))[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_an_early_answer_does_not_keep_the_rest_of_the_body_coming() -> None:
    """413 before the body has come: the client gets it, and cannot drip the rest for ever."""
    async with serve(body_timeout_s=0.3) as served, connected(served) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n")
        assert (await answer(reader))[0] == 413
        drip = asyncio.create_task(drip_into(writer, b"x"))
        with contextlib.suppress(ConnectionResetError):  # a drip that came after the end
            assert await reader.read() == b""
        drip.cancel()


@pytest.mark.parametrize("ahead", [1, 8])
async def test_an_answer_that_nobody_reads(ahead: int) -> None:
    """Who asks and never reads keeps neither the connection nor a request behind it (memory)."""
    async with serve(unread_timeout_s=1.0, keep_alive_s=0.5, per_address=1) as served:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", served.server.port))
            deaf.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n" * ahead)
            await asyncio.sleep(0.8)
            assert not await has_place(served)
            async with asyncio.timeout(15):
                while served.running or not await has_place(served):
                    await asyncio.sleep(0.1)


async def test_an_address_has_so_many_connections() -> None:
    """One more is refused at once; a place is free when any is closed, WebSockets as well."""
    upgrade = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
    async with serve(per_address=2) as served, connected(served) as (reader, writer):
        async with connected(served) as (socket_reader, socket_writer):
            socket_writer.write(f"GET / HTTP/1.1\r\n{upgrade}\r\n".encode())
            assert b" 101 " in await socket_reader.readuntil(b"\r\n\r\n")
            async with connected(served) as (third, _):
                await refused(third, 429, "too_many_connections")
        async with asyncio.timeout(5):
            while not await has_place(served):
                await asyncio.sleep(0.02)
        writer.write(POST + b"12345")
        assert (await answer(reader))[0] == 200


async def test_a_trusted_proxy_has_any_number() -> None:
    """It brings everybody's connections: their addresses are counted elsewhere."""
    trusted = (ip_network("127.0.0.0/8"),)
    async with (
        serve(per_address=1, trusted=trusted) as served,
        connected(served),
        connected(served),
    ):
        assert await has_place(served)


async def has_place(served: Served) -> bool:
    async with connected(served) as (reader, writer):
        writer.write(POST + b"12345")
        with contextlib.suppress(ConnectionResetError):
            return (await answer(reader))[0] == 200
    return False


async def drip_into(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        await asyncio.sleep(0.1)
        writer.write(piece)
