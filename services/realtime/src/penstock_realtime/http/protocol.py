"""uvicorn's HTTP protocol with a bound on the request head, which httptools does not have."""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from penstock_shared.contracts.errors import ErrorBody, ErrorReply

_TOO_LARGE: Final = 431
_BAD_REQUEST: Final = 400


def limited_protocol(max_header_bytes: int) -> type[HttpToolsProtocol]:
    """A protocol that refuses a head larger than `max_header_bytes` while it is being read."""

    class LimitedProtocol(HttpToolsProtocol):
        """Counts the bytes of request line and headers; a client cannot fill the memory."""

        _head_bytes = 0

        def on_message_begin(self) -> None:
            self._head_bytes = 0
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value) + 4)
            super().on_header(name, value)

        def send_400_response(self, msg: str) -> None:
            """Answer in the API's error format; the connection is closed."""
            large = self._head_bytes > max_header_bytes
            status = _TOO_LARGE if large else _BAD_REQUEST
            text = f"The request's headers are over {max_header_bytes} bytes." if large else msg
            body = _error(text, "headers_too_large" if large else "invalid_http")
            head = b"".join(
                name + b": " + value + b"\r\n"
                for name, value in (
                    *self.server_state.default_headers,
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                    (b"connection", b"close"),
                )
            )
            self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
            self.transport.close()

        def _count(self, size: int) -> None:
            self._head_bytes += size
            if self._head_bytes > max_header_bytes:
                msg = "head too large"  # the parser turns it into an error of its own
                raise ValueError(msg)

    return LimitedProtocol


def _error(message: str, code: str) -> bytes:
    body = ErrorBody(message=message, type="invalid_request_error", code=code)
    return ErrorReply(error=body).model_dump_json().encode()


def server_options(max_header_bytes: int, max_message_bytes: int) -> dict[str, Any]:
    """How uvicorn serves the edge."""
    return {
        "http": limited_protocol(max_header_bytes),
        "ws": "websockets-sansio",
        "proxy_headers": False,  # nothing here depends on the client's address
        "ws_max_size": max_message_bytes,  # a larger message closes the socket with 1009
        "ws_per_message_deflate": False,  # 60 kB a connection, for text that is already small
        "headers": [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ],
    }
