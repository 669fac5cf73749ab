"""The body of `POST /v1/chat/completions`, as the SDK 3.54 has it, parsed and judged."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_realtime.domain.chat_messages import parse_messages
from penstock_realtime.domain.chat_tools import parse_response_format, parse_tools
from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.domain.parameters import (
    Metadata,
    Name,
    Parameters,
    invalid,
    parse_object,
    unsupported,
    wrong_value,
)
from penstock_shared.contracts.ids import DataSubject
from penstock_shared.contracts.requests import AUTO_MODEL, MAX_OUTPUT_TOKENS, Sampling

_Limit = Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] | None


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatBody(BaseModel):
    """The scalar parameters that are served; null means "not given"."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Name | None = None
    max_tokens: _Limit = None
    max_completion_tokens: _Limit = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    user: DataSubject | None = None
    safety_identifier: DataSubject | None = None
    metadata: Metadata | None = None


_STRUCTURED: Final = ("messages", "tools", "tool_choice", "response_format")
CHAT_PARAMETERS: Final = Parameters(
    served={*_STRUCTURED, *ChatBody.model_fields},
    asks_for_nothing={
        "frequency_penalty": (0, 0.0),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "logit_bias": ({},),
        "logprobs": (False,),
        "modalities": (["text"],),
        "n": (1,),
        "parallel_tool_calls": (True, False),  # an answer is at most one call
        "presence_penalty": (0, 0.0),
        "reasoning_effort": ("none",),
        "service_tier": ("auto", "default"),
        "stop": ([],),
        "top_logprobs": (0,),
        "verbosity": ("medium",),
    },
    unsupported={
        "audio", "moderation", "prediction", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "seed", "web_search_options",
    },
)  # fmt: skip


def parse_chat(raw: bytes) -> GenerationRequest:
    """Parse a body.

    Raises:
        PermanentError: it is no JSON object, or a parameter is unknown, unsupported or wrong.
        TooLargeError: the conversation is over the limit.
        SchemaError: a schema is over a limit.
    """
    scalars = CHAT_PARAMETERS.served_of(parse_object(raw))
    given = {name: scalars.pop(name, None) for name in _STRUCTURED}
    try:
        body = ChatBody.model_validate(scalars)
    except ValidationError as error:
        raise invalid(error) from error
    choice = parse_tools(given["tools"], given["tool_choice"])
    request = GenerationRequest(
        model=body.model or AUTO_MODEL,
        source="messages",
        turns=parse_messages(given["messages"]),
        output_schema=parse_response_format(given["response_format"]),
        tools=choice.tools,
        must_call=choice.must_call,
        sampling=_sampling(body),
        stream=bool(body.stream),
        include_usage=_includes_usage(body),
        store=bool(body.store),
        safety_identifier=body.safety_identifier or body.user,
        echo={"store": bool(body.store), "metadata": body.metadata or {}},
    )
    request.content()  # an empty or too large one is refused before anything is counted
    return request


def _sampling(body: ChatBody) -> Sampling:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise wrong_value("max_tokens", "either it or 'max_completion_tokens'")
    return Sampling(
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=0.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
    )


def _includes_usage(body: ChatBody) -> bool:
    if body.stream_options is None:
        return False
    if not body.stream:
        raise wrong_value("stream_options", "'stream' to be true beside it")
    padded = body.stream_options.include_obfuscation
    if padded:
        raise unsupported("stream_options.include_obfuscation", padded, "chunks are not padded")
    return bool(body.stream_options.include_usage)
