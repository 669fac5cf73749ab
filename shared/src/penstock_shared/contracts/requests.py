"""A request from admission to its terminal fact."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from penstock_shared.contracts.attempts import Attempt
from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.ids import DataSubject, KeyId, ModelName, RequestId, RunId, TenantId
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.quotas import Reserve
from penstock_shared.contracts.routing import Candidate
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import NOTHING_USED, Price, Usage

AUTO_MODEL: Final = "auto"
"""The model name by which a client leaves the choice to the router."""

MAX_OUTPUT_TOKENS: Final = 32_768
MAX_INPUT_BYTES: Final = 256 * 1024
MAX_TEXTS: Final = 256
MAX_TOOLS: Final = 64
MAX_DEADLINE_S: Final = 3600.0
FIRST_ATTEMPT: Final = 1


class Sampling(BaseModel):
    """How to generate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str


FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Tool(BaseModel):
    """A function that the model may ask the client to call."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema (draft 2020-12) of the arguments; None accepts any object."""


class Content(BaseModel):
    """What is sealed before anything is logged (I10): the conversation, or texts to work on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[ChatMessage, ...] = ()
    texts: Annotated[tuple[str, ...], Field(max_length=MAX_TEXTS)] = ()
    """To embed, or the one to translate."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema (draft 2020-12) that the answer must satisfy."""
    tools: Annotated[tuple[Tool, ...], Field(max_length=MAX_TOOLS)] = ()
    """Functions that may be called: an answer that is valid arguments of one is a call of it."""
    must_call: bool = False
    """An answer that calls none of them fails its check."""
    request: dict[str, Any] | None = None
    """What else the client's request said (metadata, instructions, …), for whoever retrieves the
    response later. No model sees it."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.messages) == bool(self.texts):
            msg = "either messages or texts"
            raise ValueError(msg)
        return self

    def to_seal(self) -> str:
        """As JSON, without what has its default: an older instance refuses unknown fields."""
        return self.model_dump_json(exclude_defaults=True)


class Admission(BaseModel):
    """realtime → router on `requests.admitted`: limited, authenticated, sealed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: RequestId
    key_id: KeyId
    data_subject: DataSubject
    model: ModelName = AUTO_MODEL
    lane: Lane = Lane.STANDARD
    sampling: Sampling = Sampling()
    content: str
    """Sealed `Content`, bound to tenant, request id and the field name "content"."""
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | None = None
    store: bool = False
    """Whether the response may be retrieved later (the OpenAI API's `store`)."""


class Decision(BaseModel):
    """Why this model. `probability` is that of the choice under the policy that made it."""

    model_config = ConfigDict(frozen=True)

    policy: str
    model: ModelName
    probability: float
    reason: str
    features: dict[str, float]
    """Numbers that were computed from the content, never content (I10)."""
    context: str = ""
    """What learners learn from: the context vector, eight bits a number, base64."""
    shape: str = ""
    """Of the task: requests of one shape are alike; one of a few dozen words."""
    candidates: tuple[Candidate, ...] = ()
    """Every model that could have been chosen; empty where the client named one."""
    experiment: str | None = None
    arm: Literal["baseline", "candidate"] | None = None
    """On which side of the tenant's experiment the request is."""
    expected_cost_microusd: float | None = None
    """Of the whole plan, escalations included."""
    exploration_microusd: float = 0.0
    """What exploring is expected to cost here, more than the best known choice."""
    learned_seq: int = 0
    """How far the event log had been read when this was decided."""


class NextAttempt(BaseModel):
    """Who tries next when an answer fails its check."""

    model_config = ConfigDict(frozen=True)

    model: ModelName
    price: Price
    min_confidence: float | None = None


class RequestRouted(BaseModel):
    """The first fact of a request, written with expected-last-sequence 0 (I1)."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.request.routed.v1"

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    data_subject: DataSubject
    lane: Lane
    attempt: int
    decision: Decision
    price: Price
    sampling: Sampling
    content: str
    accepted_at: datetime
    deadline: datetime
    weight: Annotated[int, Field(ge=1)] = 1
    """Of the tenant, among those who wait for the same lane."""
    final_attempt: bool = True
    """Whether an answer that fails its check ends the request, or only this attempt."""
    min_confidence: float | None = None
    """An answer below it fails its check; 0 to 1, as `RequestEnded.confidence`."""
    store: bool = False
    """Whether realtime keeps the response beyond the event log's own time."""
    plan: tuple[NextAttempt, ...] = ()
    """Attempt 2, 3, …: who tries when the one before failed its check."""
    reserves: tuple[Reserve, ...] = ()
    """What was reserved of the tenant's quotas for each attempt; empty: it has none."""

    @property
    def model(self) -> str:
        """The model of the first attempt."""
        return self.decision.model

    @property
    def used_before(self) -> Usage:
        """It is about the first attempt."""
        return NOTHING_USED

    @property
    def routed_at(self) -> datetime:
        """What the other facts call the time of this one."""
        return self.accepted_at


class Status(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Timings(BaseModel):
    """Where the time went, in milliseconds since `routed`."""

    model_config = ConfigDict(frozen=True)

    queued_ms: float
    first_token_ms: float | None
    total_ms: float


Reason = Literal["stop", "max_output_tokens", "cancelled", "expired", "error"]
"""Why a request ended."""


class RequestEnded(BaseModel):
    """The terminal fact: exactly one takes effect per request (I2)."""

    model_config = ConfigDict(frozen=True)

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    data_subject: DataSubject
    model: ModelName
    kind: ModelKind = ModelKind.TEXT
    """Of the model, where one has run it."""
    attempt: int
    run: RunId | None
    """The winning run; None when nobody ran it (expired, cancelled while queued)."""
    status: Status
    reason: Reason
    usage: Usage
    """Of this attempt, at its price: billing counts each attempt by the fact that ended it."""
    used_before: Usage = NOTHING_USED
    """What the earlier attempts have used."""
    price: Price
    output: str | None
    """Sealed text, bound to the field name "output"; None when there is none."""
    delta_ends: tuple[int, ...] = ()
    """End offset, in code points of the text, of every delta: a late client can resume."""
    delta_numbers: tuple[int, ...] = ()
    """The deltas' numbers, where they are not simply 0, 1, 2, …: after a crash the text consists
    of what earlier runs had shown, under their numbers, and of the last run's own."""
    called: int | None = None
    """Which of `Content.tools` the answer calls; its arguments are the output."""
    timings: Timings | None = None
    confidence: float | None = None
    """The geometric mean of the generated tokens' probabilities; None where none was measured."""
    error: ErrorBody | None = None
    store: bool = False
    """As in `routed`: whoever archives facts need not have seen that one."""
    routed_at: datetime
    ended_at: datetime

    @property
    def total_usage(self) -> Usage:
        """Of all attempts: what the request is billed, and what clients are told."""
        return self.used_before + self.usage

    @classmethod
    def unstarted(
        cls,
        attempt: Attempt,
        now: datetime,
        *,
        status: Status,
        reason: Reason,
        error: ErrorBody | None = None,
    ) -> Self:
        """The end of an attempt that no engine saw: nothing generated, nothing billed (I3)."""
        waited_ms = round((now - attempt.routed_at).total_seconds() * 1000, 3)
        return cls(
            request_id=attempt.request_id,
            tenant=attempt.tenant,
            key_id=attempt.key_id,
            data_subject=attempt.data_subject,
            model=attempt.model,
            attempt=attempt.attempt,
            run=None,
            status=status,
            reason=reason,
            usage=NOTHING_USED,
            used_before=attempt.used_before,
            price=attempt.price,
            output=None,
            timings=Timings(queued_ms=waited_ms, first_token_ms=None, total_ms=waited_ms),
            error=error,
            store=attempt.store,
            routed_at=attempt.routed_at,
            ended_at=now,
        )


class AttemptFailed(BaseModel):
    """An answer that failed its check while another attempt may follow: no terminal."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.attempt.failed.v1"

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    data_subject: DataSubject
    model: ModelName
    kind: ModelKind = ModelKind.TEXT
    attempt: int
    run: RunId
    reason: Literal["schema", "confidence"]
    keyword: str | None = None
    """Which of the schema's keywords was not met (a word of JSON Schema's, so no content)."""
    detail: str
    """What was wrong, sealed, bound to the field name "check": it may quote the answer (I10)."""
    usage: Usage
    used_before: Usage = NOTHING_USED
    """What the attempts before this one have used."""
    price: Price
    output: str
    """The sealed answer, bound to the field name "output"."""
    timings: Timings
    confidence: float | None = None
    store: bool = False
    routed_at: datetime
    failed_at: datetime

    @property
    def used_so_far(self) -> Usage:
        """With this attempt: `used_before` of the next one."""
        return self.used_before + self.usage


RequestFact: TypeAlias = RequestRouted | AttemptFailed | RequestEnded
"""What stands on a request's subject; only `RequestEnded` ends it."""


def terminal_type(status: Status) -> str:
    """The CloudEvents type of a terminal fact."""
    return f"penstock.request.{status.value}.v1"


TERMINAL_TYPES: Final = frozenset(terminal_type(status) for status in Status)


def routed_id(request_id: str) -> str:
    """The deterministic event id of `routed`."""
    return f"{request_id}/routed"


def terminal_id(request_id: str, attempt: int, run: str | None) -> str:
    """The deterministic event id of a terminal; `run` None is the sweeper's or a refusal."""
    return f"{request_id}/{attempt}/{run or 'none'}/ended"


def attempt_failed_id(request_id: str, attempt: int, run: str) -> str:
    """The deterministic event id of `attempt.failed`."""
    return f"{request_id}/{attempt}/{run}/failed"


class Accepted(BaseModel):
    """The router's reply once the decision is durable and the job is published."""

    model_config = ConfigDict(frozen=True)

    status: Literal["accepted"] = "accepted"
    request_id: RequestId
    model: ModelName
    accepted_at: datetime
    ended: bool = False
    """The request already has its terminal: read it from EVENTS instead of waiting."""


class Rejected(BaseModel):
    """The router's refusal. It is no terminal and binds no id."""

    model_config = ConfigDict(frozen=True)

    status: Literal["rejected"] = "rejected"
    http_status: int
    error: ErrorBody
    retry_after_s: float | None = None


class AdmissionReply(BaseModel):
    """Either of the two, told apart by `status`."""

    model_config = ConfigDict(frozen=True)

    reply: Annotated[Accepted | Rejected, Field(discriminator="status")]
