"""What the router needs from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    FIRST_ATTEMPT,
    RequestEnded,
    RequestFact,
    RequestRouted,
)
from penstock_shared.contracts.routing import PolicySet
from penstock_shared.contracts.usage import NOTHING_USED, Price, Usage


class RequestLog(Protocol):
    """The event log, as far as the facts of requests go."""

    async def write_routed(
        self, routed: RequestRouted, *, source: str, traceparent: str | None
    ) -> int:
        """Write the first fact; returns its sequence.

        Raises:
            SequenceConflictError: the request has facts already.
            UnavailableError: the log did not confirm.
        """
        ...

    async def last_fact(self, tenant: str, request_id: str) -> tuple[int, RequestFact] | None:
        """Sequence and content of the request's last fact.

        Raises:
            UnavailableError: the log does not answer, or the fact cannot be read.
        """
        ...

    async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
        """The request's first fact; None where the log has none, or has it no more.

        Raises:
            UnavailableError: the log does not answer, or the fact cannot be read.
        """
        ...

    async def publish_job(self, job: Job, *, source: str, traceparent: str | None) -> None:
        """Publish the job of an attempt; a repetition is identical."""
        ...

    async def write_ended(self, ended: RequestEnded, expected_seq: int, *, source: str) -> None:
        """Write a terminal for an attempt that nobody runs, and the final frame after it.

        Raises:
            SequenceConflictError: somebody else wrote the next fact first.
        """
        ...


class QuotaGate(Protocol):
    """Holds back of quotas and prepaid credit what a request may use, before it is routed (I4)."""

    async def reserve(self, tenant: TenantRecord, routed: RequestRouted) -> None:
        """Reserve `routed.reserves` of every quota, or nothing; a repetition reserves nothing more.

        Returns at once where nothing limits the tenant.

        Raises:
            RateLimitedError: it does not fit now (`insufficient_quota`, `insufficient_credit`);
                says when to come back.
            TooLargeError: it never will.
            UnavailableError: the truth about quotas cannot be had now.
        """
        ...


class PolicyFacts(Protocol):
    """Tenants' policies, as the event log has them."""

    async def last(self, tenant: str) -> tuple[PolicySet | None, int, int]:
        """A tenant's policy, the sequence of its fact, and what the next one has to expect.

        Raises:
            UnavailableError: the log does not answer, or holds what cannot be read.
        """
        ...

    async def write(self, fact: PolicySet, expected_seq: int) -> int:
        """Write the next policy; returns its sequence.

        Raises:
            SequenceConflictError: somebody else has written one.
            UnavailableError: no confirmation; it may be written or not.
        """
        ...


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """A request with a reservation, as its first attempt (an `Attempt`)."""

    request_id: str
    tenant: str
    key_id: str
    data_subject: str
    model: str
    price: Price
    routed_at: datetime
    deadline: datetime
    attempt: int = FIRST_ATTEMPT
    used_before: Usage = NOTHING_USED
    store: bool = False
    """Nobody was ever told of it: there is nothing to keep."""


class OverdueReservations(Protocol):
    """Reservations that have outlived their requests' deadlines."""

    async def overdue(self, before: datetime, after: HeldRequest | None) -> list[HeldRequest]:
        """A page of those whose deadline was before that, in order, from behind `after`.

        Raises:
            UnavailableError: the truth about quotas cannot be had now.
        """
        ...
