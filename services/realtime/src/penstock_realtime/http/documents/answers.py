"""What the API answers, as schemas. Closed: an answer with another field fails the tests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.accounts import Role
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.usage import Price


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class OutputTextPart(_Closed):
    """The text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(_Closed):
    """An answer in words."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputTextPart]


class OutputCall(_Closed):
    """An answer that asks the client to call one of its functions."""

    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]


class ResponseError(_Closed):
    """Why a response failed; `type` says what exactly it was."""

    code: Literal["server_error", "invalid_prompt"]
    message: str
    type: str | None
    param: str | None


class IncompleteDetails(_Closed):
    """Why a response ended early."""

    reason: str


class InputTokens(_Closed):
    """Nothing is cached."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokens(_Closed):
    """Nothing is thought."""

    reasoning_tokens: int


class ResponseUsage(_Closed):
    """What is billed: the tokens generated until the stop."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int


class Response(_Closed):
    """A response; the client's own parameters are given back."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputMessage | OutputCall]
    usage: ResponseUsage | None
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: None
    reasoning: dict[str, None]
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    user: str | None


class DeletedResponse(_Closed):
    """A response that is gone for good."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ChatFunction(_Closed):
    """The function and its arguments as JSON text."""

    name: str
    arguments: str


class ChatToolCall(_Closed):
    """A call that the client is asked for."""

    id: str
    type: Literal["function"]
    function: ChatFunction


class ChatReply(BaseModel):
    """The answer; `tool_calls` is there when it is one."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ChatToolCall] = []


class ChatChoice(_Closed):
    """The one choice."""

    index: Literal[0]
    message: ChatReply
    logprobs: None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatUsage(_Closed):
    """What is billed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class ChatCompletion(_Closed):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: Literal["default"]
    metadata: dict[str, str]
    choices: list[ChatChoice]
    usage: ChatUsage


class _Sparse(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ChatFunctionDelta(_Sparse):
    """Its name comes with the call, its arguments after it."""

    name: str = ""
    arguments: str


class ChatToolCallDelta(_Sparse):
    """A call: first what it is, then its arguments."""

    index: Literal[0]
    id: str = ""
    type: Literal["function"] = "function"
    function: ChatFunctionDelta


class ChatDelta(_Sparse):
    """More of the answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    tool_calls: list[ChatToolCallDelta] = []


class ChatChunkChoice(_Closed):
    """The one choice; the last chunk says why it ends."""

    index: Literal[0]
    delta: ChatDelta
    logprobs: None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatCompletionChunk(_Sparse):
    """A piece of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    service_tier: Literal["default"]
    choices: list[ChatChunkChoice]
    usage: ChatUsage | None = None
    """In the last chunk, with `stream_options.include_usage`."""


class Embedding(_Closed):
    """One text's vector: numbers, or base64 of float32 in little endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(_Closed):
    """What is billed."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(_Closed):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(BaseModel):
    """A model; beside the vendor's fields what it is for, costs and takes (not of `auto`)."""

    model_config = ConfigDict(extra="forbid")

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: ModelKind | None = None
    status: Literal["serving", "quarantined"] | None = None
    price: Price | None = None
    context_tokens: int | None = None
    dimensions: int | None = None


class ModelList(_Closed):
    """The models that may be named; `auto` leaves the choice to the router."""

    object: Literal["list"]
    data: list[Model]


class ApiKey(_Closed):
    """An API key, without its secret; times are Unix seconds."""

    id: str
    object: Literal["api_key"]
    name: str
    role: Role
    redacted_value: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class ListedKey(ApiKey):
    """One of the tenant's keys."""

    last_used_at: int | None


class NewKey(ApiKey):
    """The answer that has the secret: no other ever will."""

    value: str


class KeyPage(_Closed):
    """Keys in the order of their making."""

    object: Literal["list"]
    data: list[ListedKey]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedKey(_Closed):
    """A key that is revoked."""

    id: str
    object: Literal["api_key.deleted"]
    deleted: Literal[True]
