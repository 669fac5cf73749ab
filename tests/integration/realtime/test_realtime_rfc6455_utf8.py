"""UTF-8 in text messages: what Autobahn's group 6 asks of a server (RFC 6455 §8.1, RFC 3629)."""

from __future__ import annotations

import pytest
from tests.support.echo_server import EchoServer
from tests.support.websocket_wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    TEXT,
    Wire,
    WireFrame,
    close_payload,
    encode,
)

INVALID_DATA = 1007
GREEK = "Hello-µ@ßöäüàá-UTF-8!!κόσμε𐐨".encode()
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "text",
    [
        "κόσμε",
        "\x00",
        "\x7f",
        "\x80",
        "\u07ff",
        "\u0800",
        "\ud7ff",
        "\ue000",
        "\ufffd",
        "\ufffe",
        "\uffff",
        "\U00010000",
        "\U0001fffe",
        "\U0010ffff",
    ],
)
async def test_every_border_of_utf8(wire: Wire, text: str) -> None:
    """6.2, 6.5 to 6.9, 6.22, 6.23: the first and last of each length, and non-characters, pass."""
    wire.send(TEXT, text.encode())
    assert await wire.message() == text.encode()


@pytest.mark.parametrize("cut", range(1, len(GREEK)))
async def test_code_points_cut_by_fragments(wire: Wire, cut: int) -> None:
    """6.2.2 to 6.2.4: a fragment may end within a code point; only the whole is judged (§5.6)."""
    wire.send(TEXT, GREEK[:cut], fin=False)
    wire.send(CONTINUATION, GREEK[cut:])
    assert await wire.message() == GREEK


@pytest.mark.parametrize(
    "bad",
    [
        b"\x80",  # a continuation byte alone
        b"\xbf\x80\xbf",
        b"\xc0\xaf",  # overlong "/"
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",  # surrogates
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",  # past U+10FFFF
        b"\xf8\x88\x80\x80\x80",  # five bytes
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xc3",  # incomplete
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xc3\x28",
        b"\xf0\x28\x8c\xbc",
    ],
)
async def test_what_is_not_utf8_closes_with_1007(wire: Wire, echo: EchoServer, bad: bytes) -> None:
    """6.3, 6.4, 6.10 to 6.21: wherever it stands, the application never sees it (§8.1)."""
    wire.send(TEXT, GREEK + bad + b"edited")
    assert await wire.close_code() == INVALID_DATA
    assert (echo.received, echo.disconnects) == ([], [INVALID_DATA])


@pytest.mark.parametrize("pieces", [1, 5])
async def test_bad_bytes_in_fragments(wire: Wire, echo: EchoServer, pieces: int) -> None:
    """6.3.2, 6.4: also when the bad sequence is cut; at the latest when the message is complete."""
    message = GREEK + b"\xf4\x90\x80\x80" + b"edited"
    step = -(-len(message) // pieces)
    parts = [message[i : i + step] for i in range(0, len(message), step)]
    for n, part in enumerate(parts):
        wire.send(CONTINUATION if n else TEXT, part, fin=n == len(parts) - 1)
    assert await wire.close_code() == INVALID_DATA
    assert echo.received == []


async def test_bad_bytes_and_a_close_in_one_segment(wire: Wire, echo: EchoServer) -> None:
    """A close that comes with the bad message does not hide it, and nothing breaks."""
    wire.writer.write(encode(TEXT, b"\xff") + encode(CLOSE, close_payload(1000)))
    assert await wire.close_code() in {1000, INVALID_DATA}
    assert echo.received == []


async def test_binary_is_not_judged(wire: Wire) -> None:
    """§5.6: what is no text may hold any bytes."""
    wire.send(BINARY, b"\xff\xfe\x80")
    assert await wire.receive() == WireFrame(BINARY, b"\xff\xfe\x80")
