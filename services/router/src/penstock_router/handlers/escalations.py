"""From a failed attempt to the next one's job: any replica may publish it, and publishes the same.

The plan stands in `routed`, the attempt that failed in `attempt.failed`: together they give the
job. Whoever admitted the request publishes it at once; the others later, if `attempt.failed` is
still the request's last fact then. What comes twice is swallowed by the broker, or fenced by the
sequence that the next fact must expect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from penstock_router import metrics
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import TRACEPARENT
from penstock_shared.contracts.errors import NotFoundError, TransientError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    RequestEnded,
    RequestFact,
    RequestRouted,
    Status,
)
from penstock_shared.runtime.broker import SequenceConflictError, StoredMessage
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.request_log import UnreadableFactError
from penstock_shared.runtime.telemetry import child_traceparent, log

_OTHERS_AFTER_S: Final = 2.0
_RETRY_S: Final = 2.0
_CATCHING_UP: Final = "The event log is catching up: try again."
_AT_ONCE: Final = 32
"""Escalations that ask the log at the same time, when a restart finds many."""


async def due_job(request_log: RequestLog, sequence: int, fact: RequestFact) -> Job | None:
    """The job that a request's last fact, stored at `sequence`, calls for.

    None: it has ended, or its plan has.

    Raises:
        TransientError: the log does not answer, or `routed` cannot be read (yet).
    """
    if isinstance(fact, RequestRouted):
        return Job.from_routed(fact, sequence)
    if isinstance(fact, RequestEnded):
        return None
    routed = await request_log.routed(fact.tenant, fact.request_id)
    if routed is None:  # a replica of the log that lags: nothing is purged of an open request
        raise TransientError(_CATCHING_UP, code="event_log_unavailable")
    return Job.after(routed, fact, sequence)


class Escalations:
    """Follows the facts of requests, headers only, and sees to the attempts after the first."""

    def __init__(
        self,
        request_log: RequestLog,
        model_exists: Callable[[str], bool],
        clock: Clock,
        *,
        source: str,
        others_after_s: float = _OTHERS_AFTER_S,
    ) -> None:
        """`source` as in the envelopes of this replica's own facts."""
        self._log = request_log
        self._model_exists = model_exists
        self._clock = clock
        self._source = source
        self._others_after_s = others_after_s
        self._own: set[str] = set()
        """Subjects of open requests that this replica has admitted."""
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def fold(self, message: StoredMessage) -> None:
        """Hear the next fact of a request, in the order of the log; the payload is not needed."""
        subject = message.subject
        self._forget(subject)
        if message.event_type == RequestRouted.TYPE:
            if message.headers.get("ce-source") == self._source:
                self._own.add(subject)
        elif message.event_type == AttemptFailed.TYPE:
            self._waiting[subject] = asyncio.create_task(self._see_to(message))
        elif message.event_type in TERMINAL_TYPES:
            self._own.discard(subject)

    async def close(self) -> None:
        """Publish nothing more."""
        waiting = list(self._waiting.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def _forget(self, subject: str) -> None:
        task = self._waiting.pop(subject, None)
        if task is not None:
            task.cancel()

    async def _see_to(self, message: StoredMessage) -> None:
        """Publish, as often as it takes; ends when the next fact is folded, at the latest."""
        pause_s: float | None = 0.0 if message.subject in self._own else self._others_after_s
        while pause_s is not None:
            await asyncio.sleep(pause_s)
            pause_s = await self._try(message)
        if self._waiting.get(message.subject) is asyncio.current_task():
            del self._waiting[message.subject]

    async def _try(self, message: StoredMessage) -> float | None:
        """The pause before the next try; None: nothing is left to do but for the sweeper."""
        try:
            async with self._gate:
                await self._go_on(message)
        except (UnreadableFactError, SequenceConflictError) as error:
            # A conflict is the next fact, which the fold will tell.
            log().warning("escalation.dropped", sequence=message.sequence, code=error.code)
        except TransientError as error:
            log().info("escalation.postponed", sequence=message.sequence, code=error.code)
            return _RETRY_S
        except Exception as error:  # noqa: BLE001  one bad fact must not be tried for ever
            log().error("escalation.failed", kind=type(error).__name__, exc_info=error)
        return None

    async def _go_on(self, message: StoredMessage) -> None:
        parsed = subjects.parse(message.subject)
        found = await self._log.last_fact(parsed.tenant, parsed.rest[-1])
        if found is None or found[0] < message.sequence:
            raise TransientError(_CATCHING_UP, code="event_log_unavailable")
        sequence, fact = found
        job = await due_job(self._log, sequence, fact) if sequence == message.sequence else None
        now = self._clock.now()
        if job is None or job.deadline <= now:
            return  # it went on without us, or the sweeper ends it
        if not self._model_exists(job.model):
            ended = _model_gone(job, now)
            await self._log.write_ended(ended, sequence, source=self._source)
            return
        trace = child_traceparent(message.headers.get(TRACEPARENT))
        await self._log.publish_job(job, source=self._source, traceparent=trace)
        metrics.ESCALATIONS.labels(job.model).inc()
        log().info("request.escalated", request_id=job.request_id, attempt=job.attempt)


def _model_gone(job: Job, now: datetime) -> RequestEnded:
    """The terminal of an attempt that nobody can run."""
    msg = (
        f"The answer failed its check, and {job.model!r}, which was to try next, is no longer "
        "served. Send the request again."
    )
    error = NotFoundError(msg, code="model_not_found", param="model")
    return RequestEnded.unstarted(
        job, now, status=Status.FAILED, reason="error", error=error.body()
    )
