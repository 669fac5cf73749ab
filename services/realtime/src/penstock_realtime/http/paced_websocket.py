"""WebSockets that are parsed in pieces, so that a flood on one of them delays nobody else.

uvicorn parses all that one read brings (256 kB: 43,000 of the smallest messages) into one queue,
15 MB of it, and an application that answers each without waiting gives nobody else a turn.
"""

from __future__ import annotations

from typing import Any, Final

from penstock_realtime.http.websocket_protocol import BoundedWebSocket

_PIECE_BYTES: Final = 2048
"""Parsed at a time: at most 341 messages."""


class PacedWebSocket(BoundedWebSocket):
    """One WebSocket."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._unparsed = bytearray()
        """Nothing is read while there is any."""
        self._turn_due = False

    def data_received(self, data: bytes) -> None:
        """Parse it, or what of it one turn may."""
        if len(data) <= _PIECE_BYTES and not self._unparsed:
            super().data_received(data)
            return
        self._unparsed += data
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()
        self._go_on()

    async def receive(self) -> Any:
        """The next message; only when there is none more is parsed, and then read."""
        message = await self.queue.get()
        self._go_on()
        return message

    def _go_on(self) -> None:
        if not (self.queue.empty() or self.close_sent):
            return
        if not self._unparsed:
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
        elif not self._turn_due:
            self._turn_due = True
            self.loop.call_soon(self._parse_piece)

    def _parse_piece(self) -> None:
        self._turn_due = False
        if self.transport.is_closing():
            self._unparsed.clear()
            return
        piece = bytes(self._unparsed[:_PIECE_BYTES])
        del self._unparsed[:_PIECE_BYTES]
        super().data_received(piece)
        self._go_on()
