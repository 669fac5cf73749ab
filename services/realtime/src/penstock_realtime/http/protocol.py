"""uvicorn's HTTP protocol with bounds that httptools and uvicorn do not have.

On a request's head and its pipeline (memory), on how long a head or a body may take (slowloris),
and on the connections of one address (file descriptors). What breaks them is answered here, in
the API's error format: no application hears of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from penstock_realtime import metrics
from penstock_realtime.domain.forwarding import Networks, client_of, is_trusted
from penstock_realtime.http.answers import SECURITY_HEADERS, refusal
from penstock_realtime.http.connections import Places
from penstock_realtime.http.paced_websocket import PacedWebSocket
from penstock_realtime.http.websocket_protocol import BoundedWebSocket
from penstock_shared.contracts.errors import ErrorBody

_MAX_PIPELINED: Final = 8
_MIN_BODY_BYTES_PER_S: Final = 1024
"""A body that trickles in more slowly than this, on the whole, is given up, too."""


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one connection may cost."""

    head_timeout_s: float = 10.0
    """For a whole head, from its first byte, or from the connection for the first one."""
    body_timeout_s: float = 30.0
    """Without any progress."""
    keep_alive_s: float = 75.0
    """Idle between two requests; longer than the SDKs' pools keep a connection."""
    unread_timeout_s: float = 60.0
    """For a client that takes nothing of what is sent to it."""
    per_address: int = 8192
    """Connections at once, WebSockets included; a trusted proxy may have any number."""
    trusted: Networks = ()


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    max_head_bytes: ClassVar[int]
    limits: ClassVar[WireLimits]
    places: ClassVar[Places]
    """Of the addresses that have connections."""

    transport: asyncio.Transport
    _place: str | None = None
    _timer: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    """Being answered; `cycle` is the one being read."""
    _in_head = False
    _in_body = False
    _finished_bytes = 0
    """Of the header lines that are complete."""
    _received_bytes = 0
    """Of the head so far: httptools keeps a header back until its line is complete."""
    _body_bytes = 0
    _since_s = 0.0
    """When what is being waited for began."""
    _progress_s = 0.0
    """When the last of the body came."""

    def connection_made(self, transport: Any) -> None:
        """Take one of the address's places, or refuse at once."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        peer = self.client[0] if self.client is not None else None
        if peer is not None and not is_trusted(peer, self.limits.trusted):
            place = client_of(peer, (), ())
            if not self.places.take(place, self.limits.per_address):
                msg = f"Your address has {self.limits.per_address} connections: close some."
                self._refuse(429, msg, "too_many_connections", "rate_limit_error")
                return
            self._place = place
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end; whatever is being answered learns of it, not only the last one read."""
        self._stop_watching()
        self._leave()
        self._give_up(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, then judge a head that is still incomplete."""
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._in_head:
            self._received_bytes += len(data)
            if self._received_bytes > self.max_head_bytes:
                self.send_400_response("")
                return
        self._watch()

    def _should_upgrade_to_ws(self) -> bool:
        """WebSockets begin with a GET of HTTP/1.1 (RFC 6455 §4.1): others are plain requests."""
        return self.parser.get_http_version() == "1.1" and self.parser.get_method() == b"GET"

    def _unsupported_upgrade_warning(self) -> None:
        """Whoever offers another protocol (`h2c`, say) is answered in HTTP/1.1: nothing to log."""

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection, and its place, over to the WebSocket."""
        if self._running is not None and not self._running.response_complete:
            self.send_400_response("A WebSocket cannot begin before the last answer has ended.")
            return
        self._stop_watching()
        super().handle_websocket_upgrade()
        socket = self.transport.get_protocol()
        assert isinstance(socket, BoundedWebSocket)  # noqa: S101  `server_options` says so
        socket.on_lost = self._leave

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._in_head, self._finished_bytes, self._received_bytes = True, 0, 0
        self._since_s = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One complete header."""
        self._count(len(name) + len(value) + 4)
        if self._in_head:  # a trailer is none: no proxy has judged it (RFC 9110 §6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete; sizes of bodies are the application's matter."""
        if len(self.pipeline) == _MAX_PIPELINED:
            msg = "too many requests ahead of their answers"
            raise ValueError(msg)
        self._in_head, self._in_body, self._body_bytes = False, True, 0
        self._since_s = self._progress_s = self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        self._progress_s = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come whole."""
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or too much of it."""
        if max(self._finished_bytes, self._received_bytes) > self.max_head_bytes:
            text = f"The request's headers are over {self.max_head_bytes} bytes."
            self._refuse(431, text, "headers_too_large")
        else:
            self._refuse(400, msg, "invalid_http")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(
        self, status: int, msg: str, code: str, kind: str = "invalid_request_error"
    ) -> None:
        """Answer instead of an application, and close; never into another answer."""
        running = self._running
        if running is not None:
            its_own = self._in_body and self.cycle is running
            if not its_own and not running.response_complete:
                # The next request is the bad one: the last answer is the one before it.
                running.keep_alive = False
                self.pipeline.clear()
                self.flow.pause_reading()
                self._stop_watching()
                return
            self._give_up(running)
            if its_own and running.response_started:
                self.transport.close()
                return
        metrics.REQUESTS.labels("protocol", status).inc()
        self.transport.write(refusal(status, ErrorBody(message=msg, type=kind, code=code)))
        self.transport.close()

    @staticmethod
    def _give_up(running: RequestResponseCycle | None) -> None:
        """Tell the application that its client is gone."""
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def _count(self, size: int) -> None:
        self._finished_bytes += size
        if self._finished_bytes > self.max_head_bytes:
            msg = "head too large"  # the parser turns it into an error of its own
            raise ValueError(msg)

    def _leave(self) -> None:
        if self._place is not None:
            self.places.give_back(self._place)
            self._place = None

    def _watch(self) -> None:
        """Keep a timer while the client is expected to send, and none while it is not."""
        answering = self._running is not None and not self._running.response_complete
        if answering and not self._in_head and not self._in_body:
            self._stop_watching()
            return
        due_s = self._due_s()
        if self._timer is None or self._timer.when() > due_s:
            self._stop_watching()
            self._wait_until(due_s)

    def _due_s(self) -> float:
        if not self._in_body:
            return self._since_s + self.limits.head_timeout_s
        earned_s = self._body_bytes / _MIN_BODY_BYTES_PER_S
        return self.limits.body_timeout_s + min(self._progress_s, self._since_s + earned_s)

    def _wait_until(self, due_s: float) -> None:
        self._timer = self.loop.call_at(due_s, self._expired)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        now_s, due_s = self.loop.time(), self._due_s()
        waits_for_us = self.flow.read_paused or (
            self._in_head and self._running is not None and not self._running.response_complete
        )
        if waits_for_us:
            due_s = now_s + self.limits.head_timeout_s
        if now_s < due_s:
            self._wait_until(due_s)
        elif self._in_head or self._in_body:
            self._refuse(408, "The request did not come whole in time.", "request_timeout")
        else:
            self.transport.close()  # nothing has come that begins a request


def server_options(
    max_header_bytes: int,
    max_message_bytes: int,
    *,
    websocket_deflate: bool = False,
    limits: WireLimits | None = None,
) -> dict[str, Any]:
    """How the edge is served: `HttpServer`'s options, uvicorn's among them."""
    limits = limits or WireLimits()
    bounds = {"max_head_bytes": max_header_bytes, "limits": limits, "places": Places()}
    return {
        "http": type("Protocol", (LimitedProtocol,), bounds),
        "ws": PacedWebSocket,
        # A client that stops reading blocks `send` after 0.35 MB; without this, after 4 MB.
        "send_buffer_bytes": 64 * 1024,
        "unread_timeout_s": limits.unread_timeout_s,
        "timeout_keep_alive": limits.keep_alive_s,
        "proxy_headers": False,  # `Front` finds the client's address out, and trusts whom it may
        "ws_max_size": max_message_bytes,  # a larger message closes the socket with 1009
        # Off by default: 60 kB a connection, for text that is already small.
        "ws_per_message_deflate": websocket_deflate,
        "headers": list(SECURITY_HEADERS),
    }
