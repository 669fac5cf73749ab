"""Chat completions and their chunks, held against the official SDK's types."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.support.sdk_types import conforming

from penstock_realtime.domain.chat_object import completion
from penstock_realtime.domain.chat_rendering import ChatStream
from penstock_realtime.domain.renderer import Gap, Piece, Told
from penstock_realtime.domain.response_object import ResponseHead
from penstock_realtime.errors import FailedError
from penstock_realtime.serving.following import Following
from penstock_realtime.serving.streaming import events
from penstock_shared.contracts.errors import ConflictError, ErrorBody, PenstockError
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.usage import Usage

REQUEST = "0198a1b2-0000-7000-8000-000000000001"
HEX = REQUEST.replace("-", "")


def head(*tools: str) -> ResponseHead:
    return ResponseHead(
        request_id=REQUEST,
        model="echo",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        echo={"metadata": {"a": "b"}, "store": False},
        tools=tools,
    )


def final(text: str = "Hello", **given: Any) -> FinalFrame:
    values: dict[str, Any] = {
        "request_id": REQUEST,
        "status": Status.COMPLETED,
        "reason": "stop",
        "model": "echo",
        "attempt": 1,
        "run": None,
        "deltas": 1,
        "delta_ends": (len(text),),
        "text": text,
        "usage": Usage(input_tokens=3, output_tokens=5),
    }
    return FinalFrame(**values | given)


def pieces(*texts: str) -> list[Piece]:
    return [Piece(n, n, json.dumps(text).encode()) for n, text in enumerate(texts)]


def chunks(events: list[bytes]) -> list[ChatCompletionChunk]:
    """Every event but the API's last line, which must be there."""
    *told, done = events
    assert done == b"data: [DONE]\n\n"
    for event in told:
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        assert event.count(b"\n") == 2
    return [conforming(ChatCompletionChunk, json.loads(event[6:])) for event in told]


def error_of(event: bytes) -> Any:
    return json.loads(event.removeprefix(b"data: "))["error"]


def test_a_whole_completion() -> None:
    """Every field is of the SDK's type; ids, times, metadata and usage are the request's own."""
    made = conforming(ChatCompletion, completion(head(), final()))
    assert (made.id, made.model, made.created) == (f"chatcmpl-{HEX}", "echo", 1767225600)
    (choice,) = made.choices
    assert (choice.finish_reason, choice.message.content) == ("stop", "Hello")
    assert made.metadata == {"a": "b"}
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (
        3,
        5,
        8,
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [(Status.INCOMPLETE, "max_output_tokens"), (Status.CANCELLED, "cancelled")],
)
def test_what_was_cut_off_does_not_pass_for_whole(status: Status, reason: str) -> None:
    """Also a cancelled answer ends for its length: SDKs refuse to parse such as complete."""
    ended = final("Hel", status=status, reason=reason)
    made = conforming(ChatCompletion, completion(head(), ended))
    assert made.choices[0].finish_reason == "length"
    assert chunks(streamed(head(), ended, "Hel"))[-1].choices[0].finish_reason == "length"


def test_a_call_has_no_content() -> None:
    """The answer that calls a function is a tool call with its arguments and its name."""
    made = conforming(ChatCompletion, completion(head("f", "g"), final('{"a":1}', called=1)))
    (choice,) = made.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.to_dict()["tool_calls"] == [
        {
            "id": f"call_{HEX}",
            "type": "function",
            "function": {"name": "g", "arguments": '{"a":1}'},
        }
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ErrorBody(message="m", type="invalid_request_error", code="empty_prompt"), 400),
        (ErrorBody(message="m", type="invalid_request_error", code="erased"), 410),
        (ErrorBody(message="m", type="service_unavailable_error", code="model_failed"), 503),
        (ErrorBody(message="m", type="server_error", code="expired"), 504),
        (ErrorBody(message="m", type="server_error", code="output_invalid"), 422),
        (ErrorBody(message="m", type="something new", code="x"), 500),
        (None, 500),
    ],
)
def test_a_failed_answer_is_an_error(error: ErrorBody | None, status: int) -> None:
    """The terminal's own words; the stream tells the same, and no `[DONE]` after it."""
    failed = final("", status=Status.FAILED, reason="error", error=error)
    with pytest.raises(FailedError) as caught:
        completion(head(), failed)
    assert caught.value.status == status
    assert error is None or caught.value.body() == error
    (event,) = ChatStream(head(), include_usage=True).closing(failed)
    assert error_of(event) == caught.value.body().model_dump()


def test_an_error_names_the_parameter_as_this_api_does() -> None:
    """A worker speaks of its `input`: whoever chats sent `messages`."""
    for theirs, ours in (("input", "messages"), ("output_schema", "response_format"), ("x", "x")):
        error = ErrorBody(message="m", type="invalid_request_error", code="c", param=theirs)
        ended = final("", status=Status.FAILED, reason="error", error=error)
        with pytest.raises(FailedError) as caught:
            completion(head(), ended)
        assert caught.value.body().param == ours
        (event,) = ChatStream(head(), include_usage=False).closing(ended)
        assert error_of(event)["param"] == ours


def streamed(
    of: ResponseHead, ended: FinalFrame, *texts: str, include_usage: bool = False
) -> list[bytes]:
    stream = ChatStream(of, include_usage=include_usage)
    told = [*stream.opening()]
    for piece in pieces(*texts):
        told += stream.deltas([piece])
    return told + stream.closing(ended)


def test_a_stream_has_the_vendors_chunks() -> None:
    """The role, the text, the reason; no usage unless it is asked for."""
    events = streamed(head(), final(), "Hel", 'l"\n😀')
    first, *texts, last = chunks(events)
    assert first.choices[0].delta.to_dict() == {
        "role": "assistant", "content": "", "refusal": None,
    }  # fmt: skip
    assert [c.choices[0].delta.content for c in texts] == ["Hel", 'l"\n😀']
    assert last.choices[0].delta.to_dict() == {}
    assert [c.choices[0].finish_reason for c in (first, *texts, last)] == [None] * 3 + ["stop"]
    assert all(b"usage" not in event for event in events)


def test_usage_comes_in_a_chunk_of_its_own() -> None:
    """Null in every other chunk, and without choices in the last."""
    events = streamed(head(), final(), "Hello", include_usage=True)
    *others, last = chunks(events)
    assert all(json.loads(event[6:])["usage"] is None for event in events[:-2])
    assert all(chunk.choices for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 8


def test_a_call_is_streamed_as_one() -> None:
    """No text of it is told as content: its name and id first, then its arguments."""
    first, named, arguments, last = chunks(
        streamed(head("f"), final('{"a":1}', called=0), '{"a"', ":1}")
    )
    assert first.choices[0].delta.content is None
    assert named.choices[0].delta.to_dict() == {
        "tool_calls": [
            {
                "index": 0,
                "id": f"call_{HEX}",
                "type": "function",
                "function": {"name": "f", "arguments": ""},
            }
        ]
    }
    assert arguments.choices[0].delta.to_dict() == {
        "tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]
    }
    assert last.choices[0].finish_reason == "tool_calls"


def test_text_that_is_no_call_is_told_all_the_same() -> None:
    """Held back while it may be a call, passed on at once when it cannot be, never lost."""
    held = chunks(streamed(head("f"), final('{"b"}'), '{"b', '"}'))
    assert [c.choices[0].delta.content for c in held[1:-1]] == ['{"b', '"}']
    stream = ChatStream(head("f"), include_usage=False)
    assert len(stream.deltas(pieces("He"))) == 1


def test_the_answer_to_another_request_is_a_conflict() -> None:
    """An idempotency key that was used with other tools names a call that this one has not."""
    with pytest.raises(ConflictError, match="key of its own"):
        completion(head(), final("{}", called=0))
    with pytest.raises(ConflictError):
        ChatStream(head(), include_usage=False).closing(final("{}", called=0))


@pytest.mark.parametrize(
    ("store", "where"),
    [(True, f"GET /v1/responses/resp_{HEX}"), (False, "the same 'Idempotency-Key'")],
)
def test_a_gap_ends_the_stream_with_an_error(*, store: bool, where: str) -> None:
    """Nobody assembles a text around a hole; the error says where the whole one is (I6)."""
    stream = ChatStream(replace(head(), echo={"store": store}), include_usage=False)
    with pytest.raises(PenstockError, match=where) as caught:
        stream.gap(Gap(2, 7, "expired"))
    (event,) = stream.failure(caught.value.body(), 500)
    assert error_of(event)["code"] == "deltas_lost"


@pytest.mark.parametrize("called", [0, None])
def test_a_gap_before_anything_was_told_is_none(called: int | None) -> None:
    """Text that waits whether it is a call comes from the end, whole (I6)."""
    stream = ChatStream(head("f"), include_usage=False)
    told = stream.deltas(pieces('{"a"')) + stream.gap(Gap(1, 3, "expired"))
    assert told == []
    first, *others, last = chunks(stream.closing(final('{"a":1}', called=called)))
    if called is None:
        assert first.choices[0].delta.content == '{"a":1}'
        assert others == []
    assert last.choices[0].finish_reason == ("stop" if called is None else "tool_calls")


async def test_a_gap_ends_the_stream_at_once() -> None:
    """What was there before it is told, then the error, and nothing after it."""

    class Torn:
        """A response whose early text has expired."""

        closed = False
        lagging = False

        async def pieces(self, *, after: int | None, passage: object = None) -> AsyncIterator[Told]:
            assert (after, passage) == (None, None)
            yield [*pieces("Hel")]
            yield [Gap(1, 4, "expired"), Piece(5, 5, b'"end"')]
            pytest.fail("the stream goes on")

        async def close(self) -> None:
            self.closed = True

    torn = Torn()
    stream = events(cast("Following", torn), ChatStream(head(), include_usage=True))
    told = [event async for batch in stream for event in batch]
    assert [json.loads(event[6:]).get("error") is not None for event in told] == [
        False,
        False,
        True,
    ]
    assert error_of(told[-1])["code"] == "deltas_lost"
    assert torn.closed
