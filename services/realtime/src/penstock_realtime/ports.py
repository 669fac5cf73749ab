"""What the edge needs of the world: roles, not technologies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import Accepted, Admission, RequestFact
from penstock_shared.contracts.subjects import TenantPermissions


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a rate limit says of one request."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: float
    """Seconds until the whole limit is free again."""
    retry_after_s: float
    """Seconds until one more request fits; 0 when it fits now."""


class RateLimiter(Protocol):
    """Counts a tenant's requests across all instances."""

    async def take(self, tenant: str, per_minute: int) -> Allowance:
        """Count one request if it fits. Never raises: without the store it decides alone."""
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


class FrameFeed(Protocol):
    """Frames of one request as they are published."""

    async def get(self, timeout_s: float, *, until_final: bool = False) -> list[bytes]:
        """All frames that are here, at least one; empty when `timeout_s` passed in silence.

        `until_final` waits on while only deltas come; what came by the timeout is returned then.

        Raises:
            FeedClosedError: somebody closed it, also while this waits.
        """
        ...

    async def close(self) -> None:
        """Listen no more."""
        ...


class FrameSource(Protocol):
    """Where frames come from."""

    async def open(self, tenant: str, request_id: str) -> FrameFeed:
        """Listen from now on: the request to the router must follow on the same connection."""
        ...

    async def stored(self, tenant: str, request_id: str) -> list[bytes]:
        """Every frame that is still kept, from the first; empty when none is."""
        ...


class RequestLog(Protocol):
    """The event log, asked about one request."""

    async def last_fact(self, tenant: str, request_id: str) -> RequestFact | None:
        """The last that is known of a request; None when it does not exist.

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
    """The API key, sent as token or as password."""


class LoginCodec(Protocol):
    """Reads and signs the messages of the auth callout."""

    def parse(self, raw: bytes) -> LoginRequest:
        """Read one request.

        Raises:
            PermanentError: it is none.
        """
        ...

    def grant(self, request: LoginRequest, name: str, permissions: TenantPermissions) -> bytes:
        """Let the user in as `name`, with these permissions and no others."""
        ...

    def refuse(self, request: LoginRequest, reason: str) -> bytes:
        """Keep the user out."""
        ...


class ModelCatalogue(Protocol):
    """The models that are served."""

    def get(self, key: str) -> ModelRecord | None:
        """One of them by name."""
        ...

    def values(self) -> Iterator[ModelRecord]:
        """All of them."""
        ...
