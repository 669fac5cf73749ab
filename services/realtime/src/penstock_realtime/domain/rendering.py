"""The events of one response as bytes, in the order of OpenAI's Responses API.

Source: the event types of the official SDK (`openai.types.responses`), version 3.52. A delta's
text is passed through as the JSON literal that the worker made; nothing is parsed on its way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from penstock_realtime.domain.renderer import CallHold, Gap, Piece, Told
from penstock_realtime.domain.response_object import ResponseHead, finished, response_id
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
_ITEM_ADDED: Final = 2
FIRST_DELTA: Final = 4
"""The sequence number of delta 0."""
GAP_EVENT: Final = "penstock.gap"
"""Not of the vendor's: deltas that will not come (I6)."""


def delta_before(sequence_number: int) -> int:
    """The last delta of those events, by its own number, that end with this one; -1 for none."""
    return max(sequence_number - FIRST_DELTA, -1)


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
    """Renders one response's events. Each item returned is one event.

    An event's number says where in the answer it belongs, so it is the same on every connection
    and every instance: 0 to 3 open the response and its item, delta n is `FIRST_DELTA` + n, and
    what closes the response follows the last delta. What joins several deltas, or stands for
    missing ones, has the last one's number, and names the first.
    """

    head: ResponseHead
    framing: Framing
    after: int = -1
    """The last number that the client has: nothing up to it is told again."""
    _told: int = -1
    """The highest delta number told here."""
    _item_open: bool = False
    _hold: CallHold[Piece | Gap] = field(init=False)
    _delta_start: bytes = field(init=False)
    _delta_end: bytes = field(init=False)

    def __post_init__(self) -> None:
        # Whoever has the item's first event knows that it is no call that may still run.
        self._hold = CallHold(may_call=bool(self.head.tools) and self.after < _ITEM_ADDED)
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
            *self._event(0, "response.created", response),
            *self._event(1, "response.in_progress", response),
        ]

    def deltas(self, pieces: list[Piece]) -> list[bytes]:
        """Deltas, after what opens the item if they are the first."""
        return self._tell(self._hold.pass_on([*pieces]))

    def gap(self, gap: Gap) -> list[bytes]:
        """Some deltas will not come; of a call nothing is missing, since its end tells it whole."""
        return self._tell(self._hold.pass_on([gap]))

    def closing(self, final: FinalFrame) -> list[bytes]:
        """What follows the last delta, up to the event that ends the response."""
        if final.called is not None:
            events, number = self._close_call(final)
        else:
            events = self._tell(self._hold.release())
            number = FIRST_DELTA + max(final.end_number, self._told + 1)
            if final.status is Status.FAILED and not self._item_open and number == FIRST_DELTA:
                number = _ITEM_ADDED  # nothing was said
            elif final.status is not Status.FAILED:
                events += self._close_message(final, number)
                number += 3
        if number < self.after or (number == self.after and final.status is Status.FAILED):
            number = self.after + 1  # numbers of a run that did not win: the end must be told
        response = {"response": finished(self.head, final)}
        return events + self._event(number, _END_EVENT[final.status], response)

    def failure(self, error: ErrorBody, status: int) -> list[bytes]:
        """The edge itself cannot go on. The response may still end well: retrieve it."""
        if not self.framing.server_sent:
            fields: dict[str, Any] = {"error": error.model_dump(), "status": status}
        else:
            fields = {"code": error.code, "message": error.message, "param": error.param}
        number = FIRST_DELTA + self._told + 1 if self._item_open else _ITEM_ADDED
        return self._event(max(number, self.after + 1), "error", fields)

    def _tell(self, told: Told) -> list[bytes]:
        if not told:
            return []
        self._told = told[-1].last
        events = self._open_message()
        for one in told:
            if isinstance(one, Gap):
                events += self._gap(one)
            else:
                events.append(self._delta(one))
        return events

    def _gap(self, gap: Gap) -> list[bytes]:
        fields = {
            "first_sequence_number": FIRST_DELTA + gap.first,
            "response_id": response_id(self.head.request_id),
            "reason": gap.reason,
        }
        return self._event(FIRST_DELTA + gap.last, GAP_EVENT, fields)

    def _delta(self, piece: Piece) -> bytes:
        number = FIRST_DELTA + piece.last
        if piece.first == piece.last:
            return b'%b%d,"delta":%b%b' % (
                self._delta_start, number, piece.literal, self._delta_end
            )  # fmt: skip
        return b'%b%d,"first_sequence_number":%d,"delta":%b%b' % (
            self._delta_start, number, FIRST_DELTA + piece.first, piece.literal, self._delta_end
        )  # fmt: skip

    def _open_message(self) -> list[bytes]:
        if self._item_open:
            return []
        self._item_open = True
        item = {"output_index": 0, "item": self.head.message("", "in_progress")}
        part = {**self._place(), "part": self.head.part("")}
        return [
            *self._event(_ITEM_ADDED, "response.output_item.added", item),
            *self._event(_ITEM_ADDED + 1, "response.content_part.added", part),
        ]

    def _close_message(self, final: FinalFrame, number: int) -> list[bytes]:
        text, place = final.text, self._place()
        item = {"output_index": 0, "item": self.head.output(final)}
        part = {**place, "part": self.head.part(text)}
        done = {**place, "logprobs": [], "text": text}
        return [
            *self._open_message(),
            *self._event(number, "response.output_text.done", done),
            *self._event(number + 1, "response.content_part.done", part),
            *self._event(number + 2, "response.output_item.done", item),
        ]

    def _close_call(self, final: FinalFrame) -> tuple[list[bytes], int]:
        """A function call, which is told at its end only; and the number that follows."""
        item = self.head.output(final)
        place = {"item_id": item["id"], "output_index": 0}
        added = {**item, "arguments": "", "status": "in_progress"}
        done = {**place, "name": item["name"], "arguments": final.text}
        steps = [
            ("response.output_item.added", {"output_index": 0, "item": added}),
            ("response.function_call_arguments.delta", {**place, "delta": final.text}),
            ("response.function_call_arguments.done", done),
            ("response.output_item.done", {"output_index": 0, "item": item}),
        ]
        events = [
            event
            for offset, (kind, fields) in enumerate(steps)
            for event in self._event(_ITEM_ADDED + offset, kind, fields)
        ]
        return events, _ITEM_ADDED + len(steps)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.head.item_id, "output_index": 0, "content_index": 0}

    def _event(self, number: int, kind: str, fields: dict[str, Any]) -> list[bytes]:
        if number <= self.after:
            return []
        body = compact({"sequence_number": number, **fields})
        return [self.framing.start(kind) + body[1:-1] + self.framing.end]
