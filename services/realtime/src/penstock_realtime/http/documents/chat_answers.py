"""What Chat Completions answers, as schemas: see answers.py."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from penstock_realtime.http.documents.answers import Closed


class ChatFunction(Closed):
    """The function and its arguments as JSON text."""

    name: str
    arguments: str


class ChatToolCall(Closed):
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


class ChatChoice(Closed):
    """The one choice."""

    index: Literal[0]
    message: ChatReply
    logprobs: None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatUsage(Closed):
    """What is billed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class ChatCompletion(Closed):
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


class ChatChunkChoice(Closed):
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
