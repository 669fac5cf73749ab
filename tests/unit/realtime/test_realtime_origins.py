"""Web pages: closed by default, and no credential in a URL."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from penstock_realtime.http.origins import OriginGate, check_origin, parse_origins
from penstock_shared.contracts.errors import PermanentError, PermissionDeniedError

PAGE = "https://app.example"


def gate(allowed: str = PAGE) -> httpx.AsyncClient:
    app = OriginGate(PlainTextResponse("served"), parse_origins(allowed))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://edge.example")


async def test_programs_are_served_without_cors_headers() -> None:
    """No `Origin`, no CORS: what SDKs outside a browser send is passed on as it is."""
    async with gate("") as client:
        answer = await client.get("/v1/models")
    assert answer.text == "served"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "https://app.example.evil.example", "http://app.example",
     "https://app.example:444", "HTTPS://APP.EXAMPLE/", "", "https://app.exampl\u00e9"],
)  # fmt: skip
@pytest.mark.parametrize("allowed", ["", PAGE])
async def test_a_foreign_page_is_refused(origin: str, allowed: str) -> None:
    """Its request does not reach the application, nor does it get a CORS header (I8)."""
    async with gate(allowed) as client:
        answer = await client.post("/v1/responses", headers=[(b"origin", origin.encode())])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


async def test_an_allowed_page_may_ask_and_read() -> None:
    """Preflight and answer name the page's own origin, and vary by it."""
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "x-stainless"}
    async with gate() as client:
        preflight = await client.options("/v1/responses", headers={"origin": PAGE, **ask})
        answer = await client.get("/v1/models", headers={"origin": PAGE})
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for got in (preflight, answer):
        assert got.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in got.headers["vary"]
        assert "access-control-allow-credentials" not in got.headers
    assert answer.text == "served"
    assert "retry-after" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "query",
    ["api_key=psk_x", "a=b&access_token=x", "API_KEY=x", "api%5Fkey=x", "token=", "key"],
)
async def test_no_credential_in_a_url(query: str) -> None:
    """It would end up in logs and histories: refused by name, without repeating its value."""
    async with gate() as client:
        answer = await client.get(f"/v1/models?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "credential_in_url")
    assert "psk_x" not in answer.text


async def test_other_parameters_pass() -> None:
    """The query string as such is nobody's secret."""
    async with gate() as client:
        assert (await client.get("/v1/responses/x?stream=true&include=y")).text == "served"


async def test_a_foreign_page_gets_no_socket() -> None:
    """The upgrade is denied with 403 before anybody accepts it; browsers apply no CORS here."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket",
        "path": "/v1/responses",
        "query_string": b"",
        "headers": [(b"origin", b"https://evil.example")],
        "extensions": {"websocket.http.response": {}},
    }
    await OriginGate(PlainTextResponse("served"), frozenset({PAGE}))(scope, receive, send)
    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 403)


def test_two_origins_are_none() -> None:
    """Of two headers nobody knows which one the browser meant."""
    scope = {"headers": [(b"origin", PAGE.encode()), (b"origin", b"https://evil.example")]}
    with pytest.raises(PermissionDeniedError):
        check_origin(scope, frozenset({PAGE}))


@pytest.mark.parametrize("setting", ["*", "app.example", "https://app.example/path", "https://"])
def test_a_setting_that_is_no_origin_is_said(setting: str) -> None:
    """The message names the variable; `*` would open every page at once."""
    with pytest.raises(PermanentError, match="PENSTOCK_ALLOWED_ORIGINS"):
        parse_origins(setting)


def test_the_setting_lists_origins() -> None:
    """Separated by commas; browsers send scheme and host in lower case."""
    setting = " https://App.example , http://localhost:3000,"
    assert parse_origins(setting) == {PAGE, "http://localhost:3000"}
