"""The structured parameters of a chat completion, as schemas: see inputs.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from penstock_realtime.http.documents.inputs import Closed, FunctionDefinition, PlainFormat
from penstock_shared.contracts.requests import MAX_TOOLS, FunctionName


class ChatText(Closed):
    """Text of a message."""

    type: Literal["text"]
    text: str


ChatContent: TypeAlias = str | list[ChatText]
Empty: TypeAlias = Annotated[list[Any], Field(max_length=0)] | None
"""What the SDKs' own objects carry along without using it."""


class _ChatMessage(Closed):
    annotations: Empty = None
    audio: Empty = None
    function_call: Empty = None
    name: Empty = None
    refusal: Empty = None


class ChatInput(_ChatMessage):
    """What the client says."""

    role: Literal["system", "developer", "user"]
    content: ChatContent


class CalledFunction(Closed):
    """A function's name, and its arguments as JSON text."""

    name: str
    arguments: str
    parsed_arguments: Any = None


class ChatCall(Closed):
    """A call that the model asked for."""

    id: str
    type: Literal["function"]
    function: CalledFunction
    index: Any = None


class ChatAnswer(_ChatMessage):
    """What the model has said."""

    role: Literal["assistant"]
    content: ChatContent
    tool_calls: Empty = None
    parsed: Any = None


class ChatCalls(_ChatMessage):
    """What the model has called."""

    role: Literal["assistant"]
    content: ChatContent | None = None
    tool_calls: Annotated[list[ChatCall], Field(min_length=1)]
    parsed: Any = None


class ChatToolResult(_ChatMessage):
    """What a function has returned."""

    role: Literal["tool"]
    content: ChatContent
    tool_call_id: str


class ChatTool(Closed):
    """A function that the model may ask the client to call."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionReference(Closed):
    """A function's name."""

    name: FunctionName


class ChatNamedFunction(Closed):
    """One of `tools`."""

    type: Literal["function"]
    function: FunctionReference


class ChatAllowed(Closed):
    """Some of `tools`."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ChatNamedFunction], Field(min_length=1)]


class ChatAllowedTools(Closed):
    """Some of `tools`."""

    type: Literal["allowed_tools"]
    allowed_tools: ChatAllowed


class NamedSchema(Closed):
    """A JSON Schema (draft 2020-12); 64 KiB and 32 levels at most."""

    type: Literal["json_schema"] = "json_schema"
    name: FunctionName
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ChatSchemaFormat(Closed):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class ChatParameters(BaseModel):
    """Parameters of a chat completion that are parsed by hand."""

    messages: Annotated[
        list[ChatInput | ChatAnswer | ChatCalls | ChatToolResult], Field(min_length=1)
    ]
    tools: Annotated[list[ChatTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: (
        Literal["none", "auto", "required"] | ChatNamedFunction | ChatAllowedTools | None
    ) = None
    response_format: PlainFormat | ChatSchemaFormat | None = None
