"""Where a WebSocket's events leave: in order, timed, and none after the close frame."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from starlette.types import Send
from uvicorn.protocols.utils import ClientDisconnected

from penstock_realtime import metrics
from penstock_realtime.domain.rendering import compact
from penstock_realtime.http.errors import retry_headers, status_of
from penstock_realtime.serving.streaming import DirectWay
from penstock_shared.contracts.errors import PenstockError


class Outlet:
    """The sending side of one socket."""

    def __init__(self, send: Send, wire: DirectWay) -> None:
        """`wire` is what stands behind `send`."""
        self._send = send
        self._wire = wire
        self._waiting_since_s: float | None = None
        self.closed = False
        """The close frame is sent, or the peer is gone."""

    def waited_s(self, now_s: float) -> float:
        """For how long an event has waited for the peer to read."""
        return 0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s

    def ready(self) -> bool:
        """Whether events may be written at once: none waits, and the peer has read enough."""
        return self._waiting_since_s is None and not self.closed and self._wire.ready()

    def write(self, texts: list[bytes]) -> None:
        """Write events that are rendered already; only when `ready`."""
        self._wire.write(texts)

    async def events(self, texts: list[bytes]) -> None:
        """Send events that are rendered already.

        Raises:
            ClientDisconnected: the peer is gone, or was told to go.
        """
        if self.closed:
            raise ClientDisconnected
        # Several responses may wait here for the same slow reader: the first one's time counts.
        mine = self._waiting_since_s is None
        if mine:
            self._waiting_since_s = time.monotonic()
        try:
            await self._send({"type": "websocket.send", "events": texts})
        finally:
            if mine:
                self._waiting_since_s = None

    async def tell(self, fields: dict[str, Any]) -> None:
        """Send one event, if there is anybody."""
        with suppress(ClientDisconnected):
            await self.events([compact(fields)])

    async def error(self, error: PenstockError, stream_id: str | None = None) -> None:
        """Tell what went wrong, in the API's error format."""
        metrics.REQUESTS.labels("websocket", status_of(error)).inc()
        fields = {**error.body().model_dump(), "headers": retry_headers(error)}
        event = {"type": "error", "status": status_of(error), "error": fields}
        await self.tell(event if stream_id is None else {**event, "stream_id": stream_id})

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame, once; it waits for nothing."""
        if self.closed:
            return
        self.closed = True
        metrics.WS_CLOSED.labels(code).inc()
        with suppress(ClientDisconnected, OSError, RuntimeError):  # closed by the peer already
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
