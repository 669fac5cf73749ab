"""An endpoint for webhooks that keeps what it gets and answers as it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tests.support.vendor_server import listening


@dataclass
class WebhookSink:
    """What came, oldest first."""

    url: str = ""
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one."""
        request = Request(scope, receive)
        self.bodies.append(await request.body())
        self.headers.append(dict(request.headers))
        await Response(status_code=self.status)(scope, receive, send)


@contextlib.contextmanager
def webhook_sink() -> Iterator[WebhookSink]:
    """One that listens."""
    sink = WebhookSink()
    with listening(sink) as url:
        sink.url = url
        yield sink
