"""Bodies of the Responses API that are nearly right: served, or an error that names the field."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response
from tests.support.spoilt_bodies import judge_all, parsed

from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.rendering import compact
from penstock_realtime.domain.response_object import ResponseHead
from penstock_shared.contracts.requests import Content
from penstock_shared.runtime.clock import SystemClock

ID = "0190e0f0-0000-7000-8000-000000000001"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
SEEDS: list[dict[str, Any]] = [
    {
        "model": "auto", "instructions": "i", "max_output_tokens": 9, "temperature": 0.5,
        "top_p": 0.5, "stream": True, "store": True, "background": True, "user": "u",
        "parallel_tool_calls": True, "safety_identifier": "s", "metadata": {"k": "v"},
        "previous_response_id": f"resp_{ID}", "include": [], "truncation": "disabled",
        "stream_options": {"include_obfuscation": False}, "reasoning": {"effort": None},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
                 "verbosity": "medium"},
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "description": "d",
                   "strict": None}, {"type": "function", "name": "g"}],
        "tool_choice": {"type": "allowed_tools", "mode": "required",
                        "tools": [{"type": "function", "name": "g"}]},
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "t"}]},
            {"type": "message", "role": "assistant", "id": "m", "status": "completed",
             "content": [{"type": "output_text", "text": "t", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}",
             "status": "completed"},
            {"type": "function_call_output", "call_id": "c", "output": "o"},
        ],
    },
    {"input": "x", "tools": [{"type": "function", "name": "f"}],
     "tool_choice": {"type": "function", "name": "f"}, "text": {"format": {"type": "text"}}},
]  # fmt: skip


def judge(body: dict[str, Any]) -> bool:
    """A request whose response object the SDK's own type takes; or a 4xx that names its field."""
    request = parsed(parse_create, body)
    if request is None:
        return False
    content = Content.model_validate_json(request.content())
    assert content.tools == request.tools
    names = tuple(tool.name for tool in request.tools)
    head = ResponseHead(ID, "m", SystemClock().now(), request.echo, names)
    Response.model_validate_json(compact(head.in_progress()), strict=True)
    return True


def test_a_body_that_is_nearly_right_is_served_or_named() -> None:
    """Never another exception, never an unnamed field, never a response that no SDK reads."""
    judge_all(4, 1_000, SEEDS, judge)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_thousand_bodies_that_are_nearly_right() -> None:
    """The same, outside CI."""
    judge_all(5, 100_000, SEEDS, judge)
