"""The body of `POST /v1/responses` and of the `response.create` event: parsed and judged.

Three kinds of names are told apart: served, known to OpenAI's API but not served
(`unsupported_parameter`), and unknown (`unknown_parameter`). A field that is not served may
still be sent with the value that asks for nothing, as SDKs and frameworks do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from penstock_realtime.domain.input_messages import parse_input
from penstock_shared.contracts.errors import PermanentError, TooLargeError
from penstock_shared.contracts.ids import DataSubject
from penstock_shared.contracts.requests import (
    AUTO_MODEL,
    MAX_INPUT_BYTES,
    MAX_OUTPUT_TOKENS,
    Sampling,
)
from penstock_shared.contracts.submissions import conversation

_TEXT_ONLY: Final[tuple[Any, ...]] = ({"format": {"type": "text"}}, {}, {"format": None})
_ASKS_FOR_NOTHING: Final[dict[str, tuple[Any, ...]]] = {
    "background": (False,),
    "context_management": ([],),
    "generate": (True,),
    "include": ([],),
    "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
    "stream_options": ({}, {"include_obfuscation": False}),
    "text": _TEXT_ONLY,
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("auto", "disabled"),
}
"""Parameters that are not served, and the values by which they are not used."""

_UNSUPPORTED: Final = frozenset(_ASKS_FOR_NOTHING) | {
    "access_programs", "conversation", "image", "max_tool_calls", "moderation",
    "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning", "user",
}  # fmt: skip

_MetadataKey = Annotated[str, StringConstraints(max_length=64)]
_MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class _Body(BaseModel):
    """The scalar parameters that are served; null means "not given"."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    store: bool | None = None
    safety_identifier: DataSubject | None = None
    metadata: Annotated[dict[_MetadataKey, _MetadataValue], Field(max_length=16)] | None = None


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A request that is well-formed."""

    model: str
    content: bytes
    """The conversation as JSON (`contracts.requests.Content`), to be sealed."""
    sampling: Sampling
    stream: bool
    store: bool
    instructions: str | None
    metadata: dict[str, str]
    safety_identifier: str | None


def parse_create(raw: bytes | str) -> CreateRequest:
    """Parse a body.

    Raises:
        PermanentError: it is no JSON object, or a parameter is unknown, unsupported or wrong.
        TooLargeError: the conversation is over the limit.
    """
    return create_request(parse_object(raw))


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        PermanentError: it is none.
    """
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        msg = f"The body is not valid JSON: {error}."
        raise PermanentError(msg, code="invalid_json") from error
    if not isinstance(value, dict):
        msg = "The body must be a JSON object."
        raise PermanentError(msg, code="invalid_json")
    return value


def create_request(given: dict[str, Any]) -> CreateRequest:
    """Judge the parameters of one request.

    Raises:
        PermanentError: a parameter is unknown, unsupported or wrong; the error names it.
        TooLargeError: the conversation is over the limit.
    """
    served = {name: value for name, value in given.items() if _is_served(name, value)}
    raw_input = served.pop("input", None)
    try:
        body = _Body.model_validate(served)
    except ValidationError as error:
        raise _parameter_error(error) from error
    return CreateRequest(
        model=body.model or AUTO_MODEL,
        content=_content(raw_input, body.instructions),
        sampling=_sampling(body),
        stream=bool(body.stream),
        store=body.store is not False,
        instructions=body.instructions,
        metadata=body.metadata or {},
        safety_identifier=body.safety_identifier,
    )


def _is_served(name: str, value: Any) -> bool:
    if name == "input" or name in _Body.model_fields:
        return True
    if name not in _UNSUPPORTED:
        msg = f"Unknown parameter: {name[:80]!r}."
        raise PermanentError(msg, code="unknown_parameter", param=name[:80])
    if value is not None and not any(_same(value, v) for v in _ASKS_FOR_NOTHING.get(name, ())):
        msg = f"'{name}' is not supported with this value: leave it out."
        raise PermanentError(msg, code="unsupported_parameter", param=name)
    return False


def _same(value: Any, expected: Any) -> bool:
    return type(value) is type(expected) and value == expected  # 0 is not False


def _content(raw_input: Any, instructions: str | None) -> bytes:
    try:
        content = conversation(parse_input(raw_input), instructions).to_seal().encode()
    except ValueError as error:
        raise PermanentError(str(error), code="empty_input", param="input") from error
    if len(content) > MAX_INPUT_BYTES:
        msg = f"The input has {len(content)} bytes; {MAX_INPUT_BYTES} are allowed."
        raise TooLargeError(msg, param="input")
    return content


def _sampling(body: _Body) -> Sampling:
    return Sampling(
        max_output_tokens=body.max_output_tokens,
        temperature=0.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
    )


def _parameter_error(error: ValidationError) -> PermanentError:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"] if part != "[key]")[:120]
    kind = first["type"]
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    msg = f"Invalid value for '{path}': {first['msg']}."
    return PermanentError(msg, code=code, param=path)
