"""The event log on JetStream."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from penstock_router.adapters.own_facts import OwnFacts
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    RequestEnded,
    RequestFact,
    RequestRouted,
    routed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.reservations import RESERVED_HEADER
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.request_log import DEADLINE_HEADER, RequestLogReader
from penstock_shared.runtime.telemetry import child_traceparent

_JOB_TYPE: Final = "penstock.job.run.v1"


class NatsRequestLog:
    """`RequestLog` on EVENTS and JOBS."""

    def __init__(
        self,
        broker: Broker,
        on_write: Callable[[float | None], None] = lambda _: None,
        own: OwnFacts | None = None,
    ) -> None:
        """`on_write` hears how many seconds a first fact took, None where it was not confirmed.

        `own` is told of each first fact.
        """
        self._broker = broker
        self._on_write = on_write
        self._own = own or OwnFacts()
        self._reader = RequestLogReader(broker)

    async def write_routed(
        self, routed: RequestRouted, *, source: str, traceparent: str | None
    ) -> int:
        """Write `routed` with expected-last-sequence 0: one winner among any number."""
        started_s = perf_counter()
        try:
            sequence = await self._store_routed(routed, source, traceparent)
        except TransientError:
            self._on_write(None)
            raise
        self._on_write(perf_counter() - started_s)
        return sequence

    async def _store_routed(
        self, routed: RequestRouted, source: str, traceparent: str | None
    ) -> int:
        payload = routed.model_dump_json().encode()
        self._own.add(payload, routed)
        return await self._broker.publish(
            subjects.request_event(routed.tenant, routed.request_id),
            payload,
            Envelope(
                id=routed_id(routed.request_id),
                source=source,
                type=RequestRouted.TYPE,
                time=routed.accepted_at,
                traceparent=traceparent,
            ),
            expected_last_seq=0,
            extra_headers={
                DEADLINE_HEADER: str(routed.deadline.timestamp()),
                **({RESERVED_HEADER: "1"} if routed.reserves else {}),
            },
        )

    async def last_fact(self, tenant: str, request_id: str) -> tuple[int, RequestFact] | None:
        """Read the last message of the request's subject."""
        found = await self._reader.last_fact(tenant, request_id)
        return None if found is None else (found.sequence, found.fact)

    async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
        """Read the first message of the request's subject."""
        return await self._reader.routed(tenant, request_id)

    async def publish_job(self, job: Job, *, source: str, traceparent: str | None) -> None:
        """Publish the job. Dedup is a convenience; the terminal's ELS is the guarantee."""
        await self._broker.publish(
            subjects.job(job.tenant, job.model, job.lane),
            job.model_dump_json().encode(),
            Envelope(
                id=job.id,
                source=source,
                type=_JOB_TYPE,
                time=job.routed_at,
                traceparent=child_traceparent(traceparent),
            ),
            deduplicate=True,
        )

    async def write_ended(self, ended: RequestEnded, expected_seq: int, *, source: str) -> None:
        """Terminal first, frame second: whoever writes a terminal publishes the frame."""
        await self._broker.publish(
            subjects.request_event(ended.tenant, ended.request_id),
            ended.model_dump_json().encode(),
            Envelope(
                id=terminal_id(ended.request_id, ended.attempt, ended.run),
                source=source,
                type=terminal_type(ended.status),
                time=ended.ended_at,
            ),
            expected_last_seq=expected_seq,
        )
        frame = FinalFrame.from_terminal(ended, "").model_dump_json().encode()
        await self._broker.publish_core(subjects.responses(ended.tenant, ended.request_id), frame)
