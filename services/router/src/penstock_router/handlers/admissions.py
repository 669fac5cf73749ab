"""From an admission to `routed` and its job: the decision, written once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from time import perf_counter

from penstock_router import metrics
from penstock_router.domain.admission import deadline_s_of, refuse_stale_id, routed_fact
from penstock_router.domain.decision import decide
from penstock_router.domain.fair_share import fair_lane
from penstock_router.domain.features import features_of
from penstock_router.domain.lexicon import Lexicon
from penstock_router.domain.open_requests import OpenRequests
from penstock_router.domain.queue_load import QueueLoad
from penstock_router.handlers.escalations import due_job
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import TransientError, UnavailableError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.output_schema import refuse_unwieldy_schema
from penstock_shared.contracts.requests import (
    Accepted,
    Admission,
    Content,
    RequestEnded,
    RequestFact,
    RequestRouted,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import SequenceConflictError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.kv import BucketMirror
from penstock_shared.runtime.telemetry import child_traceparent


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """From the router's settings."""

    default_deadline_s: float
    fair_in_flight: int
    queue_limit: int


class Admissions:
    """Decides from memory, writes `routed`, publishes the job."""

    def __init__(
        self,
        *,
        log: RequestLog,
        models: BucketMirror[ModelRecord],
        tenants: BucketMirror[TenantRecord],
        open_requests: OpenRequests,
        loads: defaultdict[str, QueueLoad],
        limits: AdmissionLimits,
        clock: Clock,
        source: str,
    ) -> None:
        self._log = log
        self._lexicon = Lexicon()
        self._models = models
        self._tenants = tenants
        self._open = open_requests
        self._loads = loads
        self._limits = limits
        self._clock = clock
        self._source = source

    def knows(self, subject: str) -> bool:
        """Whether the request with this subject is open: a repetition brings no job."""
        return subject in self._open

    async def admit(
        self, tenant: str, admission: Admission, content: Content, traceparent: str | None
    ) -> Accepted:
        """Decide, and make it durable; after this returns the job is published (I1).

        Raises:
            PermanentError: the request cannot be served as it is.
            UnavailableError: not now: the log, the model or its queue.
        """
        started = perf_counter()
        subject = subjects.request_event(tenant, admission.request_id)
        routed = self._decide(tenant, subject, admission, content)
        metrics.DECISION_LATENCY.observe((perf_counter() - started) * 1000)
        trace = child_traceparent(traceparent)
        # Nothing is awaited since both were looked at: a burst cannot overtake its own count.
        self._open.begin(subject)
        self._loads[routed.model].admitted(routed.lane)
        try:
            sequence = await self._log.write_routed(routed, source=self._source, traceparent=trace)
            self._open.admitted(subject, sequence, routed.deadline.timestamp())
        except SequenceConflictError:
            self._loads[routed.model].withdrawn(routed.lane)
            return await self._readmit(tenant, admission.request_id, trace)
        finally:
            self._open.finish(subject)
        job = Job.from_routed(routed, sequence)
        await self._log.publish_job(job, source=self._source, traceparent=trace)
        metrics.ADMISSIONS.labels("accepted").inc()
        metrics.TIER.labels(routed.model, routed.lane.value).inc()
        return _accepted(routed)

    def _decide(
        self, tenant: str, subject: str, admission: Admission, content: Content
    ) -> RequestRouted:
        """Model and lane, from memory alone: no I/O."""
        now, limits = self._clock.now(), self._limits
        refuse_stale_id(admission.request_id, now)
        _refuse_unwieldy(content)
        decision, model = decide(
            admission.model,
            tuple(self._models.values()),
            content,
            features_of(content, self._lexicon),
        )
        record = self._tenants.get(tenant)
        weight = 1 if record is None else record.weight
        lane = fair_lane(
            admission.lane,
            open_requests=self._open.of_tenant(tenant),
            fair_in_flight=limits.fair_in_flight,
            weight=weight,
        )
        deadline_s = deadline_s_of(admission, limits.default_deadline_s)
        if subject not in self._open:  # a repetition brings no new job
            self._refuse_overload(model, lane, deadline_s)
        return routed_fact(
            tenant,
            admission,
            decision,
            model,
            lane=lane,
            weight=weight,
            now=now,
            deadline_s=deadline_s,
        )

    def _refuse_overload(self, model: ModelRecord, lane: Lane, deadline_s: float) -> None:
        limit = model.limits.queue or self._limits.queue_limit
        try:
            self._loads[model.name].refuse_if_overloaded(
                model.name, lane, limit=limit, deadline_s=deadline_s
            )
        except UnavailableError:
            metrics.SHED.labels(model.name).inc()
            raise

    async def _readmit(self, tenant: str, request_id: str, trace: str) -> Accepted:
        """The same request again: the identical job, or the answer that there is."""
        found = await self._log.last_fact(tenant, request_id)
        if found is None:
            msg = "The event log is catching up: try again."
            raise TransientError(msg, code="event_log_unavailable")
        sequence, fact = found
        metrics.ADMISSIONS.labels("repeated").inc()
        job = await due_job(self._log, sequence, fact)
        if job is not None:
            await self._log.publish_job(job, source=self._source, traceparent=trace)
        return _accepted(fact)


def _refuse_unwieldy(content: Content) -> None:
    refuse_unwieldy_schema(content.output_schema, "output_schema")
    for index, tool in enumerate(content.tools):
        refuse_unwieldy_schema(tool.parameters, f"tools[{index}].parameters")


def _accepted(fact: RequestFact) -> Accepted:
    return Accepted(
        request_id=fact.request_id,
        model=fact.model,
        accepted_at=fact.routed_at,
        ended=isinstance(fact, RequestEnded),
    )
