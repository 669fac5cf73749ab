"""One request to generate, whichever API it came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock_shared.contracts.errors import PermanentError, TooLargeError
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import (
    MAX_INPUT_BYTES,
    ChatMessage,
    Content,
    Sampling,
    Tool,
)
from penstock_shared.runtime.rate_limit import DEFAULT_OUTPUT_TOKENS, most_tokens


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request that is well-formed."""

    model: str
    kind: ModelKind = ModelKind.TEXT
    turns: tuple[ChatMessage, ...] = ()
    """The conversation without `instructions`."""
    answered: Mapping[str, str] = field(default_factory=dict)
    """Outputs of function calls that are not in `turns`, so they must be in the conversation that
    goes on: call id to the name of the parameter that gave it."""
    instructions: str | None = None
    texts: tuple[str, ...] = ()
    """To embed."""
    output_schema: dict[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    stream: bool = False
    source: str = "input"
    """The parameter that held it, for errors."""
    include_usage: bool = False
    """Chat Completions' `stream_options.include_usage`."""
    store: bool = False
    background: bool = False
    previous: str | None = None
    """Request id of the response whose conversation goes on."""
    safety_identifier: str | None = None
    echo: dict[str, Any] = field(default_factory=dict)
    """The client's own parameters as its API gives them back in the response object."""

    def most_tokens(self) -> int:
        """The most that it may use, as far as it says: charged to the token limits."""
        said = [turn.content for turn in self.turns]
        said += (self.instructions or "", *self.texts, *(t.model_dump_json() for t in self.tools))
        if self.kind is ModelKind.EMBEDDING:
            return most_tokens(said, 0)
        return most_tokens(said, self.sampling.max_output_tokens or DEFAULT_OUTPUT_TOKENS)

    def content(self, before: tuple[ChatMessage, ...] = ()) -> bytes:
        """What is sealed: `contracts.requests.Content` as JSON, after the turns `before`.

        Raises:
            PermanentError: there is nothing to answer.
            TooLargeError: it is over the limit.
        """
        turns = (*before, *self.turns)
        said = any(turn.role == "tool" or turn.content.strip() for turn in turns)
        if not self.texts and not said:
            msg = f"'{self.source}' is empty: send at least one message with text."
            raise PermanentError(msg, code="empty_input", param=self.source)
        head = (ChatMessage(role="system", content=self.instructions),) if self.instructions else ()
        content = Content(
            messages=() if self.texts else head + turns,
            texts=self.texts,
            output_schema=self.output_schema,
            tools=self.tools,
            must_call=self.must_call,
            request=self.echo or None,
        )
        sealed = content.to_seal().encode()
        if len(sealed) > MAX_INPUT_BYTES:
            msg = f"The input has {len(sealed)} bytes; {MAX_INPUT_BYTES} are allowed."
            raise TooLargeError(msg, param=self.source)
        return sealed
