"""A client that stops reading: what the edge may hold for it is bounded."""

from __future__ import annotations

import asyncio
import socket

from starlette.types import Receive, Scope, Send

from penstock_realtime.http.protocol import server_options
from penstock_shared.runtime.http_server import HttpServer

CHUNK_BYTES = 16 * 1024
ENDLESS_BYTES = 32 * 1024 * 1024


async def test_a_stalled_reader_blocks_the_sender_early() -> None:
    """Well under a megabyte is taken before `send` waits: the rest stays with the response."""
    sent = 0

    async def pour(_: Scope, __: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < ENDLESS_BYTES:
            body = b"x" * CHUNK_BYTES
            await send({"type": "http.response.body", "body": body, "more_body": True})
            sent += CHUNK_BYTES
            await asyncio.sleep(0)

    server = HttpServer(pour, "127.0.0.1", 0, **server_options(1024, 1024))
    await server.start()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        held = -1
        while held != sent or not sent:
            held = sent
            await asyncio.sleep(0.2)
    await server.stop(0.1)
    assert held < 1024 * 1024
