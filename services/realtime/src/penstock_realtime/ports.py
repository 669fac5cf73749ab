"""What the edge needs of the world: roles, not technologies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel

from penstock_shared.contracts.accounts import IdentityProvider
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import (
    Accepted,
    Admission,
    RequestEnded,
    RequestFact,
    RequestRouted,
)
from penstock_shared.contracts.subjects import TenantPermissions
from penstock_shared.runtime.access import Identity

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class RunningResponse:
    """One response of a session that may still run."""

    stream_id: str | None
    """The client's own name for it."""
    kept: bool
    """It runs in the background, or has an idempotency key: no lost socket cancels it."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """What outlives a WebSocket: ids and numbers, no content."""

    tenant: str
    session_id: str
    holder: str
    """`<instance>/<socket>`: who delivers it."""
    term: int
    """How often it was claimed, from 1. The fencing token: of two writers the higher one wins."""
    policy: str
    responses: Mapping[str, RunningResponse]
    """By request id."""

    @property
    def instance(self) -> str:
        """The instance that holds it."""
        return self.holder.partition("/")[0]

    @property
    def cancellable(self) -> list[str]:
        """The responses that do not survive a socket that stays away."""
        return [request_id for request_id, response in self.responses.items() if not response.kept]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What an instance learns when it says that it lives."""

    forgotten: bool
    """The store had not known it: all that it wrote before may be gone."""
    silent: Mapping[str, float]
    """Instances that have said nothing for too long, and for how many seconds."""


class SessionStore(Protocol):
    """Sessions and who follows which response, shared by all instances (Redis).

    It holds no truth: losing it costs a reconnect (I9). Every method may raise UnavailableError:
    the store does not answer, and what was asked may have happened or not.
    """

    async def put(self, states: Sequence[tuple[SessionState, float]]) -> Sequence[SessionState]:
        """Write sessions, each to live for so many seconds.

        Returns those that were *not* written, since somebody has claimed them in a later term.
        """
        ...

    async def claim(
        self, tenant: str, session_id: str, holder: str, ttl_s: float
    ) -> tuple[SessionState, str] | None:
        """Take a session over, in a new term: it as it is now, and who held it before.

        None when it does not exist or has expired.
        """
        ...

    async def read(self, tenant: str, session_id: str) -> SessionState | None:
        """A session as it was last written."""
        ...

    async def forget(self, state: SessionState) -> None:
        """Delete a session, unless somebody has claimed it since."""
        ...

    async def settle(self, state: SessionState) -> None:
        """Its holder has dealt with what ran in it: nobody need do so for the holder."""
        ...

    async def follow(self, tenant: str, request_id: str, follower: str, ttl_s: float) -> None:
        """Note who delivers a response besides, or instead of, the session that started it.

        It counts for so many seconds.
        """
        ...

    async def unfollow(self, tenant: str, request_id: str, follower: str, within_s: float) -> None:
        """Undo `follow` after so many seconds."""
        ...

    async def followers(self, tenant: str, request_id: str) -> frozenset[str]:
        """Who follows a response."""
        ...


class InstanceRegistry(Protocol):
    """Which instances live. Every method may raise UnavailableError, as the store's."""

    async def beat(self, instance: str, silent_after_s: float) -> Heartbeat:
        """Say that this instance lives, and hear who does not."""
        ...

    async def adopt(self, dead: str, instance: str, for_s: float) -> bool:
        """Whether this instance looks after a dead one; others may not for so many seconds."""
        ...

    async def held(self, instance: str) -> Sequence[tuple[str, str]]:
        """The sessions (tenant, id) that an instance held with something to cancel in them."""
        ...

    async def bury(self, dead: str) -> None:
        """All that it held is dealt with."""
        ...


class Peers(Protocol):
    """The other instances, spoken to directly."""

    async def tell_taken(self, state: SessionState) -> None:
        """Tell whoever held this session in an earlier term; nobody may hear it."""
        ...

    async def answers(self, instance: str) -> bool:
        """Whether an instance lives, whatever its heartbeat says; yes, if that is unknown."""
        ...


class ResponseFacts(NamedTuple):
    """What EVENTS said of one response, wherever it stands now."""

    routed: RequestRouted
    ended: RequestEnded | None
    """None while it runs."""


class StoredResponses(Protocol):
    """Responses with `store` beyond the event log's own time, encrypted (Postgres)."""

    async def get(self, tenant: str, request_id: str) -> ResponseFacts | None:
        """One that is kept and not deleted.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class ArchivedResponse:
    """What is to be kept of one response: either fact may be missing, both are if it is deleted.

    Facts are kept as they stood in EVENTS, unread: their content stays sealed (I10).
    """

    tenant: str
    request_id: str
    expires_at: datetime
    routed: bytes | None = None
    ended: bytes | None = None
    deleted: bool = False


class Archive(Protocol):
    """Where `StoredResponses` come from; a projection of EVENTS (I9)."""

    async def prepare(self) -> bool:
        """Set the store up; whether EVENTS is to be read from its beginning.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...

    async def rebuild_begun(self) -> None:
        """EVENTS is being read from its beginning.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...

    async def keep(self, responses: Sequence[ArchivedResponse]) -> None:
        """Add what is not there yet, all or nothing. A deletion wins, before and after.

        Raises:
            UnavailableError: the store does not answer; it may be committed or not.
        """
        ...

    async def prune(self, now: datetime, limit: int) -> int:
        """Remove at most `limit` that have expired; how many it were.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...


class Deletions(Protocol):
    """Which responses their tenants have deleted; the event log."""

    async def delete(self, tenant: str, request_id: str, key_id: str) -> None:
        """Delete it for good, also if it is kept only later; again: the same.

        Raises:
            UnavailableError: the log does not answer: it may be deleted or not.
        """
        ...

    async def deleted(self, tenant: str, request_id: str) -> bool:
        """Whether it is.

        Raises:
            UnavailableError: the log does not answer.
        """
        ...


class FeedbackLog(Protocol):
    """What clients have said of answers; the event log."""

    async def record(self, fact: ResponseFeedback) -> ResponseFeedback:
        """State it, once; returns what stands: this, or what was said before.

        Raises:
            UnavailableError: the log does not answer: it may stand or not.
        """
        ...


class ContentVault(Protocol):
    """Seals what must never be logged in the clear (I10); the keyring."""

    async def seal(
        self, tenant: str, data_subject: str, owner: str, field: str, plain: str | bytes
    ) -> str:
        """Encrypt, bound to tenant, owner and field."""
        ...

    async def open(
        self, tenant: str, data_subject: str, owner: str, field: str, sealed: str
    ) -> bytes:
        """Decrypt what `seal` made."""
        ...


class RouterGateway(Protocol):
    """The routers."""

    async def admit(self, tenant: str, admission: Admission, traceparent: str) -> Accepted:
        """Ask for a decision; returns once it is durable (I1).

        Raises:
            RefusedError: the router said no.
            UnavailableError: no router answered; the request may be accepted or not.
        """
        ...


class Policy(StrEnum):
    """What becomes of text that a session does not take in time."""

    BLOCK = "block"  # nothing is lost: it comes later
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    DROP_INTERMEDIATE = "drop_intermediate"  # the first and the latest come


@dataclass(slots=True)
class Budget:
    """Bytes that all queues of one session share."""

    limit: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A page of the frames that RESPONSES keeps of one request."""

    frames: list[bytes]
    position: int
    """Of the last of them; the next page begins after it."""
    more: bool


class FrameFeed(Protocol):
    """Frames of one request as they are published."""

    async def get(
        self,
        timeout_s: float,
        *,
        until_final: bool = False,
        direct: Callable[[bytes], bool] | None = None,
    ) -> list[bytes]:
        """All frames that are here, at least one; empty when `timeout_s` passed in silence.

        While this waits, `direct` is offered each frame as it comes, and takes it by True.

        `until_final` waits on while only deltas come; what came by the timeout is returned then.

        Raises:
            FeedClosedError: somebody closed it, also while this waits.
        """
        ...

    def overflowed(self) -> bool:
        """Whether frames were refused since the last call: they are to be read again."""
        ...

    @property
    def lossy(self) -> bool:
        """Whether what is missing was given up, by the session's policy."""
        ...

    async def close(self) -> None:
        """Listen no more."""
        ...


class FrameSource(Protocol):
    """Where frames come from."""

    async def open(
        self,
        tenant: str,
        request_id: str,
        budget: Budget | None = None,
        policy: Policy = Policy.BLOCK,
    ) -> FrameFeed:
        """Listen from now on: the request to the router must follow on the same connection.

        What waits to be taken counts against the budget; without one the feed has its own.
        """
        ...

    async def kept(self, tenant: str, request_id: str, after: int = 0) -> Kept:
        """A page of the frames that are still kept, after a position; 0 is before the first.

        Raises:
            UnavailableError: they could not be read.
        """
        ...


class RequestLog(Protocol):
    """The event log, asked about one request."""

    async def last_fact(self, tenant: str, request_id: str) -> RequestFact | None:
        """The last that is known of a request; None when it does not exist.

        Raises:
            UnavailableError: the log does not answer.
        """
        ...

    async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
        """The first that is known of it: its sealed content among others.

        Raises:
            UnavailableError: the log does not answer.
        """
        ...


class CancelCommands(Protocol):
    """Where cancellations go."""

    async def cancel(self, tenant: str, request_id: str) -> None:
        """Command it durably: it also reaches a job that nobody holds yet.

        Raises:
            UnavailableError: the command was not stored.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """What nats-server asks when somebody connects (auth callout)."""

    user_nkey: str
    server_id: str
    secret: str | None
    """The API key or the identity provider's token, sent as token or as password."""


class LoginCodec(Protocol):
    """Reads and signs the messages of the auth callout."""

    def parse(self, raw: bytes) -> LoginRequest:
        """Read one request.

        Raises:
            PermanentError: it is none.
        """
        ...

    def grant(
        self, request: LoginRequest, identity: Identity, permissions: TenantPermissions
    ) -> bytes:
        """Let the caller in with these permissions and no others, until its credential ends."""
        ...

    def refuse(self, request: LoginRequest, reason: str) -> bytes:
        """Keep the user out."""
        ...


@dataclass(frozen=True, slots=True)
class TokenOrigin:
    """Who is said to have made a token, and for whom: nothing of it is verified."""

    issuer: str
    audiences: frozenset[str]


class IdentityProviders(Protocol):
    """The tenants' OpenID providers."""

    def origin(self, token: str) -> TokenOrigin:
        """What the token says of itself.

        Raises:
            AuthenticationError: it is no token.
        """
        ...

    async def verify(self, token: str, provider: IdentityProvider) -> dict[str, Any]:
        """The claims of a token that this provider signed and that is valid now.

        Raises:
            AuthenticationError: it is not valid.
            UnavailableError: the provider's keys are needed and cannot be fetched.
        """
        ...


class AccountDesk(Protocol):
    """Billing, which owns the accounts."""

    async def ask(self, verb: str, question: BaseModel, answer: type[A]) -> A:
        """Carry out one command.

        Raises:
            PenstockError: it is refused.
            UnavailableError: billing does not answer; the command may be carried out or not.
        """
        ...


class BillingDesk(Protocol):
    """Billing, which knows what was used and what it costs."""

    async def ask(self, verb: str, question: BaseModel, answer: type[A]) -> A:
        """Answer one question.

        Raises:
            PenstockError: there is no answer to it.
            UnavailableError: billing does not answer.
        """
        ...


class ModelCatalogue(Protocol):
    """The models that are served."""

    def get(self, key: str) -> ModelRecord | None:
        """One of them by name."""
        ...

    def values(self) -> Iterator[ModelRecord]:
        """All of them."""
        ...
