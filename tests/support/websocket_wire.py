"""A WebSocket client that sends whatever a test wants, correct or not (RFC 6455).

Libraries refuse to send what must be refused on the other side; this one writes the bits.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
_FIN, _MASKED = 0x80, 0x80
_MASK_KEY: Final = b"\x37\xfa\x21\x3d"
_DEFLATE_TAIL: Final = b"\x00\x00\xff\xff"
HANDSHAKE: Final = {
    "Host": "edge",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
    "Sec-WebSocket-Version": "13",
}
"""What RFC 6455 §4.1 asks of a client."""


@dataclass(frozen=True, slots=True)
class WireFrame:
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to the handshake."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def encode(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_bytes: int | None = None,
) -> bytes:
    """One frame (RFC 6455 §5.2); `length_bytes` 2 or 8 forces a longer form of the length."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 1 << 16 else 8
    short = {0: size, 2: 126, 8: 127}[length_bytes]
    extended = {0: b"", 2: struct.pack("!H", size & 0xFFFF), 8: struct.pack("!Q", size)}
    head = bytes([(_FIN if fin else 0) | rsv | opcode, (_MASKED if masked else 0) | short])
    return head + extended[length_bytes] + (_MASK_KEY + mask(payload) if masked else payload)


def mask(payload: bytes) -> bytes:
    """XOR with the client's key (RFC 6455 §5.3)."""
    key = int.from_bytes(_MASK_KEY * (-(-len(payload) // 4)), "big")
    padded = payload + bytes(-len(payload) % 4)
    return (int.from_bytes(padded, "big") ^ key).to_bytes(len(padded), "big")[: len(payload)]


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """The body of a close frame (RFC 6455 §5.5.1)."""
    return struct.pack("!H", code) + reason


def deflate(message: bytes, window_bits: int = 12) -> bytes:
    """A message as permessage-deflate sends it, with a context of its own (RFC 7692 §7.2.1)."""
    packer = zlib.compressobj(wbits=-window_bits)
    return (packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_DEFLATE_TAIL)


class Wire:
    """One connection. Reading ends after `wait_s`: a server that hangs fails the test."""

    wait_s = 10.0
    answer: Answer
    """To the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Open the TCP connection and say nothing."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    @classmethod
    async def open(cls, port: int, path: str = "/", **headers: str) -> Self:
        """Open it and shake hands; `sec_websocket_extensions="…"` is a header."""
        wire = await cls.connect(port)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await wire.handshake(path, HANDSHAKE | named)
        assert answer.status == 101, answer
        wire.answer = answer
        return wire

    async def handshake(
        self,
        path: str = "/",
        headers: Mapping[str, str | None] = HANDSHAKE,
        request_line: str = "GET {} HTTP/1.1",
    ) -> Answer:
        """Send a request head; headers with the value None are left out."""
        lines = [request_line.format(path)]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        return await self.read_answer()

    async def read_answer(self) -> Answer:
        """An HTTP answer; its body as long as it says."""
        async with asyncio.timeout(self.wait_s):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            pairs = (line.partition(":") for line in lines)
            fields = {name.lower(): value.strip() for name, _, value in pairs}
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        return Answer(int(first.split()[1]), fields, body)

    def send(self, opcode: int, payload: bytes = b"", **how: bool | int) -> None:
        """Send one frame; see `encode`."""
        self.writer.write(encode(opcode, payload, **how))  # type: ignore[arg-type]

    async def send_chopped(self, data: bytes, size: int = 1) -> None:
        """Send raw bytes in pieces, each in a segment of its own as far as TCP lets one choose."""
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def receive(self) -> WireFrame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(self.wait_s):
            try:
                first, second = await self.reader.readexactly(2)
                assert not second & _MASKED, "a server must not mask (RFC 6455 §5.1)"
                size = second & 0x7F
                if size == 126:
                    (size,) = struct.unpack("!H", await self.reader.readexactly(2))
                elif size == 127:
                    (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
                payload = await self.reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return WireFrame(first & 0x0F, payload, bool(first & _FIN), first & 0x70)

    async def message(self) -> bytes:
        """The payload of the next whole text or binary message; pings before it are answered."""
        frame = await self.receive()
        while frame is not None and frame.opcode == PING:
            self.send(PONG, frame.payload)
            frame = await self.receive()
        assert frame is not None, "the connection ended"
        assert frame.fin, frame
        assert frame.opcode in {TEXT, BINARY}, frame
        return frame.payload

    async def close_code(self) -> int | None:
        """Read until the close frame and the end after it; its code, None without one.

        RFC 6455 §7.1.1: the server closes the TCP connection, so that the client need not wait.
        """
        code = None
        while (frame := await self.receive()) is not None:
            assert code is None, f"{frame} after the close frame"
            if frame.opcode == CLOSE:
                code = struct.unpack("!H", frame.payload[:2])[0] if frame.payload else 1005
        return code

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
