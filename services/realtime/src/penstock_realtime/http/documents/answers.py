"""What the API answers, as schemas. Closed: an answer with another field fails the tests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.accounts import Role
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.usage import Price


class Closed(BaseModel):
    """Each field is there, and no other."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class OutputTextPart(Closed):
    """The text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(Closed):
    """An answer in words."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputTextPart]


class OutputCall(Closed):
    """An answer that asks the client to call one of its functions."""

    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]


class ResponseError(Closed):
    """Why a response failed; `type` says what exactly it was."""

    code: Literal["server_error", "invalid_prompt"]
    message: str
    type: str | None
    param: str | None


class IncompleteDetails(Closed):
    """Why a response ended early."""

    reason: str


class InputTokens(Closed):
    """Nothing is cached."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokens(Closed):
    """Nothing is thought."""

    reasoning_tokens: int


class ResponseUsage(Closed):
    """What is billed: the tokens generated until the stop."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int


class Response(Closed):
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


class DeletedResponse(Closed):
    """A response that is gone for good."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class Feedback(Closed):
    """What was said of an answer."""

    object: Literal["response.feedback"]
    response_id: str
    score: float
    created_at: int


class AskedTextPart(Closed):
    """A part of what was said to the model."""

    type: Literal["input_text"]
    text: str


class AskedMessage(Closed):
    """What was said to the model."""

    id: str
    type: Literal["message"]
    role: Literal["user", "system", "developer"]
    status: Literal["completed"]
    content: list[AskedTextPart]


class AskedCallOutput(Closed):
    """What a function returned."""

    id: str
    type: Literal["function_call_output"]
    call_id: None
    output: str
    status: Literal["completed"]


class InputItemList(Closed):
    """What a response was asked, with all that came before it; a call stands as a message."""

    object: Literal["list"]
    data: list[AskedMessage | OutputMessage | AskedCallOutput]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Embedding(Closed):
    """One text's vector: numbers, or base64 of float32 in little endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Closed):
    """What is billed."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Closed):
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


class ModelList(Closed):
    """The models that may be named; `auto` leaves the choice to the router."""

    object: Literal["list"]
    data: list[Model]


class ApiKey(Closed):
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


class KeyPage(Closed):
    """Keys in the order of their making."""

    object: Literal["list"]
    data: list[ListedKey]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedKey(Closed):
    """A key that is revoked."""

    id: str
    object: Literal["api_key.deleted"]
    deleted: Literal[True]
