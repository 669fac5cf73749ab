"""The events of a response, over server-sent events and WebSocket alike, as schemas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from penstock_realtime.http.documents.answers import (
    OutputCall,
    OutputMessage,
    OutputTextPart,
    Response,
)
from penstock_shared.contracts.errors import ErrorBody


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sequence_number: int
    """Where in the answer it belongs: the same on every connection and instance."""
    stream_id: str | None = None
    """WebSocket: as `response.create` named it."""


class _Placed(_Event):
    item_id: str
    output_index: Literal[0]


class _InText(_Placed):
    content_index: Literal[0]


class ResponseCreated(_Event):
    """It is accepted, durably."""

    type: Literal["response.created"]
    response: Response


class ResponseInProgress(_Event):
    """It runs, or waits for a worker."""

    type: Literal["response.in_progress"]
    response: Response


class OutputItemAdded(_Event):
    """The answer begins."""

    type: Literal["response.output_item.added"]
    output_index: Literal[0]
    item: OutputMessage | OutputCall


class ContentPartAdded(_InText):
    """Its text begins."""

    type: Literal["response.content_part.added"]
    part: OutputTextPart


class OutputTextDelta(_InText):
    """More text; a reader that lags gets several deltas as one, which names the first."""

    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[Any]
    first_sequence_number: int | None = None


class OutputTextDone(_InText):
    """All of the text."""

    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[Any]


class ContentPartDone(_InText):
    """The text has ended."""

    type: Literal["response.content_part.done"]
    part: OutputTextPart


class FunctionArgumentsDelta(_Placed):
    """The arguments of a call, all at once: only its end shows that an answer is a call."""

    type: Literal["response.function_call_arguments.delta"]
    delta: str


class FunctionArgumentsDone(_Placed):
    """All of the arguments."""

    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class OutputItemDone(_Event):
    """The answer has ended."""

    type: Literal["response.output_item.done"]
    output_index: Literal[0]
    item: OutputMessage | OutputCall


class ResponseEnded(_Event):
    """The end; a cancelled response is `incomplete` here, and `response.status` says cancelled."""

    type: Literal["response.completed", "response.incomplete", "response.failed"]
    response: Response


class PenstockGap(_Event):
    """Not of the vendor's: the events up to this number will not come."""

    type: Literal["penstock.gap"]
    first_sequence_number: int
    response_id: str
    reason: Literal["expired", "slow_reader"]


class StreamError(_Event):
    """Server-sent events: the edge cannot go on. The response may still end: retrieve it."""

    type: Literal["error"]
    code: str
    message: str
    param: str | None


class SocketError(BaseModel):
    """WebSocket: an event was refused, or a response cannot go on."""

    model_config = ConfigDict(extra="allow")

    type: Literal["error"]
    status: int
    error: ErrorBody
    stream_id: str | None = None


RESPONSE_EVENTS = (
    ResponseCreated,
    ResponseInProgress,
    OutputItemAdded,
    ContentPartAdded,
    OutputTextDelta,
    OutputTextDone,
    ContentPartDone,
    FunctionArgumentsDelta,
    FunctionArgumentsDone,
    OutputItemDone,
    ResponseEnded,
    PenstockGap,
)
"""In the order in which they come."""


class SessionDescription(BaseModel):
    """A session."""

    model_config = ConfigDict(extra="forbid")

    id: str
    policy: str
    resumable_for_s: float


class SessionStarted(BaseModel):
    """Answers `session.start`."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["session.started"]
    session: SessionDescription


class ResumedResponse(BaseModel):
    """One response of a session, or one that was named.

    It goes on here if it was named; `response.resume` does the same for the others.
    """

    model_config = ConfigDict(extra="forbid")

    response_id: str
    stream_id: str | None
    starting_after: int | None


class SessionResumed(BaseModel):
    """Answers `session.resume`; the events of each response that was named follow."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["session.resumed"]
    session: SessionDescription
    responses: list[ResumedResponse]


SESSION_EVENTS = (SessionStarted, SessionResumed)
