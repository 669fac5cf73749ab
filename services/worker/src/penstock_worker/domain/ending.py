"""How a job ended, as the terminal fact says it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from penstock_shared.contracts.errors import ErrorBody, PenstockError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import RequestEnded, Status, Timings
from penstock_shared.contracts.usage import Usage
from penstock_worker.domain.generation import Generation, Stop

Reason = Literal["stop", "max_output_tokens", "cancelled", "expired", "error"]

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
    generation: Generation
    started_at: datetime | None = None
    first_token_at: datetime | None = None

    def usage(self) -> Usage:
        """Tokens of this run: the prompt as it was run, and what the engine generated (I3)."""
        return Usage(
            input_tokens=self.generation.prompt_tokens,
            output_tokens=len(self.generation.tokens),
        )


def _ms(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 3)


def end_of_run(
    run: Run, now: datetime, sealed: str | None, error: PenstockError | None = None
) -> RequestEnded:
    """The terminal fact of a run; `error` is what kept its answer from being sealed."""
    job, generation = run.job, run.generation
    status, reason = _ENDINGS[generation.stop]
    body = _EXPIRED if generation.stop is Stop.EXPIRED else None
    if error is not None:
        status, reason, body = Status.FAILED, "error", error.body()
    first = run.first_token_at
    return _ended(
        job,
        now,
        run=run.run_id,
        status=status,
        reason=reason,
        usage=run.usage(),
        output=sealed,
        delta_ends=tuple(generation.delta_ends) if sealed is not None else (),
        timings=Timings(
            queued_ms=_ms(job.routed_at, run.started_at or now),
            first_token_ms=None if first is None else _ms(job.routed_at, first),
            total_ms=_ms(job.routed_at, now),
        ),
        error=body,
    )


def cancelled_unstarted(job: Job, now: datetime) -> RequestEnded:
    """Cancelled before the engine saw it: nothing was generated, nothing is billed."""
    return _ended(job, now, status=Status.CANCELLED, reason="cancelled")


def expired_unstarted(job: Job, now: datetime) -> RequestEnded:
    """There was no time left to begin."""
    return _ended(job, now, status=Status.FAILED, reason="expired", error=_EXPIRED)


def failed_unstarted(job: Job, now: datetime, error: PenstockError) -> RequestEnded:
    """It cannot be run, and `error` says why."""
    return _ended(job, now, status=Status.FAILED, reason="error", error=error.body())


def _ended(
    job: Job,
    now: datetime,
    *,
    status: Status,
    reason: Reason,
    run: str | None = None,
    usage: Usage | None = None,
    output: str | None = None,
    delta_ends: tuple[int, ...] = (),
    timings: Timings | None = None,
    error: ErrorBody | None = None,
) -> RequestEnded:
    return RequestEnded(
        request_id=job.request_id,
        tenant=job.tenant,
        key_id=job.key_id,
        data_subject=job.data_subject,
        model=job.model,
        attempt=job.attempt,
        run=run,
        status=status,
        reason=reason,
        usage=usage or Usage(input_tokens=0, output_tokens=0),
        price=job.price,
        output=output,
        delta_ends=delta_ends,
        timings=timings,
        error=error,
        routed_at=job.routed_at,
        ended_at=now,
    )
