"""Function tools and structured output: what is served, what is refused, and by which name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.output_schema import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH
from penstock_shared.contracts.requests import MAX_TOOLS, Content

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
CLOCK = {"type": "function", "name": "clock", "description": "Tells the time."}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":""}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
PREVIOUS = "resp_0190e0f0000070008000000000000001"


def parse(**fields: Any) -> GenerationRequest:
    return parse_create(json.dumps({"input": "x", **fields}))


def offered(choice: Any) -> tuple[list[str], bool]:
    """What the worker is told of two functions."""
    request = parse(tools=[WEATHER, CLOCK], tool_choice=choice)
    content = Content.model_validate_json(request.content())
    return [tool.name for tool in content.tools], content.must_call


@pytest.mark.parametrize(
    ("choice", "names", "must_call"),
    [
        (None, ["weather", "clock"], False),
        ("auto", ["weather", "clock"], False),
        ("none", [], False),
        ("required", ["weather", "clock"], True),
        ({"type": "function", "name": "clock"}, ["clock"], True),
        (
            {"type": "allowed_tools", "mode": "auto",
             "tools": [{"type": "function", "name": "clock"}]},
            ["clock"],
            False,
        ),
        (
            {"type": "allowed_tools", "mode": "required",
             "tools": [{"type": "function", "name": "clock"},
                       {"type": "function", "name": "weather"}]},
            ["weather", "clock"],
            True,
        ),
    ],
)  # fmt: skip
def test_the_choice_decides_what_may_and_must_be_called(
    choice: Any,
    names: list[str],
    must_call: bool,  # noqa: FBT001  of the table
) -> None:
    """The worker gets the functions that are left, in their own order."""
    assert offered(choice) == (names, must_call)


def test_functions_are_given_back_whatever_was_chosen() -> None:
    """The response object lists all that was offered, with the vendor's defaults filled in."""
    echo = parse(tools=[WEATHER, CLOCK], tool_choice="none", parallel_tool_calls=False).echo
    assert echo["tools"] == [
        {"type": "function", "name": "weather", "description": None, "parameters": PARAMETERS,
         "strict": True},
        {"type": "function", "name": "clock", "description": "Tells the time.",
         "parameters": None, "strict": True},
    ]  # fmt: skip
    assert (echo["tool_choice"], echo["parallel_tool_calls"]) == ("none", False)


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ({"format": {"type": "text"}}, None),
        ({"format": {"type": "json_object"}}, {"type": "object"}),
        (
            {"format": {"type": "json_schema", "name": "city", "schema": PARAMETERS,
                        "strict": True, "description": "d"}, "verbosity": "medium"},
            PARAMETERS,
        ),
    ],
)  # fmt: skip
def test_the_format_becomes_the_schema_that_the_answer_is_checked_against(
    text: dict[str, Any], schema: dict[str, Any] | None
) -> None:
    """What is sealed for the worker, and what the client is told it asked for."""
    request = parse(text=text)
    assert Content.model_validate_json(request.content()).output_schema == schema
    assert request.echo["text"] == {"verbosity": "medium", **text}


def test_a_call_and_its_output_are_turns() -> None:
    """An earlier call stands as the model answered it; what it brought has a role of its own."""
    request = parse(input=[{"role": "user", "content": "Rain?"}, CALL, OUTPUT])
    assert [(turn.role, turn.content) for turn in request.turns] == [
        ("user", "Rain?"), ("assistant", '{"city":""}'), ("tool", "rain"),
    ]  # fmt: skip
    assert request.answered == {}


def test_the_output_of_an_earlier_responses_call_is_kept_for_later() -> None:
    """Whether the call exists is known only once the conversation that goes on is read."""
    request = parse(input=[OUTPUT], previous_response_id=PREVIOUS)
    assert request.previous == "0190e0f0-0000-7000-8000-000000000001"
    assert request.answered == {"call_1": "input[0].call_id"}
    assert request.echo["previous_response_id"] == PREVIOUS


def test_the_background_keeps_its_answer() -> None:
    """It is served with `store`, which is the default."""
    request = parse(background=True)
    assert (request.background, request.store) == (True, True)


def test_the_older_name_of_the_data_subject_still_counts() -> None:
    """`user` is what `safety_identifier` was called."""
    assert parse(user="me").safety_identifier == "me"
    assert parse(user="me", safety_identifier="you").safety_identifier == "you"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def function(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "name": "f", **fields}]


def schema_format(**fields: Any) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "name": "n", "schema": {}, **fields}}


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": {}}, "invalid_type", "tools"),
    ({"tools": ["x"]}, "invalid_type", "tools[0]"),
    ({"tools": [{}]}, "missing_required_parameter", "tools[0].type"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
    ({"tools": [WEATHER, {"type": "mcp"}]}, "unsupported_parameter", "tools[1].type"),
    ({"tools": [{"type": ["function"]}]}, "unsupported_parameter", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
    ({"tools": function(name="a b")}, "invalid_value", "tools[0].name"),
    ({"tools": function(name="a" * 65)}, "invalid_value", "tools[0].name"),
    ({"tools": function(name="")}, "invalid_value", "tools[0].name"),
    ({"tools": function(name=7)}, "invalid_type", "tools[0].name"),
    ({"tools": function(description=[])}, "invalid_type", "tools[0].description"),
    ({"tools": function(strict="yes")}, "invalid_type", "tools[0].strict"),
    ({"tools": function(parameters="{}")}, "invalid_type", "tools[0].parameters"),
    ({"tools": function(parameters={"type": "string"})}, "invalid_value",
     "tools[0].parameters.type"),
    ({"tools": function(parameters=nested(MAX_SCHEMA_DEPTH))}, "schema_too_deep",
     "tools[0].parameters"),
    ({"tools": function(parameters={"title": "x" * MAX_SCHEMA_BYTES})}, "schema_too_large",
     "tools[0].parameters"),
    ({"tools": function(defer_loading=True)}, "unsupported_parameter", "tools[0].defer_loading"),
    ({"tools": function(allowed_callers=["programmatic"])}, "unsupported_parameter",
     "tools[0].allowed_callers"),
    ({"tools": function(surprise=1)}, "unknown_parameter", "tools[0].surprise"),
    ({"tools": [WEATHER, WEATHER]}, "invalid_value", "tools[1].name"),
    ({"tools": [{**CLOCK, "name": f"f{n}"} for n in range(MAX_TOOLS + 1)]}, "invalid_value",
     "tools"),
    ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    ({"tool_choice": "any"}, "invalid_value", "tool_choice"),
    ({"tool_choice": 1}, "invalid_value", "tool_choice"),
    ({"tool_choice": {"type": "web_search"}}, "unsupported_parameter", "tool_choice.type"),
    ({"tool_choice": {}}, "unsupported_parameter", "tool_choice.type"),
    ({"tools": [CLOCK], "tool_choice": {"type": "function", "name": "weather"}},
     "invalid_value", "tool_choice.name"),
    ({"tools": [CLOCK], "tool_choice": {"type": "function"}}, "invalid_value", "tool_choice.name"),
    ({"tools": [CLOCK], "tool_choice": {"type": "function", "name": "clock", "x": 1}},
     "unknown_parameter", "tool_choice.x"),
    ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools", "mode": "any", "tools": []}},
     "invalid_value", "tool_choice.mode"),
    ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
     "invalid_type", "tool_choice.tools"),
    ({"tools": [CLOCK],
      "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": ["clock"]}},
     "invalid_type", "tool_choice.tools[0]"),
    ({"tools": [CLOCK],
      "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
     "unsupported_parameter", "tool_choice.tools[0].type"),
    ({"text": "json"}, "invalid_type", "text"),
    ({"text": {"formt": {}}}, "unknown_parameter", "text.formt"),
    ({"text": {"verbosity": "low"}}, "unsupported_parameter", "text.verbosity"),
    ({"text": {"format": "json"}}, "invalid_type", "text.format"),
    ({"text": {"format": {}}}, "unsupported_parameter", "text.format.type"),
    ({"text": {"format": {"type": "grammar"}}}, "unsupported_parameter", "text.format.type"),
    ({"text": {"format": {"type": "text", "x": 1}}}, "unknown_parameter", "text.format.x"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "missing_required_parameter",
     "text.format.schema"),
    ({"text": schema_format(name="a.b")}, "invalid_value", "text.format.name"),
    ({"text": schema_format(schema=True)}, "invalid_type", "text.format.schema"),
    ({"text": schema_format(schema=nested(MAX_SCHEMA_DEPTH))}, "schema_too_deep",
     "text.format.schema"),
    ({"text": schema_format(extra=1)}, "unknown_parameter", "text.format.extra"),
    ({"input": [OUTPUT]}, "invalid_value", "input[0].call_id"),
    ({"input": [OUTPUT, CALL]}, "invalid_value", "input[0].call_id"),
    ({"input": [{**CALL, "arguments": {}}]}, "invalid_type", "input[0].arguments"),
    ({"input": [{**CALL, "name": None}]}, "missing_required_parameter", "input[0].name"),
    ({"input": [{**CALL, "status": "done"}]}, "invalid_value", "input[0].status"),
    ({"input": [{**CALL, "namespace": "n"}]}, "unsupported_parameter", "input[0].namespace"),
    ({"input": [CALL, {**OUTPUT, "output": 4}]}, "invalid_type", "input[1].output"),
    ({"input": [CALL, {**OUTPUT, "output": [{"type": "input_image"}]}]},
     "unsupported_parameter", "input[1].output[0].type"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), BAD)
def test_the_error_names_the_field_of_a_tool_or_format(
    fields: dict[str, Any], code: str, param: str
) -> None:
    """Whatever is wrong, the client learns where; and nothing but an error of its own comes up."""
    with pytest.raises(PermanentError) as caught:
        parse(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)
