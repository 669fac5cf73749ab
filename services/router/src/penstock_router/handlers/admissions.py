"""From an admission to `routed` and its job: the decision, written once."""

from __future__ import annotations

from penstock_router import metrics
from penstock_router.handlers.escalations import due_job
from penstock_router.handlers.routes import Knowledge, Routes
from penstock_router.ports import QuotaGate, RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import PenstockError, TransientError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    Accepted,
    Admission,
    Content,
    RequestEnded,
    RequestFact,
    RequestRouted,
)
from penstock_shared.runtime.broker import SequenceConflictError
from penstock_shared.runtime.kv import BucketMirror
from penstock_shared.runtime.telemetry import child_traceparent


class Admissions:
    """Has a request decided, writes `routed`, publishes the job."""

    def __init__(
        self,
        *,
        log: RequestLog,
        routes: Routes,
        knowledge: Knowledge,
        tenants: BucketMirror[TenantRecord],
        quotas: QuotaGate,
        source: str,
    ) -> None:
        self._log = log
        self._routes = routes
        self._open = knowledge.open_requests
        self._loads = knowledge.loads
        self._tenants = tenants
        self._quotas = quotas
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
            RateLimitedError: it is more than is left of one of the tenant's quotas.
            UnavailableError: not now: the log, the model or its queue.
        """
        subject = subjects.request_event(tenant, admission.request_id)
        trace = child_traceparent(traceparent)
        if self._open.is_routed(subject):  # whatever would be refused by now
            return await self._readmit(tenant, admission.request_id, trace)
        record = self._tenants.get(tenant)
        routed = self._routes.route(subject, record, admission, content)
        # Nothing is awaited since both were looked at: a burst cannot overtake its own count.
        self._open.begin(subject)
        self._loads[routed.model].admitted(routed.lane)
        try:
            sequence = await self._make_durable(routed, record, trace)
            self._open.admitted(subject, sequence, routed.deadline.timestamp())
        except SequenceConflictError:
            self._loads[routed.model].withdrawn(routed.lane)
            return await self._readmit(tenant, admission.request_id, trace)
        except PenstockError:
            self._loads[routed.model].withdrawn(routed.lane)
            raise
        finally:
            self._open.finish(subject)
        await self._publish(Job.from_routed(routed, sequence), trace)
        metrics.ADMISSIONS.labels("accepted", "").inc()
        metrics.EXPLORATION.inc(routed.decision.exploration_microusd)
        metrics.TIER.labels(routed.model, routed.lane.value).inc()
        return _accepted(routed)

    async def _make_durable(
        self, routed: RequestRouted, record: TenantRecord | None, trace: str
    ) -> int:
        """Reserve, then write. A reservation without `routed` is ended by a fact, too (I4)."""
        if record is not None and routed.reserves:
            await self._quotas.reserve(record, routed)
        return await self._log.write_routed(routed, source=self._source, traceparent=trace)

    async def _readmit(self, tenant: str, request_id: str, trace: str) -> Accepted:
        """The same request again: the identical job, or the answer that there is."""
        found = await self._log.last_fact(tenant, request_id)
        if found is None:
            msg = "The event log is catching up: try again."
            raise TransientError(msg, code="event_log_unavailable")
        sequence, fact = found
        metrics.ADMISSIONS.labels("repeated", "").inc()
        job = await due_job(self._log, sequence, fact)
        if job is not None:
            await self._publish(job, trace)
        return _accepted(fact)

    async def _publish(self, job: Job, trace: str) -> None:
        await self._log.publish_job(job, source=self._source, traceparent=trace)


def _accepted(fact: RequestFact) -> Accepted:
    return Accepted(
        request_id=fact.request_id,
        model=fact.model,
        accepted_at=fact.routed_at,
        ended=isinstance(fact, RequestEnded),
    )
