"""The chunks of one streamed chat completion, as server-sent events.

A delta's text is passed through as the JSON literal that the worker made; nothing is parsed on its
way. The API has no event for a gap and none for a failure: both end the stream with an `error`.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import to_json

from penstock_realtime.domain.chat_object import (
    completion_id,
    described,
    failed,
    finish_reason,
    tool_call,
    usage_object,
)
from penstock_realtime.domain.renderer import CallHold, Gap, Piece, Told
from penstock_realtime.domain.response_object import ResponseHead, response_id
from penstock_shared.contracts.errors import ErrorBody, PenstockError
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame

_DONE: Final = b"data: [DONE]\n\n"


class ChatStream:
    """Renders one completion's chunks. Each item returned is one event."""

    def __init__(self, head: ResponseHead, *, include_usage: bool) -> None:
        self._head = head
        self._described = described(head, "chat.completion.chunk")
        self._include_usage = include_usage
        self._hold: CallHold[Piece | Gap] = CallHold(may_call=bool(head.tools))
        content = self._chunk({"content": "\x00"})
        self._start, self._end = content.split(to_json("\x00"))

    def opening(self) -> list[bytes]:
        """The role; whether there will be content is open while there are tools to call."""
        content = None if self._head.tools else ""
        return [self._chunk({"role": "assistant", "content": content, "refusal": None})]

    def deltas(self, pieces: list[Piece]) -> list[bytes]:
        """A chunk for each piece, once it is no call."""
        return self._contents(self._hold.pass_on([*pieces]))

    def gap(self, gap: Gap) -> list[bytes]:
        """Harmless while nothing has been told, since the end tells the whole text then.

        Raises:
            PenstockError: something has; it says where the whole text will be.
        """
        return self._contents(self._hold.pass_on([gap]))

    def closing(self, final: FinalFrame) -> list[bytes]:
        """The call, if it is one; the reason; the usage, if asked for; and the API's last line.

        Raises:
            ConflictError: the answer is to another request, made with the same idempotency key.
        """
        if final.status is Status.FAILED:
            return self._error(failed(final).body())
        self._described["model"] = final.model  # of the attempt that answered
        if final.called is None:
            held = self._hold.release()
            chunks = [self._content(to_json(final.text))] if _broken(held) else self._contents(held)
        else:
            call = {"index": 0, **tool_call(self._head, final.called, "")}
            arguments = {"index": 0, "function": {"arguments": final.text}}
            chunks = [self._chunk({"tool_calls": [part]}) for part in (call, arguments)]
        chunks.append(self._chunk({}, finish_reason(final)))
        if self._include_usage:
            usage = {"choices": [], "usage": usage_object(final.usage)}
            chunks.append(_event({**self._described, **usage}))
        return [*chunks, _DONE]

    def failure(self, error: ErrorBody, status: int) -> list[bytes]:  # noqa: ARG002  no place
        """The edge itself cannot go on; without `[DONE]`, so that nobody takes it for the end."""
        return self._error(error)

    def _contents(self, told: Told) -> list[bytes]:
        events = []
        for one in told:
            if isinstance(one, Gap):
                raise self._lost(one)
            events.append(self._content(one.literal))
        return events

    def _content(self, literal: bytes) -> bytes:
        return self._start + literal + self._end

    def _lost(self, gap: Gap) -> PenstockError:
        """Nobody assembles a text around a hole: the stream ends here, the generation does not."""
        request_id = self._head.request_id
        whole = (
            f"once it is done: GET /v1/responses/{response_id(request_id)}"
            if self._head.echo.get("store")
            else "from the same request with the same 'Idempotency-Key', if it was sent with one"
        )
        msg = (
            f"Deltas {gap.first} to {gap.last} of {completion_id(request_id)} are lost "
            f"({gap.reason}). Its whole text is there {whole}."
        )
        return PenstockError(msg, code="deltas_lost")

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        unknown = {"usage": None} if self._include_usage else {}
        return _event({**self._described, "choices": [choice], **unknown})

    def _error(self, error: ErrorBody) -> list[bytes]:
        return [_event({"error": error.model_dump()})]


def _broken(told: Told) -> bool:
    return any(isinstance(one, Gap) for one in told)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
