"""Reading a request's body without letting its sender choose how much."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from penstock_shared.contracts.errors import PermanentError, TooLargeError


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        TooLargeError: it is over `limit` bytes; the rest is not read.
        PermanentError: the client went away while sending it.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect as error:
        msg = "The body ended before it was complete."
        raise PermanentError(msg, code="incomplete_body") from error
    return bytes(body)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The body is over {limit} bytes.", code="body_too_large")
