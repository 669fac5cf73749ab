"""The way past the framework: the hot path loses nothing that routing and middleware gave it."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from penstock_realtime.http.api import ShortCut
from penstock_realtime.http.responses import ResponsesApi
from penstock_shared.contracts.errors import AuthenticationError


class Endpoint:
    """`ResponsesApi.create` as a test wants it."""

    def __init__(self, outcome: Response | Exception) -> None:
        self.outcome = outcome

    async def create(self, _: Request) -> Response:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def _routes(_: Scope, __: Receive, send: Send) -> None:
    await Response("routed")({"type": "http"}, _nothing, send)


async def _sockets(_: Scope, __: Receive, send: Send) -> None:
    await Response("socket")({"type": "http"}, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def ask(outcome: Response | Exception, **scope: str) -> tuple[int, bytes]:
    """Status and body of one request."""
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    api = ShortCut(_routes, cast("ResponsesApi", Endpoint(outcome)), _sockets)
    state = {"request_id": "the id"}
    usual = {"type": "http", "method": "POST", "path": "/v1/responses", "state": state}
    await api({**usual, **scope}, _nothing, send)
    return sent[0]["status"], sent[1]["body"]


async def test_only_one_path_is_cut_short() -> None:
    """Another path or method goes through the routes, a WebSocket on another path, too."""
    done = Response("direct")
    assert await ask(done) == (200, b"direct")
    assert await ask(done, method="GET") == (200, b"routed")
    assert await ask(done, path="/v1/responses/") == (200, b"routed")
    assert await ask(done, type="websocket") == (200, b"socket")
    assert await ask(done, type="websocket", path="/v1/other") == (200, b"routed")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AuthenticationError("No.", code="missing_api_key"), 401, "missing_api_key"),
        (RuntimeError("secret detail"), 500, "internal_error"),
    ],
)
async def test_errors_are_answers(error: Exception, status: int, code: str) -> None:
    """Errors have the API's format, and a bug leaks nothing of itself (I8)."""
    answered, body = await ask(error)
    assert answered == status
    assert json.loads(body)["error"]["code"] == code
    assert b"secret detail" not in body
