"""How a job ended, as the fact says it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from penstock_shared.contracts.errors import ErrorBody, PenstockError
from penstock_shared.contracts.jobs import Job, JobAddress
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import (
    AttemptFailed,
    Reason,
    RequestEnded,
    Status,
    Timings,
)
from penstock_shared.contracts.usage import Usage
from penstock_worker.domain.embedding import Embedding
from penstock_worker.domain.generation import Generation, Stop

_ENDINGS: Final[dict[Stop | None, tuple[Status, Reason]]] = {
    None: (Status.COMPLETED, "stop"),
    Stop.LIMIT: (Status.INCOMPLETE, "max_output_tokens"),
    Stop.CANCELLED: (Status.CANCELLED, "cancelled"),
    Stop.EXPIRED: (Status.FAILED, "expired"),
}
_EXPIRED: Final = ErrorBody(
    message="The request's deadline passed before it was done: allow more time, or ask for less.",
    type="server_error",
    code="expired",
)


@dataclass(slots=True, eq=False)
class Run:
    """One pickup of one job that got as far as the engine."""

    job: Job
    run_id: str
    subject: str
    """Where its frames go."""
    kind: ModelKind
    """Of the model that runs it."""
    work: Generation | Embedding
    started_at: datetime | None = None
    first_token_at: datetime | None = None

    @property
    def output_tokens(self) -> int:
        """What the engine generated in this run."""
        return len(self.work.tokens) if isinstance(self.work, Generation) else 0

    def usage(self) -> Usage:
        """Tokens of this run: the prompt as it was run, and what the engine generated (I3)."""
        return Usage(input_tokens=self.work.input_tokens, output_tokens=self.output_tokens)

    def timings(self, now: datetime) -> Timings:
        """Where its time went."""
        routed_at, first = self.job.routed_at, self.first_token_at
        return Timings(
            queued_ms=_ms(routed_at, self.started_at or now),
            first_token_ms=None if first is None else _ms(routed_at, first),
            total_ms=_ms(routed_at, now),
        )


def _ms(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 3)


def end_of_run(
    run: Run,
    now: datetime,
    sealed: str | None,
    *,
    confidence: float | None = None,
    called: int | None = None,
    error: PenstockError | None = None,
) -> RequestEnded:
    """The terminal fact of a run; `error` is why its answer does not count, or was not sealed."""
    job, work = run.job, run.work
    status, reason = _ENDINGS[work.stop]
    body = _EXPIRED if work.stop is Stop.EXPIRED else None
    if error is not None:
        status, reason, body = Status.FAILED, "error", error.body()
    delta_ends: tuple[int, ...] = ()
    delta_numbers: tuple[int, ...] = ()
    if sealed is not None and isinstance(work, Generation):
        delta_ends = tuple(work.delta_ends)
        if work.first_number or work.shown.ends:  # otherwise they are 0, 1, 2, …
            delta_numbers = tuple(work.delta_numbers)
    return RequestEnded(
        request_id=job.request_id,
        tenant=job.tenant,
        key_id=job.key_id,
        data_subject=job.data_subject,
        model=job.model,
        kind=run.kind,
        attempt=job.attempt,
        run=run.run_id,
        status=status,
        reason=reason,
        usage=run.usage(),
        used_before=job.used_before,
        price=job.price,
        output=sealed,
        delta_ends=delta_ends,
        delta_numbers=delta_numbers,
        called=called,
        timings=run.timings(now),
        confidence=confidence,
        error=body,
        store=job.store,
        routed_at=job.routed_at,
        ended_at=now,
    )


def failed_attempt(
    run: Run,
    now: datetime,
    *,
    reason: Literal["schema", "confidence"],
    keyword: str | None,
    sealed_detail: str,
    sealed: str,
    confidence: float | None,
) -> AttemptFailed:
    """The fact of a run whose answer failed its check while another attempt may follow."""
    job = run.job
    return AttemptFailed(
        request_id=job.request_id,
        tenant=job.tenant,
        key_id=job.key_id,
        data_subject=job.data_subject,
        model=job.model,
        kind=run.kind,
        attempt=job.attempt,
        run=run.run_id,
        reason=reason,
        keyword=keyword,
        detail=sealed_detail,
        usage=run.usage(),
        used_before=job.used_before,
        price=job.price,
        output=sealed,
        timings=run.timings(now),
        confidence=confidence,
        store=job.store,
        routed_at=job.routed_at,
        failed_at=now,
    )


def cancelled_unstarted(job: JobAddress, now: datetime) -> RequestEnded:
    """Cancelled before the engine saw it."""
    return RequestEnded.unstarted(job, now, status=Status.CANCELLED, reason="cancelled")


def expired_unstarted(job: JobAddress, now: datetime) -> RequestEnded:
    """There was no time left to begin."""
    return RequestEnded.unstarted(job, now, status=Status.FAILED, reason="expired", error=_EXPIRED)


def failed_unstarted(job: JobAddress, now: datetime, error: PenstockError) -> RequestEnded:
    """It cannot be run, and `error` says why."""
    return RequestEnded.unstarted(
        job, now, status=Status.FAILED, reason="error", error=error.body()
    )
