"""Large messages and permessage-deflate: what Autobahn's groups 9, 12 and 13 ask of a server."""

from __future__ import annotations

import asyncio
import random
import resource
import struct
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.support import echo_server
from tests.support.echo_server import MAX_MESSAGE_BYTES, EchoServer
from tests.support.websocket_wire import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    TEXT,
    Wire,
    WireFrame,
    deflate,
    encode,
)

TOO_BIG = 1009
PROTOCOL_ERROR = 1002
BOMB_BYTES = 256 * 1024 * 1024
RSS_BOUND_BYTES = 32 * 1024 * 1024
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deflating() -> AsyncIterator[EchoServer]:
    async with echo_server.running(deflate=True) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def packed(deflating: EchoServer) -> AsyncIterator[Wire]:
    """A connection that has negotiated permessage-deflate."""
    offer = "permessage-deflate; client_max_window_bits"
    deflating.forget()
    async with await Wire.open(deflating.port, Sec_WebSocket_Extensions=offer) as opened:
        agreed = opened.answer.headers["sec-websocket-extensions"]
        assert agreed.startswith("permessage-deflate")
        yield opened
    await deflating.idle()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [65_536, MAX_MESSAGE_BYTES])
async def test_large_messages(wire: Wire, opcode: int, size: int) -> None:
    """9.1, 9.2: up to the limit, to the byte."""
    wire.send(opcode, b"*" * size)
    assert await wire.receive() == WireFrame(opcode, b"*" * size)


async def test_a_message_that_announces_too_much(wire: Wire, echo: EchoServer) -> None:
    """§10.4, §7.4.1: refused by its length alone, before any of it is sent: nobody makes room."""
    wire.writer.write(bytes([0x82, 0xFF]) + struct.pack("!Q", MAX_MESSAGE_BYTES + 1))
    assert await wire.close_code() == TOO_BIG
    assert echo.disconnects == [TOO_BIG]


async def test_fragments_that_are_too_much_together(wire: Wire) -> None:
    """9.3, 9.4: the limit is the message's, not the frame's."""
    wire.send(TEXT, b"*" * (MAX_MESSAGE_BYTES // 2), fin=False)
    wire.send(CONTINUATION, b"*" * (MAX_MESSAGE_BYTES // 2 - 10), fin=False)
    wire.send(PING, b"still here")
    assert await wire.receive() == WireFrame(PONG, b"still here")
    wire.send(CONTINUATION, b"*" * 11)
    assert await wire.close_code() == TOO_BIG


async def test_a_flood_of_messages_leaves_others_their_turn(wire: Wire, echo: EchoServer) -> None:
    """However many messages one read brings, few are handled at a time; none is lost (I8)."""
    most = 0

    async def look() -> None:
        nonlocal most
        while True:
            seen = len(echo.received)
            await asyncio.sleep(0)
            most = max(most, len(echo.received) - seen)

    looking = asyncio.create_task(look())
    sent = [b"%d" % (n % 10) for n in range(20_000)]
    wire.writer.write(b"".join(encode(TEXT, message) for message in sent))
    assert [await wire.message() for _ in sent] == sent
    looking.cancel()
    assert 0 < most <= 2048 // len(encode(TEXT, b"0")) + 1


@pytest.mark.parametrize("piece", [64, 4096])
async def test_a_large_message_in_small_segments(wire: Wire, piece: int) -> None:
    """9.5, 9.6: however TCP cuts a large message."""
    await wire.send_chopped(encode(TEXT, b"*" * 131_072), piece)
    assert await wire.message() == b"*" * 131_072


@pytest.mark.parametrize("size", [0, 64, 1024, 16_384])
async def test_round_trips(wire: Wire, size: int) -> None:
    """9.7, 9.8, in short: 200 messages, each after the answer to the one before."""
    for _ in range(200):
        wire.send(TEXT, b"*" * size)
        assert await wire.message() == b"*" * size


async def test_compression_is_off_by_default(echo: EchoServer) -> None:
    """RFC 7692 §5: the answer leaves out an offer that is not accepted; RSV1 is then an error."""
    async with await Wire.open(echo.port, Sec_WebSocket_Extensions="permessage-deflate") as wire:
        assert "sec-websocket-extensions" not in wire.answer.headers
        wire.send(TEXT, deflate(b"squeezed"), rsv=RSV1)
        assert await wire.close_code() == PROTOCOL_ERROR


@pytest.mark.parametrize("size", [0, 1, 16, 127, 1024, 65_536, MAX_MESSAGE_BYTES])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_compressed_messages(packed: Wire, opcode: int, size: int) -> None:
    """12.1 to 12.5: what was compressed comes out as it was, and comes back compressed."""
    message = random.Random(size).choice((b"ab", b"*")) * size
    packed.send(opcode, deflate(message[:size]), rsv=RSV1)
    frame = await packed.receive()
    assert frame is not None
    assert (frame.opcode, frame.rsv) == (opcode, RSV1)
    assert _inflate(frame.payload) == message[:size]


async def test_what_compresses_badly(packed: Wire) -> None:
    """12.3: random bytes, and a message that its sender chose not to compress."""
    noise = random.Random(7).randbytes(65_536)
    packed.send(BINARY, deflate(noise), rsv=RSV1)
    first = await packed.receive()
    assert first is not None
    assert _inflate(first.payload) == noise
    packed.send(TEXT, b"plain")
    second = await packed.receive()
    assert second is not None
    assert second.opcode == TEXT


async def test_a_compressed_message_in_fragments(packed: Wire) -> None:
    """13.3 and RFC 7692 §6.1: RSV1 stands on the first fragment only; control frames between."""
    squeezed = deflate(b"one two three" * 100)
    packed.send(TEXT, squeezed[:5], fin=False, rsv=RSV1)
    packed.send(PING, b"between")
    packed.send(CONTINUATION, squeezed[5:])
    assert await packed.receive() == WireFrame(PONG, b"between")
    frame = await packed.receive()
    assert frame is not None
    assert _inflate(frame.payload) == b"one two three" * 100


async def test_a_context_that_is_kept(packed: Wire) -> None:
    """13.1: both sides may refer to earlier messages (context takeover, RFC 7692 §7.1.1)."""
    packer, unpacker = zlib.compressobj(wbits=-12), zlib.decompressobj(wbits=-15)
    for n in range(50):
        message = b"a message that resembles the one before, number %d" % n
        squeezed = packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH)
        packed.send(TEXT, squeezed[:-4], rsv=RSV1)
        frame = await packed.receive()
        assert frame is not None
        assert unpacker.decompress(frame.payload + b"\x00\x00\xff\xff") == message


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=9, permessage-deflate",
        "x-unknown, permessage-deflate",
    ],
)
async def test_offers_that_can_be_accepted(deflating: EchoServer, offer: str) -> None:
    """13.*: every parameter of RFC 7692 §7.1 may be offered; what comes back keeps to it."""
    async with await Wire.open(deflating.port, Sec_WebSocket_Extensions=offer) as wire:
        assert wire.answer.headers.get("sec-websocket-extensions", "permessage-deflate").startswith(
            "permessage-deflate"
        )
        wire.send(TEXT, b"uncompressed is always allowed")
        frame = await wire.receive()
        assert frame is not None
        payload = _inflate(frame.payload) if frame.rsv else frame.payload
        assert payload == b"uncompressed is always allowed"


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; wat=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ],
)
async def test_offers_that_make_no_sense(deflating: EchoServer, offer: str) -> None:
    """RFC 7692 §7.1: such an offer is declined; the connection goes on without compression."""
    async with await Wire.open(deflating.port, Sec_WebSocket_Extensions=offer) as wire:
        assert "sec-websocket-extensions" not in wire.answer.headers
        wire.send(TEXT, b"plain")
        assert await wire.message() == b"plain"


async def test_a_compressed_continuation(packed: Wire) -> None:
    """RFC 7692 §6.1: RSV1 on a continuation is an error."""
    packed.send(TEXT, b"x", fin=False)
    packed.send(CONTINUATION, b"y", rsv=RSV1)
    assert await packed.close_code() == PROTOCOL_ERROR


async def test_what_is_no_deflate_stream(packed: Wire) -> None:
    """RFC 7692 §7.2.2: data that cannot be inflated fails the connection, and nothing more."""
    packed.send(TEXT, b"\xff" * 32, rsv=RSV1)
    assert await packed.close_code() in {PROTOCOL_ERROR, 1007, 1011}


@pytest.mark.parametrize("fragments", [1, 3])
async def test_a_decompression_bomb(packed: Wire, fragments: int) -> None:
    """A quarter of a megabyte that inflates to 256: closed with 1009, and never unpacked.

    Resident memory may grow by 32 MiB, an eighth of what the bomb wants.
    """
    bomb = await asyncio.to_thread(deflate, bytes(BOMB_BYTES))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = -(-len(bomb) // fragments)
    pieces = [bomb[i : i + step] for i in range(0, len(bomb), step)]
    for n, piece in enumerate(pieces):
        first = n == 0
        packed.send(
            TEXT if first else CONTINUATION,
            piece,
            fin=n == len(pieces) - 1,
            rsv=RSV1 if first else 0,
        )
    assert await packed.close_code() == TOO_BIG
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < RSS_BOUND_BYTES


def _inflate(payload: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
