"""What the fakes of payment providers stand on: a server in a thread, connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp
from tests.support.vendor_faults import Fault, Kind
from uvicorn.protocols.http.h11_impl import H11Protocol

from penstock_shared.runtime.http_server import HttpServer

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: the close is a reset (socket(7))."""


class _Protocol(H11Protocol):
    """Hands the application its connection, so that a fault can reset it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio leaves Nagle's algorithm on where a listener was made without a protocol number:
        # each answer, in two writes, would wait 40 ms for the client's delayed acknowledgement.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


@contextlib.contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """The address at which `app` listens, in a thread of its own: blocking clients reach it."""
    started, stopped, found = threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        server = HttpServer(app, "127.0.0.1", 0, http=_Protocol, log_level="critical")
        await server.start()
        found.append((asyncio.get_running_loop(), server.port))
        started.set()
        await stopped.wait()
        # Not `stop`, whose patience with clients would cost every test a fifth of a second.
        server.stop_accepting()
        for connection in list(server._server.server_state.connections):
            connection.transport.abort()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="vendor", daemon=True)
    thread.start()
    assert started.wait(10)
    ((loop, port),) = found
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)


def loses_answer(fault: Fault | None) -> bool:
    """Whether the client is never answered."""
    return fault is not None and fault.kind in {Kind.TIMEOUT, Kind.RESET}


async def lose_answer(fault: Fault, request: Request) -> None:
    """Wait until the client has had enough, or reset its connection."""
    if fault.kind is Kind.TIMEOUT:
        while not await request.is_disconnected():
            await asyncio.sleep(0.005)
        return
    transport: asyncio.Transport = request.scope["state"]["transport"]
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
