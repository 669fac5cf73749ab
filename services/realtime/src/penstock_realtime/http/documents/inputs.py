"""The structured parameters, which are parsed by hand for errors that say where, as schemas.

Schemathesis holds both equal: what satisfies these is accepted, what does not is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock_realtime.domain.text_format import JsonSchemaFormat
from penstock_shared.contracts.requests import MAX_TEXTS, MAX_TOOLS, FunctionName

WithText = Annotated[str, StringConstraints(pattern=r"\S")]
"""Not only white space."""
ResponseId = Annotated[str, StringConstraints(pattern=r"^resp_[0-9a-f]{32}$")]
State = Literal["in_progress", "completed", "incomplete"] | None


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InputText(_Closed):
    """Text of a message."""

    type: Literal["input_text"]
    text: str


class OutputText(_Closed):
    """Text of an earlier answer."""

    type: Literal["output_text"]
    text: str
    annotations: Any = None
    logprobs: Any = None


Text: TypeAlias = str | list[InputText | OutputText]


class InputMessage(_Closed):
    """One turn of the conversation."""

    type: Literal["message"] | None = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text
    id: Any = None
    status: Any = None
    phase: Any = None


class FunctionCallItem(_Closed):
    """An earlier call."""

    type: Literal["function_call"]
    id: Any = None
    call_id: str
    name: str
    arguments: str
    status: State = None


class FunctionCallOutput(_Closed):
    """What a function that was called has returned."""

    type: Literal["function_call_output"]
    id: Any = None
    call_id: str
    name: Any = None
    output: Text
    status: State = None


Input: TypeAlias = (
    WithText
    | Annotated[list[InputMessage | FunctionCallItem | FunctionCallOutput], Field(min_length=1)]
)


class Arguments(BaseModel):
    """JSON Schema (draft 2020-12) of a function's arguments; 64 KiB and 32 levels at most."""

    model_config = ConfigDict(extra="allow")

    type: Literal["object"] = "object"


class FunctionDefinition(_Closed):
    """A function of the client's own."""

    name: FunctionName
    description: str | None = None
    parameters: Arguments | None = None
    strict: bool | None = None


class FunctionTool(FunctionDefinition):
    """A function that the model may ask the client to call."""

    type: Literal["function"]


class NamedFunction(_Closed):
    """One of `tools`."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(_Closed):
    """Some of `tools`."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunction], Field(min_length=1)]


Tools: TypeAlias = Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None
ToolChoice: TypeAlias = Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None


class PlainFormat(_Closed):
    """Text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(JsonSchemaFormat):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]


class TextOptions(_Closed):
    """What form the answer must have."""

    format: PlainFormat | SchemaFormat | None = None
    verbosity: Literal["medium"] | None = None


class ResponseInput(BaseModel):
    """Parameters of a response that are parsed by hand."""

    input: Input
    previous_response_id: ResponseId | None = None
    text: TextOptions | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None


class ChatText(_Closed):
    """Text of a message."""

    type: Literal["text"]
    text: str


ChatContent: TypeAlias = str | list[ChatText]
Empty: TypeAlias = Annotated[list[Any], Field(max_length=0)] | None
"""What the SDKs' own objects carry along without using it."""


class _ChatMessage(_Closed):
    annotations: Empty = None
    audio: Empty = None
    function_call: Empty = None
    name: Empty = None
    refusal: Empty = None


class ChatInput(_ChatMessage):
    """What the client says."""

    role: Literal["system", "developer", "user"]
    content: ChatContent


class CalledFunction(_Closed):
    """A function's name, and its arguments as JSON text."""

    name: str
    arguments: str
    parsed_arguments: Any = None


class ChatCall(_Closed):
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


class ChatTool(_Closed):
    """A function that the model may ask the client to call."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionReference(_Closed):
    """A function's name."""

    name: FunctionName


class ChatNamedFunction(_Closed):
    """One of `tools`."""

    type: Literal["function"]
    function: FunctionReference


class ChatAllowed(_Closed):
    """Some of `tools`."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ChatNamedFunction], Field(min_length=1)]


class ChatAllowedTools(_Closed):
    """Some of `tools`."""

    type: Literal["allowed_tools"]
    allowed_tools: ChatAllowed


class NamedSchema(_Closed):
    """A JSON Schema (draft 2020-12); 64 KiB and 32 levels at most."""

    type: Literal["json_schema"] = "json_schema"
    name: FunctionName
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ChatSchemaFormat(_Closed):
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


class EmbeddingInput(BaseModel):
    """The parameter of an embedding that is parsed by hand."""

    input: WithText | Annotated[list[WithText], Field(min_length=1, max_length=MAX_TEXTS)]


class RetrieveQuery(BaseModel):
    """How a response is retrieved."""

    stream: bool = False
    """As server-sent events."""
    starting_after: Annotated[int, Field(ge=0, lt=10**18)] | None = None
    """Of a stream: the number of the last event that the client has."""
