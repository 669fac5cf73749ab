"""Pings and the closing handshake: what Autobahn's groups 2 and 7 ask of a server."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from tests.support.echo_server import EchoServer
from tests.support.websocket_wire import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Wire,
    WireFrame,
    close_payload,
    encode,
)

PROTOCOL_ERROR = 1002
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("payload", [b"", b"Hello", bytes(range(0, 250, 2)), b"\xfe" * 125])
async def test_a_ping_is_answered_with_its_payload(wire: Wire, payload: bytes) -> None:
    """2.1 to 2.4: a pong carries what the ping carried, up to 125 bytes (§5.5.2, §5.5.3)."""
    await wire.send_chopped(encode(PING, payload), 7)
    assert await wire.receive() == WireFrame(PONG, payload)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
async def test_a_control_frame_over_125_bytes(wire: Wire, opcode: int) -> None:
    """2.5, 7.3.6: control frames have at most 125 bytes (§5.5)."""
    wire.send(opcode, close_payload(1000) + b"*" * 124)
    assert await wire.close_code() == PROTOCOL_ERROR


@pytest.mark.parametrize("payload", [b"", b"unasked"])
async def test_a_pong_that_nobody_asked_for(wire: Wire, payload: bytes) -> None:
    """2.7 to 2.9: a pong is no answer to be answered; the next ping is (§5.5.3)."""
    wire.send(PONG, payload)
    wire.send(PING, b"asked")
    assert await wire.receive() == WireFrame(PONG, b"asked")


async def test_many_pings_in_one_go(wire: Wire) -> None:
    """2.10, 2.11: ten pings get ten pongs in order while the client reads."""
    wire.writer.write(b"".join(encode(PING, b"%d" % n) for n in range(10)))
    for n in range(10):
        assert await wire.receive() == WireFrame(PONG, b"%d" % n)


async def test_pings_without_end_from_a_peer_that_reads_nothing(echo: EchoServer) -> None:
    """§5.5.3 lets one answer the latest ping only: pongs must not pile up for who reads none.

    12 MB of pings; what comes back is what fitted into buffers, and the answer to the last.
    """
    wire = await Wire.connect(echo.port)
    async with wire:
        receiving = wire.writer.get_extra_info("socket")
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        assert (await wire.handshake()).status == 101
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for n in range(100):
            wire.writer.write(encode(PING, b"%0125d" % n) * 1000)
            await wire.writer.drain()
        wire.send(PING, b"last")
        await wire.writer.drain()
        await asyncio.sleep(0.2)
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        pongs = 1
        while (frame := await wire.receive()) != WireFrame(PONG, b"last"):
            assert frame is not None
            pongs += 1
    assert pongs < 25_000, "a pong for every ping was kept"
    await echo.idle()


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", 1005),
        *((close_payload(c), c) for c in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011)),
        *((close_payload(c), c) for c in (1012, 1013, 1014, 3000, 3999, 4000, 4999)),
        (close_payload(1000, b"*" * 123), 1000),
        (close_payload(1000, "κόσμε".encode()), 1000),
    ],
)
async def test_a_close_is_answered_in_kind(
    wire: Wire, echo: EchoServer, payload: bytes, code: int
) -> None:
    """7.1.1, 7.3.1, 7.3.3 to 7.3.5, 7.7: the same code comes back, then the end of TCP (§5.5.1).

    The application learns the client's code: it decides what becomes of running responses.
    """
    wire.send(CLOSE, payload)
    assert await wire.close_code() == code
    assert echo.disconnects == [code]


async def test_nothing_is_served_after_a_close(wire: Wire, echo: EchoServer) -> None:
    """7.1.2 to 7.1.5: frames after the close frame are ignored, pings too (§5.5.1)."""
    late = encode(TEXT, b"late") + encode(PING, b"late")
    wire.writer.write(encode(CLOSE, close_payload(1000)) + late)
    assert await wire.close_code() == 1000
    assert echo.received == []


async def test_a_close_inside_a_message(wire: Wire, echo: EchoServer) -> None:
    """7.1.5: a close may come before a message is complete; the message is then none."""
    wire.send(TEXT, b"half", fin=False)
    wire.send(CLOSE, close_payload(1000))
    wire.send(CONTINUATION, b"rest")
    assert await wire.close_code() in {1000, PROTOCOL_ERROR}
    assert echo.received == []


async def test_a_close_with_one_byte(wire: Wire) -> None:
    """7.3.2: a close frame has no body or a code of two bytes (§5.5.1)."""
    wire.send(CLOSE, b"\x03")
    assert await wire.close_code() == PROTOCOL_ERROR


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]
)
async def test_a_close_code_that_may_not_be_sent(wire: Wire, code: int) -> None:
    """7.9, 7.13: reserved, unassigned and impossible codes break the protocol (§7.4)."""
    wire.writer.write(encode(CLOSE, close_payload(code)))
    assert await wire.close_code() == PROTOCOL_ERROR


async def test_a_reason_that_is_not_utf8(wire: Wire) -> None:
    """7.5.1: the reason is UTF-8 (§5.5.1)."""
    wire.send(CLOSE, close_payload(1000, b"\xce\xba\xed\xa0\x80"))
    assert await wire.close_code() in {1007, PROTOCOL_ERROR}


async def test_a_client_that_is_cut_off(wire: Wire, echo: EchoServer) -> None:
    """7.1.5 of the RFC: without a close frame the code is not 1000, so nothing is cancelled."""
    linger = struct.pack("ii", 1, 0)  # close sends RST
    wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wire.writer.transport.abort()
    async with asyncio.timeout(5):
        while not echo.disconnects:
            await asyncio.sleep(0.01)
    assert echo.disconnects[0] in {1005, 1006}
