"""The response object in every shape, judged by the official SDK's own types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage
from pydantic import BaseModel

from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.rendering import compact
from penstock_realtime.domain.response_object import ResponseHead, finished
from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.usage import Usage

REQUEST_ID = "0190e0f0-0000-7000-8000-000000000001"
DIGITS = REQUEST_ID.replace("-", "")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False},
    {"type": "function", "name": "clock", "description": "Tells the time.", "strict": None},
]
ASKED: list[dict[str, Any]] = [
    {},
    {"instructions": "Be kind.", "max_output_tokens": 9, "temperature": 1, "top_p": 0.5,
     "metadata": {"a": "b"}, "store": False, "stream": True, "safety_identifier": "me"},
    {"background": True, "user": "me", "previous_response_id": f"resp_{DIGITS}",
     "parallel_tool_calls": False, "truncation": "disabled", "service_tier": "auto"},
    {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": "required", "text": {"format": {"type": "json_object"}}},
    {"tools": TOOLS, "tool_choice": {"type": "function", "name": "clock"},
     "text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}}},
    {"tools": TOOLS,
     "tool_choice": {"type": "allowed_tools", "mode": "auto",
                     "tools": [{"type": "function", "name": "clock"}]},
     "text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA,
                         "strict": True, "description": "Where."}}},
]  # fmt: skip


def head(asked: dict[str, Any]) -> ResponseHead:
    request = parse_create(json.dumps({"input": "x", **asked}))
    names = tuple(tool.name for tool in request.tools)
    return ResponseHead(REQUEST_ID, "m", datetime(2026, 1, 2, tzinfo=UTC), request.echo, names)


def final(status: Status, text: str = "Hi", **fields: Any) -> FinalFrame:
    return FinalFrame(
        request_id=REQUEST_ID,
        status=status,
        reason={Status.COMPLETED: "stop", Status.INCOMPLETE: "max_output_tokens"}.get(
            status, "error"
        ),
        model="m",
        attempt=1,
        run=REQUEST_ID,
        deltas=1,
        delta_ends=(len(text),),
        text=text,
        usage=Usage(input_tokens=3, output_tokens=4),
        **fields,
    )


def strictly(response: dict[str, Any]) -> Response:
    """As the SDK's type, without any conversion, and without a field that it does not know."""
    typed = Response.model_validate_json(compact(response), strict=True)
    # The vendor's API sends `store`, too, though its SDK has not typed it.
    assert list(strange(typed, "response")) == ["response.store"]
    return typed


def strange(value: Any, where: str) -> Iterator[str]:
    """Fields that the vendor's types do not have, at any depth."""
    if isinstance(value, BaseModel):
        yield from (f"{where}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from strange(getattr(value, name), f"{where}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from strange(item, f"{where}[{index}]")


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_response_that_runs(asked: dict[str, Any], status: str) -> None:
    """Everything that was asked is given back, in the vendor's types; nothing is answered yet."""
    shown = head(asked).response(status)
    typed = strictly(shown)
    assert (typed.id, typed.status, typed.output, typed.usage) == (
        f"resp_{DIGITS}",
        status,
        [],
        None,
    )
    for name, value in asked.items():
        if name not in ("stream", "tools", "text", "service_tier"):
            assert shown[name] == value
    assert [tool.name for tool in typed.tools if tool.type == "function"] == [
        tool["name"] for tool in asked.get("tools", [])
    ]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("status", [Status.COMPLETED, Status.INCOMPLETE, Status.CANCELLED])
def test_a_response_that_has_answered(asked: dict[str, Any], status: Status) -> None:
    """One message, as complete as the response is, and what it took."""
    typed = strictly(finished(head(asked), final(status)))
    (item,) = typed.output
    assert isinstance(item, ResponseOutputMessage)
    whole = "completed" if status is Status.COMPLETED else "incomplete"
    assert (item.id, item.status, typed.status) == (f"msg_{DIGITS}", whole, status.value)
    assert typed.output_text == "Hi"
    assert typed.usage is not None
    assert typed.usage.total_tokens == 7
    assert (typed.incomplete_details is not None) == (status is Status.INCOMPLETE)


@pytest.mark.parametrize("called", [0, 1])
def test_a_response_that_calls_a_function(called: int) -> None:
    """One function call instead of the message; its name comes from the client's own list."""
    shown = finished(head({"tools": TOOLS}), final(Status.COMPLETED, '{"a":1}', called=called))
    (item,) = strictly(shown).output
    assert isinstance(item, ResponseFunctionToolCall)
    assert (item.id, item.call_id) == (f"fc_{DIGITS}", f"call_{DIGITS}")
    assert (item.name, item.arguments, item.status) == (
        TOOLS[called]["name"], '{"a":1}', "completed",
    )  # fmt: skip


def test_the_called_function_is_counted_among_those_that_were_left() -> None:
    """`tool_choice` narrows the list; the worker counts what it got."""
    one = head({"tools": TOOLS, "tool_choice": {"type": "function", "name": "clock"}})
    (item,) = strictly(finished(one, final(Status.COMPLETED, "{}", called=0))).output
    assert isinstance(item, ResponseFunctionToolCall)
    assert item.name == "clock"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, "server_error"),
        (ErrorBody(message="m", type="server_error", code="poison"), "server_error"),
        (
            ErrorBody(
                message="m", type="invalid_request_error", code="context_length", param="input"
            ),
            "invalid_prompt",
        ),
    ],
)
def test_a_response_that_failed(error: ErrorBody | None, code: str) -> None:
    """The vendor's list of codes is closed; what exactly it was stands in `type`."""
    typed = strictly(finished(head({}), final(Status.FAILED, "", error=error)))
    assert typed.error is not None
    assert (typed.status, typed.output, typed.error.code) == ("failed", [], code)
    assert typed.error.type == (error and error.code)
    assert typed.error.message
