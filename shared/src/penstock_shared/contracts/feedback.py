"""What a client says of an answer: the fact from which the router learns most."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.ids import KeyId, ModelName, RequestId, TenantId

GOOD_FROM: Final = 0.5
"""An answer with this score or more counts as right."""

Score = Annotated[float, Field(ge=0, le=1)]
"""Of an answer: 0 is useless, 1 is right."""


class GiveFeedback(BaseModel):
    """A judgement on `v1.<tenant>.requests.feedback`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    request_id: str
    score: Score


class FeedbackGiven(BaseModel):
    """The answer to it, and to its repetition."""

    model_config = ConfigDict(frozen=True)

    request_id: RequestId
    score: Score
    given_at: datetime


class ResponseFeedback(BaseModel):
    """On `v1.<tenant>.events.feedback.<request>`; expected-last-sequence 0 lets one in."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.response.feedback.v1"

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    model: ModelName
    """That gave the answer."""
    attempt: int
    score: Score
    given_at: datetime


def feedback_id(request_id: str) -> str:
    """The deterministic event id of a request's feedback."""
    return f"{request_id}/feedback"
