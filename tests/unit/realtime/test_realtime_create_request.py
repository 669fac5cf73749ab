"""Which bodies are requests, and what is said of those that are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import (
    ParsedResponseFunctionToolCall,
    ParsedResponseOutputMessage,
    ParsedResponseOutputText,
)
from openai.types.responses.response_function_tool_call_output_item import (
    ResponseFunctionToolCallOutputItem,
)

from penstock_realtime.domain.create_request import parse_create
from penstock_shared.contracts.errors import PermanentError, TooLargeError
from penstock_shared.contracts.requests import Content


def parse(**fields: Any) -> Any:
    return parse_create(json.dumps({"input": "x", **fields}))


def test_the_conversation_is_put_together() -> None:
    """Instructions come first; parts of a message are joined; history keeps its roles."""
    request = parse(
        instructions="Be kind.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "a"},
                                         {"type": "input_text", "text": "b"}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "c", "annotations": []}]},
            {"role": "developer", "content": "d"},
        ],
    )  # fmt: skip
    turns = Content.model_validate_json(request.content()).messages
    assert [(turn.role, turn.content) for turn in turns] == [
        ("system", "Be kind."), ("user", "ab"), ("assistant", "c"), ("developer", "d"),
    ]  # fmt: skip


def test_nulls_are_not_given() -> None:
    """SDKs send null for what the caller left out."""
    request = parse(
        model=None, instructions=None, max_output_tokens=None, temperature=None, top_p=None,
        stream=None, store=None, metadata=None, safety_identifier=None, tools=None, text=None,
        previous_response_id=None, reasoning=None,
    )  # fmt: skip
    assert request.model == "auto"
    assert request.sampling.temperature == 0.0
    assert request.echo == {}
    assert request.store


def test_the_sdks_own_items_are_input_again() -> None:
    """Dumped whole, as `parse` returns them: what they carry along as null is not used."""
    text = ParsedResponseOutputText[Any](
        type="output_text", text="a", annotations=[], logprobs=[], parsed={"x": 1}
    )
    message = ParsedResponseOutputMessage[Any](
        id="m", type="message", role="assistant", status="completed", content=[text]
    )
    call = ParsedResponseFunctionToolCall(
        id="f", type="function_call", call_id="c", name="n", arguments="{}", parsed_arguments={}
    )
    output = ResponseFunctionToolCallOutputItem(
        id="o", type="function_call_output", call_id="c", output="b", status="completed"
    )
    items = [message, call, output]
    for dumped in ([item.model_dump() for item in items], [item.to_dict() for item in items]):
        turns = parse(input=dumped).turns
        assert [(turn.role, turn.content) for turn in turns] == [
            ("assistant", "a"), ("assistant", "{}"), ("tool", "b"),
        ]  # fmt: skip
    used = {**call.model_dump(), "namespace": "mine"}
    with pytest.raises(PermanentError) as caught:
        parse(input=[used])
    assert (caught.value.code, caught.value.param) == (
        "unsupported_parameter",
        "input[0].namespace",
    )


@pytest.mark.parametrize(
    "harmless",
    [
        {"tools": []}, {"tool_choice": "auto"}, {"parallel_tool_calls": True},
        {"text": {"format": {"type": "text"}}}, {"truncation": "disabled"}, {"include": []},
        {"background": False}, {"service_tier": "auto"}, {"top_logprobs": 0}, {"store": False},
        {"reasoning": {}}, {"background_options": {"completion_window": "soonest"}},
        {"reasoning": {"effort": "none"}},
        {"text": {"format": None, "verbosity": None}}, {"tool_choice": "none"},
        {"stream_options": {"include_obfuscation": False}},
    ],
)  # fmt: skip
def test_what_asks_for_nothing_is_accepted(harmless: dict[str, Any]) -> None:
    """Frameworks send defaults along; they change nothing here."""
    assert parse(**harmless).model == "auto"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"background": True, "store": False}, "invalid_value", "background"),
        ({"background": 0}, "invalid_type", "background"),
        ({"previous_response_id": "resp_1"}, "invalid_value", "previous_response_id"),
        ({"previous_response_id": 1}, "invalid_type", "previous_response_id"),
        ({"truncation": "auto"}, "unsupported_parameter", "truncation"),
        ({"prompt_cache_key": "k"}, "unsupported_parameter", "prompt_cache_key"),
        ({"max_tool_calls": 1}, "unsupported_parameter", "max_tool_calls"),
        ({"include": ["reasoning.encrypted_content"]}, "unsupported_parameter", "include"),
        (
            {"stream_options": {"include_obfuscation": True}},
            "unsupported_parameter",
            "stream_options",
        ),
        ({"reasoning": {"effort": "low"}}, "unsupported_parameter", "reasoning"),
        ({"user": ""}, "invalid_value", "user"),
        ({"modle": "x"}, "unknown_parameter", "modle"),
        ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"max_output_tokens": 32_769}, "invalid_value", "max_output_tokens"),
        ({"max_output_tokens": "9"}, "invalid_type", "max_output_tokens"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"stream": "true"}, "invalid_type", "stream"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "invalid_value", "metadata"),
        ({"safety_identifier": ""}, "invalid_value", "safety_identifier"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": []}, "empty_input", "input"),
        ({"input": "  "}, "empty_input", "input"),
        ({"input": 7}, "invalid_type", "input"),
        ({"input": ["x"]}, "invalid_type", "input[0]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"role": "user"}]}, "invalid_type", "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "y": 1}]}, "unknown_parameter", "input[0].y"),
        (
            {"input": [{"type": "item_reference", "id": "msg_1"}]},
            "unsupported_parameter",
            "input[0].type",
        ),
        ({"input": [{"type": "reasoning"}]}, "unsupported_parameter", "input[0].type"),
        (
            {"input": [{"type": "function_call_output"}]},
            "missing_required_parameter",
            "input[0].call_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "unsupported_parameter",
            "input[0].content[0].type",
        ),
    ],
)
def test_the_error_names_the_field(fields: dict[str, Any], code: str, param: str) -> None:
    """An error says which field was wrong, in the caller's own terms."""
    with pytest.raises(PermanentError) as caught:
        parse(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.http_status == 400


def test_the_input_limit_is_one_of_bytes() -> None:
    """A conversation over the limit is too large, whatever its characters count."""
    with pytest.raises(TooLargeError):
        parse(input="ü" * 140_000)
    parse(input="x" * 260_000)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"input": NaN}', b"\xff", b"[" * 10_000]
)
def test_what_is_no_json_object(raw: bytes) -> None:
    """Malformed bodies are a client's error, at any depth of nesting."""
    with pytest.raises(PermanentError) as caught:
        parse_create(raw)
    assert caught.value.code == "invalid_json"
