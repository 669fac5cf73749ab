"""Writing how an attempt ended: once, whatever happens around it (I2)."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Final, TypeVar

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.jobs import JobAddress
from penstock_shared.contracts.requests import (
    AttemptFailed,
    RequestEnded,
    attempt_failed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.request_log import DEADLINE_HEADER, RequestLogReader
from penstock_shared.runtime.settlement import retry_delay_s
from penstock_shared.runtime.telemetry import child_traceparent, log
from penstock_worker import metrics
from penstock_worker.ports import ResponseSink

_MAX_BACK_OFF: Final = 4  # as the exponent of `retry_delay_s`: 4 s at most between two tries
F = TypeVar("F", RequestEnded, AttemptFailed)


class Terminals:
    """The end of an attempt: the fact under expected-last-sequence, then the final frame."""

    def __init__(
        self, broker: Broker, sink: ResponseSink, clock: Clock, rng: random.Random, source: str
    ) -> None:
        self._broker = broker
        self._reader = RequestLogReader(broker)
        self._sink = sink
        self._clock = clock
        self._rng = rng
        self._source = source

    async def write(
        self, job: JobAddress, ended: RequestEnded, text: str, parent: str | None
    ) -> bool:
        """Write `ended` and show it; False when somebody else's fact stands, or it is too late.

        Raises:
            TransientError: the log did not answer until the deadline.
        """
        envelope = Envelope(
            id=terminal_id(job.request_id, job.attempt, ended.run),
            source=self._source,
            type=terminal_type(ended.status),
            time=ended.ended_at,
            traceparent=child_traceparent(parent),
        )
        standing = await self._write(job, ended, envelope)
        if standing is not None:
            await self.show(job, standing, text)
        return standing is not None

    async def write_failed_attempt(
        self, job: JobAddress, failed: AttemptFailed, parent: str | None
    ) -> bool:
        """Write `failed`: the router decides what follows, and clients see nothing of it.

        Raises:
            TransientError: the log did not answer until the deadline.
        """
        envelope = Envelope(
            id=attempt_failed_id(job.request_id, job.attempt, failed.run),
            source=self._source,
            type=AttemptFailed.TYPE,
            time=failed.failed_at,
            traceparent=child_traceparent(parent),
        )
        return await self._write(job, failed, envelope) is not None

    async def _write(self, job: JobAddress, fact: F, envelope: Envelope) -> F | None:
        """The fact as it stands; None when another one does, or it is too late.

        While the log does not answer, the *same* fact is tried again: the answer exists, and a
        try that was stored without being confirmed is recognised by its id. Past the deadline
        nobody but the sweeper may end the request.
        """
        payload = fact.model_dump_json().encode()
        tries = 0
        while self._clock.now() < job.deadline:
            tries += 1
            try:
                standing = await self._try_once(job, fact, payload, envelope)
            except TransientError as error:
                log().warning("terminal.postponed", request_id=job.request_id, code=error.code)
                pause_s = retry_delay_s(min(tries, _MAX_BACK_OFF), self._rng)
                if self._clock.now() + timedelta(seconds=pause_s) >= job.deadline:
                    raise  # perhaps it is stored: whoever gets the job next will look
                await asyncio.sleep(pause_s)
                continue
            if standing is None:
                metrics.FENCED.labels(job.model).inc()
            return standing
        metrics.UNWRITTEN.labels(job.model).inc()
        return None

    async def _try_once(
        self, job: JobAddress, fact: F, payload: bytes, envelope: Envelope
    ) -> F | None:
        """The fact that stands if it is ours; None when another one does."""
        try:
            await self._broker.publish(
                subjects.request_event(job.tenant, job.request_id),
                payload,
                envelope,
                expected_last_seq=job.expected_seq,
                extra_headers={DEADLINE_HEADER: str(job.deadline.timestamp())},
            )
        except SequenceConflictError:
            last = await self._reader.last_fact(job.tenant, job.request_id)
            if last is None or last.event_id != envelope.id:
                return None
            return last.fact if isinstance(last.fact, type(fact)) else None
        return fact

    async def standing(self, job: JobAddress) -> tuple[bool, RequestEnded | None]:
        """Whether the job's attempt is over, and the terminal fact if there is one.

        Raises:
            TransientError: the log does not answer, or a replica of it is behind the job.
        """
        last = await self._reader.last_fact(job.tenant, job.request_id)
        if last is not None and last.sequence == job.expected_seq:
            return False, None
        if last is None or last.sequence < job.expected_seq:
            if self._clock.now() >= job.deadline:
                return True, None
            msg = "The event log does not show yet what this job comes from."
            raise TransientError(msg, code="event_log_unavailable")
        return True, last.fact if isinstance(last.fact, RequestEnded) else None

    async def show(self, job: JobAddress, ended: RequestEnded, text: str) -> None:
        """Publish the final frame of a fact that stands."""
        await self._sink.final(subjects.responses(job.tenant, job.request_id), ended, text)
