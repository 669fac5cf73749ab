"""Frames and fragments: what Autobahn's groups 1, 3, 4 and 5 ask of a server."""

from __future__ import annotations

import struct

import pytest
from tests.support.echo_server import EchoServer
from tests.support.websocket_wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Wire,
    WireFrame,
    encode,
)

PROTOCOL_ERROR = 1002
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65_535, 65_536])
async def test_every_form_of_length(wire: Wire, opcode: int, size: int) -> None:
    """1.1, 1.2: payloads on both sides of each border of the length's encoding (§5.2)."""
    wire.send(opcode, b"*" * size)
    assert await wire.receive() == WireFrame(opcode, b"*" * size)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("piece", [1, 997])
async def test_frames_in_small_segments(wire: Wire, opcode: int, piece: int) -> None:
    """1.1.8, 1.2.8: TCP may cut a frame anywhere; the message is the same."""
    payload = b"*" * (300 if piece == 1 else 65_536)
    await wire.send_chopped(encode(opcode, payload), piece)
    assert await wire.message() == payload


async def test_several_messages_in_one_segment(wire: Wire, echo: EchoServer) -> None:
    """Messages that arrive together are handed over one by one and in order."""
    wire.writer.write(b"".join(encode(TEXT, b"%d" % n) for n in range(100)))
    assert [await wire.message() for _ in range(100)] == [b"%d" % n for n in range(100)]
    assert echo.received == [str(n) for n in range(100)]


@pytest.mark.parametrize("rsv", [RSV1, RSV2, RSV3, RSV1 | RSV2, RSV2 | RSV3, RSV1 | RSV2 | RSV3])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
async def test_reserved_bits_without_an_extension(wire: Wire, opcode: int, rsv: int) -> None:
    """3.1 to 3.7: a reserved bit that nobody has negotiated fails the connection (§5.2)."""
    wire.send(opcode, b"", rsv=rsv)
    assert await wire.close_code() == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
async def test_reserved_opcodes(wire: Wire, echo: EchoServer, opcode: int) -> None:
    """4.1, 4.2: an unknown opcode fails the connection, after a good message too (§5.2)."""
    wire.send(TEXT, b"first")
    assert await wire.message() == b"first"
    wire.send(opcode, b"x")
    assert await wire.close_code() == PROTOCOL_ERROR
    assert echo.disconnects == [PROTOCOL_ERROR]


async def test_an_unmasked_frame(wire: Wire) -> None:
    """A server must close when a client does not mask (§5.1)."""
    wire.send(TEXT, b"naked", masked=False)
    assert await wire.close_code() == PROTOCOL_ERROR


async def test_a_length_with_its_highest_bit_set(wire: Wire) -> None:
    """The 64-bit length is below 2**63 (§5.2); nobody waits for such a frame, or makes room."""
    wire.writer.write(bytes([0x81, 0xFF]) + struct.pack("!Q", 1 << 63))
    assert await wire.close_code() in {PROTOCOL_ERROR, 1009}


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_message_in_fragments(wire: Wire, opcode: int) -> None:
    """5.3 to 5.5: fragments make one message of the first one's kind, however they are cut."""
    parts = encode(opcode, b"one ", fin=False) + encode(CONTINUATION, b"two ", fin=False)
    await wire.send_chopped(parts + encode(CONTINUATION, b"three"))
    assert await wire.receive() == WireFrame(opcode, b"one two three")


async def test_empty_fragments(wire: Wire) -> None:
    """6.1.2: a message may consist of nothing, several times; it is one empty message."""
    wire.send(TEXT, b"", fin=False)
    for _ in range(3000):
        wire.send(CONTINUATION, b"", fin=False)
    wire.send(CONTINUATION, b"")
    assert await wire.receive() == WireFrame(TEXT, b"")


async def test_a_message_in_very_many_fragments(wire: Wire) -> None:
    """9.3, in short: 20,000 fragments of one byte are one message."""
    wire.send(TEXT, b"a", fin=False)
    wire.writer.write(encode(CONTINUATION, b"b", fin=False) * 20_000)
    wire.send(CONTINUATION, b"c")
    assert await wire.message() == b"a" + b"b" * 20_000 + b"c"


async def test_a_ping_between_fragments(wire: Wire) -> None:
    """5.6 to 5.8, 5.19: control frames may come between fragments and are answered at once."""
    wire.send(TEXT, b"one ", fin=False)
    wire.send(PING, b"now")
    assert await wire.receive() == WireFrame(PONG, b"now")
    wire.send(CONTINUATION, b"two")
    assert await wire.message() == b"one two"


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
async def test_a_fragmented_control_frame(wire: Wire, opcode: int) -> None:
    """5.1, 5.2: control frames must not be fragmented (§5.4, §5.5)."""
    wire.send(opcode, b"", fin=False)
    assert await wire.close_code() == PROTOCOL_ERROR


@pytest.mark.parametrize("fin", [True, False])
async def test_a_continuation_of_nothing(wire: Wire, *, fin: bool) -> None:
    """5.9 to 5.14: a continuation needs a message to continue (§5.4)."""
    wire.send(CONTINUATION, b"x", fin=fin)
    assert await wire.close_code() == PROTOCOL_ERROR


async def test_a_continuation_after_the_end(wire: Wire) -> None:
    """5.15: the message that was complete stays so; what follows is an error."""
    wire.send(TEXT, b"one ", fin=False)
    wire.send(CONTINUATION, b"two")
    assert await wire.message() == b"one two"
    wire.send(CONTINUATION, b"three", fin=False)
    assert await wire.close_code() == PROTOCOL_ERROR


@pytest.mark.parametrize("second", [TEXT, BINARY])
async def test_a_new_message_inside_another(wire: Wire, second: int) -> None:
    """5.16 to 5.18: fragments of two messages must not be interleaved (§5.4)."""
    wire.send(TEXT, b"one ", fin=False)
    wire.send(second, b"two")
    assert await wire.close_code() == PROTOCOL_ERROR
