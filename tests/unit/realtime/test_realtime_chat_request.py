"""Which chat completions are asked for, and what is said of bodies that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_realtime.domain.chat_request import parse_chat
from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_shared.contracts.errors import PermanentError, TooLargeError
from penstock_shared.contracts.requests import Content

USER = {"role": "user", "content": "hi"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}}


def parse(**fields: Any) -> GenerationRequest:
    return parse_chat(json.dumps({"messages": [USER], **fields}).encode())


def turns(messages: list[Any]) -> list[tuple[str, str]]:
    content = Content.model_validate_json(parse(messages=messages).content())
    return [(turn.role, turn.content) for turn in content.messages]


def test_every_role_is_a_turn() -> None:
    """Texts and lists of text parts; a call is the arguments, its answer a turn of the tool."""
    assert turns([
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [{"type": "text", "text": "a"},
                                          {"type": "text", "text": "b"}]},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | {"id": "c2"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": ""}]},
        {"role": "assistant", "content": "It rains.", "tool_calls": [CALL]},
    ]) == [
        ("system", "Be kind."), ("developer", "ab"), ("user", "Weather?"),
        ("assistant", '{"a":1}'), ("assistant", '{"a":1}'), ("tool", "rain"), ("tool", ""),
        ("assistant", "It rains."), ("assistant", '{"a":1}'),
    ]  # fmt: skip


def test_what_the_sdks_give_back_may_be_sent_again() -> None:
    """Message objects of the SDKs carry empty fields, and repeat what they have parsed."""
    function = {**CALL["function"], "parsed_arguments": {"a": 1}}  # type: ignore[dict-item]
    message = {
        "role": "assistant", "content": "x", "refusal": None, "annotations": [], "audio": None,
        "function_call": None, "parsed": {"a": 1},
        "tool_calls": [{**CALL, "index": 0, "function": function}],
    }  # fmt: skip
    assert turns([USER, message])[1:] == [("assistant", "x"), ("assistant", '{"a":1}')]
    assert turns([USER, {**message, "tool_calls": None}])[1:] == [("assistant", "x")]


def test_nulls_are_not_given() -> None:
    """SDKs send null for what the caller left out."""
    names = (
        "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stream",
        "stream_options", "store", "user", "safety_identifier", "metadata", "tools",
        "tool_choice", "response_format", "stop", "logprobs", "seed", "n", "logit_bias", "audio",
    )  # fmt: skip
    request = parse(**dict.fromkeys(names))
    assert (request.model, request.store, request.stream) == ("auto", False, False)
    assert request.sampling.max_output_tokens is None
    assert request.output_schema is None


@pytest.mark.parametrize(
    "harmless",
    [
        {"n": 1}, {"stop": []}, {"logprobs": False}, {"top_logprobs": 0}, {"logit_bias": {}},
        {"frequency_penalty": 0}, {"presence_penalty": 0.0}, {"modalities": ["text"]},
        {"parallel_tool_calls": False}, {"service_tier": "auto"}, {"verbosity": "medium"},
        {"reasoning_effort": "none"}, {"functions": []}, {"function_call": "none"},
        {"tools": []}, {"response_format": {"type": "text"}}, {"tool_choice": "auto"},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
    ],
)  # fmt: skip
def test_what_asks_for_nothing_is_accepted(harmless: dict[str, Any]) -> None:
    """Frameworks send defaults along; they change nothing here."""
    assert parse(**harmless).content() == parse().content()


def test_the_parameters_that_are_served() -> None:
    """Each of them arrives where the platform looks for it."""
    request = parse(
        model="echo", max_completion_tokens=9, temperature=0.5, top_p=0.9, stream=True,
        stream_options={"include_usage": True}, store=True, user="u", metadata={"a": "b"},
    )  # fmt: skip
    assert request.model == "echo"
    assert request.sampling.model_dump() == {
        "max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9,
    }  # fmt: skip
    assert (request.stream, request.include_usage, request.store) == (True, True, True)
    assert request.safety_identifier == "u"
    assert parse(user="u", safety_identifier="s").safety_identifier == "s"
    assert parse(max_tokens=3).sampling.max_output_tokens == 3
    told = Content.model_validate_json(request.content()).request
    assert told == {"store": True, "metadata": {"a": "b"}}


@pytest.mark.parametrize(
    ("choice", "names", "must"),
    [
        (None, ["weather", "time"], False),
        ("auto", ["weather", "time"], False),
        ("none", [], False),
        ("required", ["weather", "time"], True),
        ({"type": "function", "function": {"name": "time"}}, ["time"], True),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                {"type": "function", "function": {"name": "time"}}]}},
            ["time"], False,
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER | {
                "function": {"name": "weather"}}]}},
            ["weather"], True,
        ),
    ],
)  # fmt: skip
def test_tool_choice(choice: Any, names: list[str], *, must: bool) -> None:
    """Which functions the answer may be, and whether it must be one."""
    time = {"type": "function", "function": {"name": "time", "description": "now"}}
    request = parse(tools=[WEATHER, time], tool_choice=choice)
    assert [tool.name for tool in request.tools] == names
    assert request.must_call is must


def test_response_formats() -> None:
    """JSON of any shape is a schema, too."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert parse(response_format=given).output_schema == schema
    assert parse(response_format={"type": "json_object"}).output_schema == {"type": "object"}


def _messages(*messages: Any) -> dict[str, Any]:
    return {"messages": [*messages]}


def _assistant(**fields: Any) -> dict[str, Any]:
    return _messages(USER, {"role": "assistant", **fields})


def _call(**fields: Any) -> dict[str, Any]:
    return _assistant(tool_calls=[CALL | fields])


def _choice(value: Any) -> dict[str, Any]:
    return {"tools": [WEATHER], "tool_choice": value}


def _format(value: Any) -> dict[str, Any]:
    return {"response_format": value}


def _allowed(value: Any) -> dict[str, Any]:
    return _choice({"type": "allowed_tools", "allowed_tools": value})


FUNCTION = "tools[0].function"
CALLED = "messages[1].tool_calls"
ALLOWED = "tool_choice.allowed_tools"
SCHEMA = "response_format.json_schema"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        # Names that the vendor has and this platform has not.
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"n": True}, "unsupported_parameter", "n"),
        ({"stop": "x"}, "unsupported_parameter", "stop"),
        ({"stop": ["x"]}, "unsupported_parameter", "stop"),
        ({"seed": 0}, "unsupported_parameter", "seed"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"top_logprobs": 2}, "unsupported_parameter", "top_logprobs"),
        ({"logit_bias": {"1": 1}}, "unsupported_parameter", "logit_bias"),
        ({"frequency_penalty": 0.1}, "unsupported_parameter", "frequency_penalty"),
        ({"presence_penalty": -1}, "unsupported_parameter", "presence_penalty"),
        ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
        ({"audio": {"voice": "x"}}, "unsupported_parameter", "audio"),
        ({"prediction": {}}, "unsupported_parameter", "prediction"),
        ({"functions": [{"name": "f"}]}, "unsupported_parameter", "functions"),
        ({"function_call": {"name": "f"}}, "unsupported_parameter", "function_call"),
        ({"reasoning_effort": "low"}, "unsupported_parameter", "reasoning_effort"),
        ({"service_tier": "flex"}, "unsupported_parameter", "service_tier"),
        ({"verbosity": "low"}, "unsupported_parameter", "verbosity"),
        ({"web_search_options": {}}, "unsupported_parameter", "web_search_options"),
        ({"prompt_cache_key": "k"}, "unsupported_parameter", "prompt_cache_key"),
        # Names that nobody has.
        ({"max_token": 1}, "unknown_parameter", "max_token"),
        ({"input": "x"}, "unknown_parameter", "input"),
        # Scalars.
        ({"model": 1}, "invalid_type", "model"),
        ({"model": ""}, "invalid_value", "model"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": "9"}, "invalid_type", "max_tokens"),
        ({"max_completion_tokens": 32_769}, "invalid_value", "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "invalid_value", "max_tokens"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"stream": 1}, "invalid_type", "stream"),
        ({"stream_options": {}}, "invalid_value", "stream_options"),
        ({"stream": True, "stream_options": []}, "invalid_type", "stream_options"),
        (
            {"stream": True, "stream_options": {"x": 1}},
            "unknown_parameter", "stream_options.x",
        ),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "unsupported_parameter", "stream_options.include_obfuscation",
        ),
        ({"store": "yes"}, "invalid_type", "store"),
        ({"user": ""}, "invalid_value", "user"),
        ({"user": "x" * 257}, "invalid_value", "user"),
        ({"safety_identifier": 7}, "invalid_type", "safety_identifier"),
        ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ({"metadata": {"k" * 65: ""}}, "invalid_value", "metadata." + "k" * 65),
        ({"metadata": {str(n): "" for n in range(17)}}, "invalid_value", "metadata"),
        # Messages.
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": []}, "empty_input", "messages"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": {"role": "user"}}, "invalid_type", "messages"),
        (_messages("hi"), "invalid_type", "messages[0]"),
        (_messages({"content": "x"}), "invalid_value", "messages[0].role"),
        (_messages({"role": "function", "content": "x"}), "invalid_value", "messages[0].role"),
        (_messages({"role": [], "content": "x"}), "invalid_value", "messages[0].role"),
        (_messages({"role": "user"}), "invalid_type", "messages[0].content"),
        (_messages({"role": "user", "content": 1}), "invalid_type", "messages[0].content"),
        (_messages({"role": "user", "content": "  "}), "empty_input", "messages"),
        (_messages(USER | {"name": "Ann"}), "unsupported_parameter", "messages[0].name"),
        (_messages(USER | {"x": 1}), "unknown_parameter", "messages[0].x"),
        (_messages(USER | {"tool_calls": []}), "unknown_parameter", "messages[0].tool_calls"),
        (_messages({"role": "user", "content": ["x"]}), "invalid_type", "messages[0].content[0]"),
        (
            _messages({"role": "user", "content": [{"type": "image_url"}]}),
            "unsupported_parameter", "messages[0].content[0].type",
        ),
        (
            _messages({"role": "user", "content": [{"type": {}}]}),
            "unsupported_parameter", "messages[0].content[0].type",
        ),
        (
            _messages({"role": "user", "content": [{"type": "text", "text": 1}]}),
            "invalid_type", "messages[0].content[0].text",
        ),
        (
            _messages({"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}),
            "unknown_parameter", "messages[0].content[0].y",
        ),
        (_assistant(), "invalid_type", "messages[1].content"),
        (_assistant(content="x", refusal="no"), "unsupported_parameter", "messages[1].refusal"),
        (_assistant(content="x", audio={"id": "a"}), "unsupported_parameter", "messages[1].audio"),
        (_assistant(tool_calls={}), "invalid_type", "messages[1].content"),
        (_assistant(tool_calls={"a": 1}), "invalid_type", CALLED),
        (_assistant(tool_calls=[7]), "invalid_type", f"{CALLED}[0]"),
        (_call(type="custom"), "unsupported_parameter", f"{CALLED}[0].type"),
        (_call(id=None), "invalid_type", f"{CALLED}[0].id"),
        (_call(x=1), "unknown_parameter", f"{CALLED}[0].x"),
        (_call(function=None), "invalid_type", f"{CALLED}[0].function"),
        (_call(function={"name": "f"}), "invalid_type", f"{CALLED}[0].function.arguments"),
        (
            _call(function={"name": "f", "arguments": {}}),
            "invalid_type", f"{CALLED}[0].function.arguments",
        ),
        (
            _messages({"role": "tool", "content": "x"}),
            "missing_required_parameter", "messages[0].tool_call_id",
        ),
        (
            _messages({"role": "tool", "tool_call_id": "c1", "content": "x"}, *_call()["messages"]),
            "invalid_value", "messages[0].tool_call_id",
        ),
        (
            _messages(*_call()["messages"], {"role": "tool", "tool_call_id": [], "content": "x"}),
            "invalid_value", "messages[2].tool_call_id",
        ),
        # Tools.
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": ["x"]}, "invalid_type", "tools[0]"),
        ({"tools": [{"type": "custom"}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", FUNCTION),
        ({"tools": [{"type": "function", "function": 1}]}, "invalid_type", FUNCTION),
        (
            {"tools": [{"type": "function", "name": "f"}]},
            "unknown_parameter", "tools[0].name",
        ),
        (
            {"tools": [{"type": "function", "function": {}}]},
            "missing_required_parameter", f"{FUNCTION}.name",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "invalid_value", f"{FUNCTION}.name",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "invalid_type", f"{FUNCTION}.parameters",
        ),
        ({"tools": [WEATHER, WEATHER]}, "invalid_value", "tools[1].function.name"),
        ({"tools": [WEATHER] * 65}, "invalid_value", "tools"),
        (_choice("any"), "invalid_value", "tool_choice"),
        (_choice(7), "invalid_value", "tool_choice"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        (_choice({}), "unsupported_parameter", "tool_choice.type"),
        (_choice({"type": "custom"}), "unsupported_parameter", "tool_choice.type"),
        (
            _choice({"type": "function", "name": "weather"}),
            "unknown_parameter", "tool_choice.name",
        ),
        (_choice({"type": "function"}), "missing_required_parameter", "tool_choice.function"),
        (
            _choice({"type": "function", "function": {"name": "wether"}}),
            "invalid_value", "tool_choice.function.name",
        ),
        (
            _choice({"type": "function", "function": {"name": []}}),
            "invalid_value", "tool_choice.function.name",
        ),
        (_allowed(None), "missing_required_parameter", ALLOWED),
        (_allowed({"mode": "none", "tools": []}), "invalid_value", f"{ALLOWED}.mode"),
        (_allowed({"mode": "auto", "tools": []}), "invalid_type", f"{ALLOWED}.tools"),
        (_allowed({"mode": "auto", "tools": [1]}), "invalid_type", f"{ALLOWED}.tools[0]"),
        # The answer's format.
        (_format("json"), "invalid_type", "response_format"),
        (_format({}), "unsupported_parameter", "response_format.type"),
        (_format({"type": "grammar"}), "unsupported_parameter", "response_format.type"),
        (_format({"type": []}), "unsupported_parameter", "response_format.type"),
        (_format({"type": "text", "x": 1}), "unknown_parameter", "response_format.x"),
        (_format({"type": "json_schema"}), "missing_required_parameter", SCHEMA),
        (
            _format({"type": "json_schema", "json_schema": {"name": "x"}}),
            "missing_required_parameter", f"{SCHEMA}.schema",
        ),
        (
            _format({"type": "json_schema", "json_schema": {"schema": {}}}),
            "missing_required_parameter", f"{SCHEMA}.name",
        ),
        (
            _format({"type": "json_schema", "json_schema": {"name": "x", "schema": True}}),
            "invalid_type", f"{SCHEMA}.schema",
        ),
    ],
)  # fmt: skip
def test_the_error_names_the_field(fields: dict[str, Any], code: str, param: str) -> None:
    """An error says which field was wrong, in the caller's own terms."""
    with pytest.raises(PermanentError) as caught:
        parse(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.http_status == 400


def test_the_limit_of_bytes_names_the_messages() -> None:
    """A conversation over the limit is too large, whatever its characters count."""
    with pytest.raises(TooLargeError) as caught:
        parse(messages=[{"role": "user", "content": "ü" * 140_000}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"messages": NaN}', b"\xff", b"[" * 10_000]
)
def test_what_is_no_json_object_is_no_chat(raw: bytes) -> None:
    """Malformed bodies are a client's error, at any depth of nesting."""
    with pytest.raises(PermanentError) as caught:
        parse_chat(raw)
    assert caught.value.code == "invalid_json"
