"""The opening handshake at the edge itself (RFC 6455 §4), and who gets an HTTP answer instead."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from tests.support.realtime import Edge
from tests.support.websocket_wire import CLOSE, HANDSHAKE, TEXT, Wire, close_payload

PATH = "/v1/responses"
RFC_KEY, RFC_ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.fixture
async def wire(edge: Edge) -> AsyncIterator[Wire]:
    """A connection that has not said anything yet."""
    async with await Wire.connect(edge.app.http_port) as connected:
        yield connected


@pytest.fixture
def headers(edge: Edge) -> dict[str, str | None]:
    """What a client with a valid key sends."""
    return {**HANDSHAKE, "Authorization": f"Bearer {edge.account.secret}"}


async def test_the_accept_key_is_the_rfcs_own(wire: Wire, headers: dict[str, str | None]) -> None:
    """§1.3's example: the server proves that it has understood."""
    answer = await wire.handshake(PATH, {**headers, "Sec-WebSocket-Key": RFC_KEY})
    assert (answer.status, answer.headers["sec-websocket-accept"]) == (101, RFC_ACCEPT)
    assert answer.headers["upgrade"].lower() == "websocket"
    assert answer.headers["connection"].lower() == "upgrade"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "change",
    [
        {"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"},
        {"Connection": "UPGRADE"},
        {"Sec-WebSocket-Protocol": "unknown, other"},
        {"Sec-WebSocket-Extensions": "x-unknown; a=1"},
        {"X-Long": "x" * 4000},
    ],
)
async def test_what_is_unusual_but_right(
    wire: Wire, headers: dict[str, str | None], change: dict[str, str | None]
) -> None:
    """§4.2.1: tokens in any case; subprotocols and extensions nobody knows are left out."""
    answer = await wire.handshake(PATH, headers | change)
    assert answer.status == 101
    assert "sec-websocket-protocol" not in answer.headers
    assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize(
    ("change", "statuses"),
    [
        ({"Upgrade": None}, {404, 405, 426}),
        ({"Upgrade": "h2c"}, {404, 405, 426}),
        ({"Connection": None}, {404, 405, 426}),
        ({"Connection": "close"}, {404, 405, 426}),
        ({"Sec-WebSocket-Key": None}, {400}),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, {400}),
        ({"Sec-WebSocket-Key": "not base64!"}, {400}),
        ({"Sec-WebSocket-Version": None}, {400, 426}),
        ({"Sec-WebSocket-Version": "8"}, {400, 426}),
        ({"Sec-WebSocket-Version": "99"}, {400, 426}),
        ({"X-Long": "x" * 9000}, {400, 431}),
        ({"X-Huge": "x" * 40_000}, {431}),
        ({f"X-{n}": "x" for n in range(200)}, {400, 431}),
        ({"Authorization": None}, {401}),
        ({"Authorization": "Bearer psk_wrong"}, {401}),
        ({"Authorization": "Basic dTpw"}, {401}),
    ],
)
async def test_a_bad_handshake_gets_an_http_answer(
    wire: Wire, headers: dict[str, str | None], change: dict[str, str | None], statuses: set[int]
) -> None:
    """§4.2.1: whatever is missing or wrong, the answer is HTTP, complete, and no upgrade (I8)."""
    answer = await wire.handshake(PATH, headers | change)
    assert answer.status in statuses, answer


@pytest.mark.parametrize("request_line", ["GET {} HTTP/1.0", "POST {} HTTP/1.1", "PUT {} HTTP/1.1"])
async def test_only_a_get_of_http_1_1_upgrades(
    wire: Wire, headers: dict[str, str | None], request_line: str
) -> None:
    """§4.1: the method is GET and the version at least 1.1."""
    answer = await wire.handshake(PATH, {**headers, "Content-Length": "0"}, request_line)
    assert 400 <= answer.status < 500


async def test_another_path_is_not_found(wire: Wire, headers: dict[str, str | None]) -> None:
    """WebSockets are served on one path."""
    answer = await wire.handshake("/v1/elsewhere", headers)
    assert answer.status in {403, 404}


async def test_a_key_in_the_query_string_is_none(edge: Edge, wire: Wire) -> None:
    """Query strings end up in logs of others: no key is ever read from there (I8)."""
    answer = await wire.handshake(f"{PATH}?api_key={edge.account.secret}", HANDSHAKE)
    assert answer.status == 401


async def test_the_edge_itself_answers_and_closes(
    wire: Wire, headers: dict[str, str | None]
) -> None:
    """The application behind the handshake: an error event, then the closing handshake."""
    assert (await wire.handshake(PATH, headers)).status == 101
    wire.send(TEXT, b'{"type":"penstock.none"}')
    assert json.loads(await wire.message())["error"]["code"] == "unknown_event"
    wire.send(CLOSE, close_payload(1000))
    assert await wire.close_code() == 1000


async def test_a_protocol_error_at_the_edge(wire: Wire, headers: dict[str, str | None]) -> None:
    """What the server finds wrong closes the edge's sockets as the echo's."""
    assert (await wire.handshake(PATH, headers)).status == 101
    wire.send(TEXT, b"\xff")
    assert await wire.close_code() == 1007
