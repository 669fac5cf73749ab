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
AnswerId = Annotated[str, StringConstraints(pattern=r"^(resp_|chatcmpl-)[0-9a-f]{32}$")]
State = Literal["in_progress", "completed", "incomplete"] | None


class Closed(BaseModel):
    """No other field is known."""

    model_config = ConfigDict(extra="forbid")


class InputText(Closed):
    """Text of a message."""

    type: Literal["input_text"]
    text: str


class OutputText(Closed):
    """Text of an earlier answer."""

    type: Literal["output_text"]
    text: str
    annotations: Any = None
    logprobs: Any = None
    parsed: Any = None


Text: TypeAlias = str | list[InputText | OutputText]


class InputMessage(Closed):
    """One turn of the conversation."""

    type: Literal["message"] | None = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text
    id: Any = None
    status: Any = None
    phase: Any = None


class NotServed(Closed):
    """What else the vendor's items of functions have."""

    async_: None = Field(default=None, alias="async")
    caller: None = None
    created_by: None = None
    namespace: None = None


class FunctionCallItem(NotServed):
    """An earlier call."""

    type: Literal["function_call"]
    id: Any = None
    call_id: str
    name: str
    arguments: str
    parsed_arguments: Any = None
    status: State = None


class FunctionCallOutput(NotServed):
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


class FunctionDefinition(Closed):
    """A function of the client's own."""

    name: FunctionName
    description: str | None = None
    parameters: Arguments | None = None
    strict: bool | None = None


class FunctionTool(FunctionDefinition):
    """A function that the model may ask the client to call."""

    type: Literal["function"]


class NamedFunction(Closed):
    """One of `tools`."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(Closed):
    """Some of `tools`."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunction], Field(min_length=1)]


Tools: TypeAlias = Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None
ToolChoice: TypeAlias = Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None


class PlainFormat(Closed):
    """Text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(JsonSchemaFormat):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]


class TextOptions(Closed):
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


class EmbeddingInput(BaseModel):
    """The parameter of an embedding that is parsed by hand."""

    input: WithText | Annotated[list[WithText], Field(min_length=1, max_length=MAX_TEXTS)]


class RetrieveQuery(BaseModel):
    """How a response is retrieved."""

    stream: bool = False
    """As server-sent events."""
    starting_after: Annotated[int, Field(ge=0, lt=10**18)] | None = None
    """Of a stream: the number of the last event that the client has."""
