"""Bodies of the Responses API that are nearly right: served, or an error that names the field."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from openai.types.responses import Response

from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.rendering import compact
from penstock_realtime.domain.response_object import ResponseHead
from penstock_shared.contracts.errors import PermanentError
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
JUNK: list[Any] = [
    None, True, False, 0, -1, 7, 0.5, 1e300, 10**30, "", "x", "function", "auto", "required",
    "json_schema", "\x00", "ü" * 70, "a" * 300, [], [[]], [None], {}, {"type": "function"},
    {"type": "mcp"}, {"$ref": "#"}, {"a": {"b": {}}}, [{"type": "item_reference", "id": "x"}],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a body."""
    below = (
        value.items() if isinstance(value, dict) else
        enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return ([path] if path else []) + [
        found for name, child in below for found in places(child, (*path, name))
    ]


def change(body: Any, path: tuple[Any, ...], how: str, junk: Any) -> None:
    """Replace, drop, double or misname what stands at `path`."""
    *way, last = path
    for step in way:
        body = body[step]
    if isinstance(body, dict):
        value = body.pop(last)
        if how != "drop":
            body[f"{last}_" if how == "misname" else last] = junk if how == "replace" else value
    elif how == "double":
        body.append(copy.deepcopy(body[last]))
    else:
        body[last] = junk


def spoilt(rng: random.Random) -> dict[str, Any]:
    """A right body with up to three changes anywhere in it."""
    body = copy.deepcopy(rng.choice(SEEDS))
    for _ in range(rng.randrange(4)):
        path = rng.choice(places(body) or [("input",)])
        how = rng.choice(["replace", "drop", "double", "misname"])
        change(body, path, how, copy.deepcopy(rng.choice(JUNK)))
    return body


def judge(body: dict[str, Any]) -> bool:
    """A request whose response object the SDK's own type takes; or a 4xx that names its field."""
    refusal = None
    try:
        request = parse_create(json.dumps(body))
    except PermanentError as error:
        refusal = error
    if refusal is not None:
        assert 400 <= refusal.http_status < 500
        assert refusal.param
        assert refusal.message
        return False
    content = Content.model_validate_json(request.content())
    assert content.tools == request.tools
    names = tuple(tool.name for tool in request.tools)
    head = ResponseHead(ID, "m", SystemClock().now(), request.echo, names)
    Response.model_validate_json(compact(head.in_progress()), strict=True)
    return True


def judge_all(seed: int, count: int) -> None:
    rng = random.Random(seed)
    served = 0
    for number in range(count):
        body = spoilt(rng)
        try:
            served += judge(body)
        except Exception as error:
            error.add_note(f"body {number} of seed {seed}: {json.dumps(body)}")
            raise
    assert 0.1 < served / count < 0.9  # neither side is untried


def test_a_body_that_is_nearly_right_is_served_or_named() -> None:
    """Never another exception, never an unnamed field, never a response that no SDK reads."""
    judge_all(seed=4, count=1_000)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_thousand_bodies_that_are_nearly_right() -> None:
    """The same, outside CI."""
    judge_all(seed=5, count=100_000)
