"""The body of `POST /v1/responses` and of the `response.create` event: parsed and judged."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_realtime.domain.function_tools import choose, parse_functions
from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.domain.input_messages import parse_input
from penstock_realtime.domain.parameters import (
    Metadata,
    Name,
    Parameters,
    invalid,
    parse_object,
    wrong_value,
)
from penstock_realtime.domain.response_object import response_id
from penstock_realtime.domain.text_format import parse_text
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import DataSubject, parse_request_id
from penstock_shared.contracts.requests import AUTO_MODEL, MAX_OUTPUT_TOKENS, Sampling


class CreateBody(BaseModel):
    """The parameters that are scalars; null means "not given"."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Name | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    safety_identifier: DataSubject | None = None
    user: DataSubject | None = None
    metadata: Metadata | None = None


_PARSED_APART: Final = ("input", "text", "tools", "tool_choice")
CREATE_PARAMETERS: Final = Parameters(
    served=frozenset({*CreateBody.model_fields, *_PARSED_APART}),
    asks_for_nothing={
        "background_options": ({}, {"completion_window": "soonest"}),
        "context_management": ([],),
        "generate": (True,),
        "include": ([],),
        "reasoning": (
            {}, {"effort": None}, {"effort": "none"}, {"summary": None},
            {"effort": None, "summary": None},
        ),
        "service_tier": ("auto", "default"),
        "stream_options": ({}, {"include_obfuscation": False}),
        "top_logprobs": (0,),
        "truncation": ("disabled",),
    },
    unsupported=frozenset({
        "access_programs", "conversation", "image", "max_tool_calls", "moderation", "prompt",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    }),
)  # fmt: skip
"""What the vendor's API has, as its SDK 3.52 lists it (`ResponseCreateParams`)."""
_NOT_ECHOED: Final = {"model", "stream"}


def parse_create(raw: bytes | str) -> GenerationRequest:
    """Parse a body.

    Raises:
        PermanentError: it is no JSON object, or a parameter is unknown, unsupported or wrong.
        TooLargeError: the conversation is over the limit.
    """
    return create_request(parse_object(raw))


def create_request(given: dict[str, Any]) -> GenerationRequest:
    """Judge the parameters of one request.

    Raises:
        PermanentError: a parameter is unknown, unsupported or wrong; the error names it.
        TooLargeError: the conversation is over the limit.
        SchemaError: a schema is over a limit.
    """
    served = CREATE_PARAMETERS.served_of(given)
    apart = {name: served.pop(name, None) for name in _PARSED_APART}
    body = _body(served)
    previous = _previous(body.previous_response_id)
    items = parse_input(apart["input"])
    if items.answered and previous is None:
        raise wrong_value(next(iter(items.answered.values())), "the id of a call before it")
    functions = parse_functions(apart["tools"])
    choice = choose(functions, apart["tool_choice"])
    schema, text = parse_text(apart["text"])
    told = {
        "previous_response_id": previous and response_id(previous),
        "text": text,
        "tool_choice": apart["tool_choice"],
        "tools": [function.echo() for function in functions] or None,
    }
    request = GenerationRequest(
        model=body.model or AUTO_MODEL,
        turns=items.turns,
        answered=items.answered,
        instructions=body.instructions,
        output_schema=schema,
        tools=choice.tools,
        must_call=choice.must_call,
        sampling=_sampling(body),
        stream=bool(body.stream),
        store=body.store is not False,
        background=bool(body.background),
        previous=previous,
        safety_identifier=body.safety_identifier or body.user,
        echo=_echo(served | told),
    )
    request.content()  # an empty or too large one is refused before anything is counted
    return request


def _body(served: dict[str, Any]) -> CreateBody:
    try:
        body = CreateBody.model_validate(served)
    except ValidationError as error:
        raise invalid(error) from error
    if body.background and body.store is False:
        raise wrong_value("background", "'store' to be true: its answer must be kept")
    return body


def _echo(given: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in given.items()
        if value is not None and name not in _NOT_ECHOED
    }


def _previous(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        return parse_request_id(given)
    except PermanentError as error:
        raise wrong_value("previous_response_id", "a response's id, such as 'resp_…'") from error


def _sampling(body: CreateBody) -> Sampling:
    return Sampling(
        max_output_tokens=body.max_output_tokens,
        temperature=0.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
    )
