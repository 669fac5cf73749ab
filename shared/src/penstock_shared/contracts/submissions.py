"""What a tenant's own NATS client sends, and how `input` becomes what is sealed."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import DataSubject, ModelName
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import (
    AUTO_MODEL,
    MAX_OUTPUT_TOKENS,
    MAX_TEXTS,
    MAX_TOOLS,
    ChatMessage,
    Content,
    Sampling,
    Tool,
)

NATS_KEY: Final = "nats"
"""The key id of what came over NATS: the broker names the tenant and not the key."""
Input: TypeAlias = str | tuple[str, ...] | tuple[ChatMessage, ...]
"""A message or a conversation for a text model; for the others a text or several."""
_MISFIT: Final = "input_not_for_model"


class FunctionTool(Tool):
    """A function as the OpenAI API's Responses writes it."""

    type: Literal["function"]
    strict: bool | None = None
    """Arguments satisfy their schema either way."""


class Submission(BaseModel):
    """What a tenant publishes on `requests.submit` or `requests.queue`: plain JSON.

    The same names as in the OpenAI API's Responses; `ce-id` is the request id, or any other
    text as an idempotency key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName = AUTO_MODEL
    input: Input
    instructions: str | None = None
    output_schema: dict[str, Any] | None = None
    """JSON Schema (draft 2020-12) that a text model's answer must satisfy."""
    tools: Annotated[tuple[FunctionTool, ...], Field(max_length=MAX_TOOLS)] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    safety_identifier: DataSubject | None = None

    def content(self, kind: ModelKind) -> Content:
        """What is sealed, in the form that a model of this kind works on.

        Raises:
            ValueError: there is no text in it.
            PermanentError: it is not for this kind of model, holds too many texts, or must call a
                function and has none.
        """
        if kind is ModelKind.TEXT:
            told = conversation(_turns(self.input), self.instructions)
            return told.model_copy(update={"output_schema": self.output_schema, **self._calls()})
        for given in ("instructions", "output_schema", "tools"):
            if getattr(self, given) not in (None, ()):
                msg = f"'{given}' is for models that generate an answer: leave it out."
                raise PermanentError(msg, code=_MISFIT, param=given)
        return passages(self.input)

    def _calls(self) -> dict[str, Any]:
        must_call = self.tool_choice == "required"
        if must_call and not self.tools:
            msg = "'tool_choice' is 'required', and 'tools' has no function: add one."
            raise PermanentError(msg, code="invalid_value", param="tool_choice")
        offered = () if self.tool_choice == "none" else self.tools
        names = Tool.model_fields.keys()
        tools = tuple(Tool(**tool.model_dump(include=set(names))) for tool in offered)
        return {"tools": tools, "must_call": must_call}

    def sampling(self) -> Sampling:
        """How to generate."""
        return Sampling(
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
        )


def conversation(given: str | tuple[ChatMessage, ...], instructions: str | None = None) -> Content:
    """Build the conversation from the API's `input` and `instructions`.

    Raises:
        ValueError: there is nothing to answer.
    """
    turns = (ChatMessage(role="user", content=given),) if isinstance(given, str) else given
    if not any(turn.content.strip() for turn in turns):
        msg = "'input' is empty: send at least one message with text."
        raise ValueError(msg)
    head = (ChatMessage(role="system", content=instructions),) if instructions else ()
    return Content(messages=head + turns)


def passages(given: Input) -> Content:
    """Texts to embed, or the one to translate.

    Raises:
        ValueError: there are none, or one of them is empty.
        PermanentError: they are too many, or messages.
    """
    texts = (given,) if isinstance(given, str) else given
    plain = tuple(text for text in texts if isinstance(text, str))
    if len(plain) != len(texts):
        msg = "'input' holds messages: this kind of model takes a string or a list of strings."
        raise PermanentError(msg, code=_MISFIT, param="input")
    if not plain or not all(text.strip() for text in plain):
        msg = "'input' is empty, or one of its texts is: send at least a word in each."
        raise ValueError(msg)
    if len(plain) > MAX_TEXTS:
        msg = f"'input' has {len(plain)} texts, {MAX_TEXTS} are allowed: send several requests."
        raise PermanentError(msg, code="too_many_texts", param="input")
    return Content(texts=plain)


def _turns(given: Input) -> str | tuple[ChatMessage, ...]:
    if isinstance(given, str):
        return given
    turns = tuple(turn for turn in given if isinstance(turn, ChatMessage))
    if len(turns) != len(given):
        msg = "'input' is a list of strings: a text model takes one string, or messages."
        raise PermanentError(msg, code=_MISFIT, param="input")
    return turns
