"""uvicorn's HTTP protocol with a bound on the request head, which httptools does not have."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from penstock_realtime.http.websocket_protocol import BoundedWebSocket
from penstock_shared.contracts.errors import ErrorBody, ErrorReply

_TOO_LARGE: Final = 431
_BAD_REQUEST: Final = 400


class LimitedProtocol(HttpToolsProtocol):
    """Refuses a head that is too large while it is being read: nobody fills the memory."""

    max_head_bytes: ClassVar[int]
    _in_head = False
    _finished_bytes = 0
    """Of the header lines that are complete."""
    _received_bytes = 0
    """Of the head so far: httptools keeps a header back until its line is complete."""

    def data_received(self, data: bytes) -> None:
        """Parse, then judge a head that is still incomplete."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._received_bytes += len(data)
            if self._received_bytes > self.max_head_bytes:
                self.send_400_response("")

    def _should_upgrade_to_ws(self) -> bool:
        """WebSockets begin with a GET of HTTP/1.1 (RFC 6455 §4.1): others are plain requests."""
        return self.parser.get_http_version() == "1.1" and self.parser.get_method() == b"GET"

    def _unsupported_upgrade_warning(self) -> None:
        """Whoever offers another protocol (`h2c`, say) is answered in HTTP/1.1: nothing to log."""

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._in_head, self._finished_bytes, self._received_bytes = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One complete header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete; sizes of bodies are the application's matter."""
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer in the API's error format; the connection is closed."""
        large = max(self._finished_bytes, self._received_bytes) > self.max_head_bytes
        status = _TOO_LARGE if large else _BAD_REQUEST
        text = f"The request's headers are over {self.max_head_bytes} bytes." if large else msg
        body = _error(text, "headers_too_large" if large else "invalid_http")
        headers = (
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        )
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
        self.transport.close()

    def _count(self, size: int) -> None:
        self._finished_bytes += size
        if self._finished_bytes > self.max_head_bytes:
            msg = "head too large"  # the parser turns it into an error of its own
            raise ValueError(msg)


def _error(message: str, code: str) -> bytes:
    body = ErrorBody(message=message, type="invalid_request_error", code=code)
    return ErrorReply(error=body).model_dump_json().encode()


def server_options(
    max_header_bytes: int, max_message_bytes: int, *, websocket_deflate: bool = False
) -> dict[str, Any]:
    """How the edge is served: `HttpServer`'s options, uvicorn's among them."""
    return {
        "http": type("Protocol", (LimitedProtocol,), {"max_head_bytes": max_header_bytes}),
        "ws": BoundedWebSocket,
        # A client that stops reading blocks `send` after 0.35 MB; without this, after 4 MB.
        "send_buffer_bytes": 64 * 1024,
        "timeout_keep_alive": 75,  # longer than the SDKs' pools keep a connection
        "proxy_headers": False,  # nothing here depends on the client's address
        "ws_max_size": max_message_bytes,  # a larger message closes the socket with 1009
        # Off by default: 60 kB a connection, for text that is already small.
        "ws_per_message_deflate": websocket_deflate,
        "headers": [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ],
    }
