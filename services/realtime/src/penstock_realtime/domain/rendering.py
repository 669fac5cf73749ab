"""The events of one response as bytes, in the order of OpenAI's Responses API.

Source: the event types of the official SDK (`openai.types.responses`), version 3.52. A delta's
text is passed through as the JSON literal that the worker made; nothing is parsed on its way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from penstock_realtime.domain.response_object import ResponseHead, finished
from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame

_END_EVENT: Final = {
    Status.COMPLETED: "response.completed",
    Status.INCOMPLETE: "response.incomplete",
    # The API has no event for it: `response.status` says "cancelled".
    Status.CANCELLED: "response.incomplete",
    Status.FAILED: "response.failed",
}


def compact(value: Any) -> bytes:
    """JSON without white space, at a fifth of the standard library's cost."""
    return to_json(value)


@dataclass(frozen=True, slots=True)
class Framing:
    """How one event is wrapped on the wire."""

    server_sent: bool
    stream_id: str | None = None
    """The WebSocket lane that `response.create` named; every event of it carries it."""

    def start(self, kind: str) -> bytes:
        """Everything of an event up to its own fields."""
        head = f"event: {kind}\ndata: " if self.server_sent else ""
        lane = "" if self.stream_id is None else f',"stream_id":{json.dumps(self.stream_id)}'
        return f'{head}{{"type":"{kind}"{lane},'.encode()

    @property
    def end(self) -> bytes:
        """What closes an event after its last field."""
        return b"}\n\n" if self.server_sent else b"}"


@dataclass(slots=True)
class EventStream:
    """Renders one response's events and numbers them. Each item returned is one event."""

    head: ResponseHead
    framing: Framing
    _next: int = 0
    _item_open: bool = False
    _delta_start: bytes = field(init=False)
    _delta_end: bytes = field(init=False)

    def __post_init__(self) -> None:
        place = compact(self._place())[1:-1]
        self._delta_start = (
            self.framing.start("response.output_text.delta")
            + place
            + b',"logprobs":[],"sequence_number":'
        )
        self._delta_end = self.framing.end

    def opening(self) -> list[bytes]:
        """`created` and `in_progress`: only once the request is durable (I1)."""
        response = {"response": self.head.in_progress()}
        return [
            self._event("response.created", response),
            self._event("response.in_progress", response),
        ]

    def delta(self, literal: bytes) -> bytes:
        """One delta; the item must be open."""
        number = self._next
        self._next = number + 1
        return b'%b%d,"delta":%b%b' % (self._delta_start, number, literal, self._delta_end)

    def deltas(self, literals: list[bytes]) -> list[bytes]:
        """Several deltas, after what opens the item if they are the first."""
        if not literals:
            return []
        return self._open_item() + [self.delta(literal) for literal in literals]

    def closing(self, final: FinalFrame) -> list[bytes]:
        """What follows the last delta, up to the event that ends the response."""
        item = [] if final.status is Status.FAILED else self._close_item(final)
        response = {"response": finished(self.head, final)}
        return [*item, self._event(_END_EVENT[final.status], response)]

    def failure(self, error: ErrorBody, status: int) -> bytes:
        """The edge itself cannot go on. The response may still end well: retrieve it."""
        if not self.framing.server_sent:
            fields: dict[str, Any] = {"error": error.model_dump(), "status": status}
        else:
            fields = {"code": error.code, "message": error.message, "param": error.param}
        return self._event("error", fields)

    def _open_item(self) -> list[bytes]:
        if self._item_open:
            return []
        self._item_open = True
        item = {"output_index": 0, "item": self.head.message("", "in_progress")}
        part = {**self._place(), "part": self.head.part("")}
        return [
            self._event("response.output_item.added", item),
            self._event("response.content_part.added", part),
        ]

    def _close_item(self, final: FinalFrame) -> list[bytes]:
        done = "completed" if final.status is Status.COMPLETED else "incomplete"
        place = self._place()
        return [
            *self._open_item(),
            self._event("response.output_text.done", {**place, "logprobs": [], "text": final.text}),
            self._event(
                "response.content_part.done", {**place, "part": self.head.part(final.text)}
            ),
            self._event(
                "response.output_item.done",
                {"output_index": 0, "item": self.head.message(final.text, done)},
            ),
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.head.item_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        number = self._next
        self._next = number + 1
        body = compact({"sequence_number": number, **fields})
        return self.framing.start(kind) + body[1:-1] + self.framing.end
