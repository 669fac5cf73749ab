"""Whole HTTP answers as bytes, for what is refused before any application is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from penstock_shared.contracts.errors import ErrorBody, ErrorReply

SECURITY_HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
)
"""On every answer. Transport security is the TLS proxy's to demand: HTTP is served here."""
RAW_SECURITY_HEADERS: Final = tuple(
    (name.encode(), value.encode()) for name, value in SECURITY_HEADERS
)


def refusal(
    status: int,
    error: ErrorBody,
    more: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """The answer after which the connection is closed."""
    body = ErrorReply(error=error).model_dump_json().encode()
    headers = (
        *RAW_SECURITY_HEADERS,
        *more,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    )
    head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return STATUS_LINE[status] + head + b"\r\n" + body
