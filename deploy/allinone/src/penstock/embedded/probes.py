"""Readiness questions over plain sockets: quick to load and quick to ask."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from penstock.supervision.spec import Probe

_OK = b" 200 "
_STATUS_LINE_BOUND = 64


def http_ok(url: str) -> Probe:
    """Build the question whether GET on this http:// URL answers 200."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()

    async def ask() -> bool:
        answer = await _exchange(host, port, request)
        return _OK in answer[:_STATUS_LINE_BOUND].partition(b"\r\n")[0]

    return ask


def redis_answers(host: str, port: int, password: str) -> Probe:
    """Build the question whether this Redis knows the password and answers PING."""
    request = f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode()

    async def ask() -> bool:
        return (await _exchange(host, port, request)).startswith(b"+OK\r\n+PONG\r\n")

    return ask


async def _exchange(host: str, port: int, request: bytes) -> bytes:
    """Send one request and read until the server closes."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await reader.read(-1)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
