"""WebSocket clients of a few microseconds a frame, for servers that send 100,000 a second.

RFC 6455 as far as a well-behaved server needs it: the client masks with zeros (§5.3 wants a key
that cannot be guessed; on a loopback nobody guesses) and reads unfragmented frames.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

from benchmarks.harness.load import LoadError

TEXT: Final = 0x81
CLOSE: Final = 0x88
_HEAD_END: Final = b"\r\n\r\n"
_OPEN_TIMEOUT_S: Final = 30.0
_SHORT, _LONG = 126, 127


class RawSocket(asyncio.Protocol):
    """One connection; `on_frame` gets every frame's first byte and payload."""

    def __init__(self, request: bytes, on_frame: Callable[[int, bytes], None] | None) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self.on_frame = on_frame or _ignore
        self._request = request
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Shake hands."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Frames, after the head of the answer."""
        buffer = self._rest + data if self._rest else data
        if not self.opened.done():
            end = buffer.find(_HEAD_END)
            if end < 0:
                self._rest = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(LoadError(buffer[:300].decode(errors="replace")))
                return
            self.opened.set_result(None)
            buffer = buffer[end + len(_HEAD_END) :]
        at, size = 0, len(buffer)
        while size - at > 1:
            length, start = buffer[at + 1], at + 2
            if length == _SHORT:
                length, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif length == _LONG:
                length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if start + length > size:
                break
            self.on_frame(buffer[at], buffer[start : start + length])
            at = start + length
        self._rest = buffer[at:]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The server has gone, or we have."""
        if not self.opened.done():
            self.opened.set_exception(LoadError("the connection was closed"))
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, payload: bytes) -> None:
        """Send a text message."""
        assert self.transport is not None
        self.transport.write(masked(payload))


def masked(payload: bytes) -> bytes:
    """A text frame from a client, masked with zeros."""
    size = len(payload)
    if size < _SHORT:
        head = struct.pack("!BB", TEXT, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", TEXT, 0x80 | _SHORT, size)
    else:
        head = struct.pack("!BBQ", TEXT, 0x80 | _LONG, size)
    return head + bytes(4) + payload


async def connect(
    url: str, key: str = "", on_frame: Callable[[int, bytes], None] | None = None
) -> RawSocket:
    """Open a WebSocket; returns once the server has accepted it.

    Raises:
        LoadError: it has not.
    """
    parts = urlsplit(url)
    lines = [
        f"GET {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
        "Sec-WebSocket-Version: 13",
    ]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(
        lambda: RawSocket(request, on_frame), parts.hostname or "", parts.port or 80
    )
    async with asyncio.timeout(_OPEN_TIMEOUT_S):
        await socket.opened
    return socket


def _ignore(_: int, __: bytes) -> None:
    return
