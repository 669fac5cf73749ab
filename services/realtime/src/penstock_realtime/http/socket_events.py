"""What a client may send over a WebSocket: the vendor's events, and ours for sessions."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from penstock_realtime.domain.parameters import invalid
from penstock_realtime.ports import Policy
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import parse_request_id

_StreamId = Annotated[str, StringConstraints(max_length=128)]


def _request_id(value: str) -> str:
    try:
        return parse_request_id(value)
    except PermanentError as error:
        raise ValueError(error.message) from error


_ResponseId = Annotated[str, StringConstraints(max_length=64), AfterValidator(_request_id)]
_SequenceNumber = Annotated[int, Field(ge=-1, le=1 << 53)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CreateResponse(BaseModel):
    """`response.create`: the parameters of `POST /v1/responses`, in the event itself."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    stream_id: _StreamId | None = None
    """Comes back in every event of the response, so that several can run side by side."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What the response is made from; a stream is implied."""
        given = dict(self.model_extra or {})
        given.pop("stream", None)
        return given


class CancelResponse(_Event):
    """`response.cancel`: the one that runs, or the one that is named."""

    request_id: _ResponseId | None = Field(None, alias="response_id")


class ResumeResponse(_Event):
    """`response.resume`: the events of a response after one that the client has."""

    request_id: _ResponseId = Field(alias="response_id")
    starting_after: _SequenceNumber = -1
    stream_id: _StreamId | None = None


class StartSession(_Event):
    """`session.start`: learn the session's id, choose its policy.

    As the first message of a browser it also carries the credential.
    """

    policy: Annotated[Policy, Field(strict=False)] | None = None
    token: str | None = None


class ResumeSession(_Event):
    """`session.resume`: go on where another connection stopped."""

    session_id: Annotated[str, StringConstraints(max_length=64)]
    positions: Annotated[dict[_ResponseId, _SequenceNumber], Field(max_length=1024)] = {}
    """The last sequence number that the client has of each response that it wants to go on.

    Others are only listed: the client may have all of one whose end the session has not heard of.
    """
    token: str | None = None


Event: TypeAlias = CreateResponse | CancelResponse | ResumeResponse | StartSession | ResumeSession

CLIENT_EVENTS: Final[dict[str, type[Event]]] = {
    "response.create": CreateResponse,
    "response.cancel": CancelResponse,
    "response.resume": ResumeResponse,
    "session.start": StartSession,
    "session.resume": ResumeSession,
}


def parse_event(given: dict[str, Any]) -> Event:
    """Judge one event.

    Raises:
        PermanentError: no such event, or a field of it is wrong.
    """
    kind = given.pop("type", None)
    model = CLIENT_EVENTS.get(kind) if isinstance(kind, str) else None
    if model is None:
        names = ", ".join(repr(name) for name in CLIENT_EVENTS)
        msg = f"Unknown event type {str(kind)[:80]!r}: send one of {names}."
        raise PermanentError(msg, code="unknown_event", param="type")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from error
