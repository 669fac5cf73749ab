"""The edge's own HTTP server with an application that sends every message back.

As Autobahn's test suite does it: what a message looks like after the server has read it shows only
if somebody gives it back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from penstock_realtime.http.protocol import server_options
from penstock_shared.runtime.http_server import HttpServer

MAX_MESSAGE_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024


@dataclass
class EchoServer:
    """A running server, and what its application was told."""

    port: int = 0
    received: list[str | bytes] = field(default_factory=list)
    disconnects: list[int] = field(default_factory=list)
    """The codes of `websocket.disconnect`."""

    _open: int = 0

    def forget(self) -> Self:
        """Begin anew for the next test."""
        assert not self._open
        self.received.clear()
        self.disconnects.clear()
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "websocket":
            await send({"type": "http.response.start", "status": 405, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await receive()
        await send({"type": "websocket.accept"})
        self._open += 1
        with contextlib.suppress(ClientDisconnected):
            while (message := await receive())["type"] == "websocket.receive":
                kind = "text" if message.get("text") is not None else "bytes"
                self.received.append(message[kind])
                await send({"type": "websocket.send", kind: message[kind]})
            self.disconnects.append(message["code"])
        self._open -= 1

    async def idle(self) -> None:
        """Wait until the application has done with every connection."""
        async with asyncio.timeout(5):
            while self._open:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(*, deflate: bool = False) -> AsyncIterator[EchoServer]:
    """Serve with the options that the edge has."""
    echo = EchoServer()
    options = server_options(MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, websocket_deflate=deflate)
    server = HttpServer(echo, "127.0.0.1", 0, **options)
    await server.start()
    echo.port = server.port
    yield echo
    await server.stop(0.1)
