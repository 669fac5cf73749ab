"""uvicorn's WebSocket protocol, bounded where a hostile or absent peer could hold memory.

What uvicorn leaves open, each with its remedy here: a handshake that its parser refuses gets no
answer and keeps its connection; pongs pile up for a peer that sends pings and reads nothing; a
message in a million fragments is a million objects; and a close waits for the peer to read
everything before it, for ever if it never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from struct import Struct
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from penstock_realtime.http.answers import SECURITY_HEADERS, refusal
from penstock_shared.contracts.errors import ErrorBody, ErrorReply

_TEXT: Final = 0x81
_SHORT, _MEDIUM = 125, 0xFFFF
"""The longest payloads whose length fits into the head's second byte, and into two more."""
_MEDIUM_HEAD, _LONG_HEAD = Struct("!BBH"), Struct("!BBQ")
_MAX_FRAGMENTS: Final = 1024
"""Held apart; more of one message are joined on the way."""
_INVALID: Final = ErrorBody(
    message="Not a WebSocket handshake: RFC 6455, section 4, says what to send.",
    type="invalid_request_error",
    code="invalid_handshake",
)


class _Handshake(ServerProtocol):
    """Answers that are no upgrade look like every other answer of the edge."""

    def send_response(self, response: Response) -> None:
        """Send it, with the security headers; a refusal in the API's error format."""
        headers = response.headers
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            if headers.get("content-type", "").startswith("text/plain"):
                response.body = ErrorReply(error=_INVALID).model_dump_json().encode()
                del headers["content-type"], headers["content-length"]
                headers["content-type"] = "application/json"
                headers["content-length"] = str(len(response.body))
            for name, value in SECURITY_HEADERS:
                headers.setdefault(name, value)
        super().send_response(response)


WIRE: Final = "penstock.wire"
"""The scope's extension (ASGI) under which an application finds the protocol: to write at once."""


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket."""

    on_lost: Callable[[], None]
    """Called once the connection is gone."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.conn = _Handshake(
            extensions=self.conn.available_extensions,
            max_size=self.config.ws_max_size,
            logger=self.conn.logger,
        )
        self._held_pong = b""
        self._abort_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """A request that the parser refuses is answered, too."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(refusal(HTTPStatus.BAD_REQUEST, _INVALID))
            self.handshake_initiated = True
            self._close_transport()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, at last."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self.on_lost()
        super().connection_lost(exc)

    def handle_ping(self) -> None:
        """Answer; to a peer that does not read, the latest ping only (RFC 6455 §5.5.3)."""
        output = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(output))
        elif output:
            self._held_pong = output[-1]

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self._held_pong:
            self.transport.write(self._held_pong)
            self._held_pong = b""

    def handle_cont(self, event: Frame) -> None:
        """One more fragment."""
        if len(self.frames) == _MAX_FRAGMENTS:
            self.frames = [b"".join(self.frames)]
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """A message is complete; uvicorn would log a traceback for each that is not UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_close(self, event: Frame) -> None:
        """The peer closes, or agrees to."""
        super().handle_close(event)
        self._abort_later()

    def handle_parser_exception(self) -> None:
        """The peer breaks the protocol."""
        super().handle_parser_exception()
        self._abort_later()

    def keepalive_timeout(self) -> None:
        """The peer answers no pings."""
        super().keepalive_timeout()
        self._abort_later()

    async def run_asgi(self) -> None:
        """Serve; when the application returns, the connection ends."""
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[WIRE] = self
        await super().run_asgi()
        del extensions[WIRE]  # no cycle keeps what is closed in memory
        self._abort_later()

    async def send(self, message: Any) -> None:
        """Send when the peer has read enough; a close waits for nothing.

        Beside ASGI's `text` a message may have `events`: several texts as UTF-8, written at once.
        """
        kind = message["type"]
        if kind == "websocket.close":
            self.writable.set()  # whoever waits to send learns that it is too late
            await super().send(message)
            self._abort_later()
            return
        if not self.writable.is_set():
            await self.writable.wait()
        if kind != "websocket.send" or not self.handshake_complete:
            await super().send(message)
        elif self.conn.state is not State.OPEN or self.disconnected:
            raise ClientDisconnected
        elif "events" not in message:
            await super().send(message)
        elif self.conn.extensions:
            for text in message["events"]:
                await super().send({"type": kind, "text": text.decode()})
        else:
            self.write(message["events"])

    def ready(self) -> bool:
        """Whether `write` may be called: the handshake is done, and the peer has read enough."""
        return (
            self.writable.is_set()
            and self.conn.state is State.OPEN
            and not self.conn.extensions
            and not self.disconnected
        )

    def write(self, texts: list[bytes]) -> None:
        """Write events at once; what the edge does a hundred thousand times a second."""
        parts = [part for text in texts for part in (_head(len(text)), text)]
        self.transport.write(b"".join(parts))

    def _close_transport(self) -> None:
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        """`transport.close` first flushes what the peer, perhaps, never reads."""
        if self._abort_timer is None and not self.disconnected:
            self._abort_timer = self.loop.call_later(self.close_timeout, self.transport.abort)


def _head(size: int) -> bytes:
    """Of an unmasked text frame (RFC 6455 §5.2)."""
    if size <= _SHORT:
        return bytes((_TEXT, size))
    if size <= _MEDIUM:
        return _MEDIUM_HEAD.pack(_TEXT, _SHORT + 1, size)
    return _LONG_HEAD.pack(_TEXT, _SHORT + 2, size)
