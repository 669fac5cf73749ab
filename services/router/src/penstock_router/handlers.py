"""One method per consumed message: call the domain, publish."""

from __future__ import annotations

import random
import uuid
from time import perf_counter
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from penstock_router import metrics
from penstock_router.domain.admission import refuse_stale_id, routed_fact
from penstock_router.domain.decision import decide
from penstock_router.domain.features import features_of
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord, TenantStatus
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import (
    NotFoundError,
    PenstockError,
    PermanentError,
    PermissionDeniedError,
    SchemaError,
    TooLargeError,
    TransientError,
)
from penstock_shared.contracts.ids import keyed_request_id
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import (
    MAX_INPUT_BYTES,
    Accepted,
    Admission,
    Content,
    Rejected,
    RequestEnded,
    RequestRouted,
    Submission,
)
from penstock_shared.contracts.streams import INGRESS
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import SequenceConflictError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.kv import BucketMirror
from penstock_shared.runtime.settlement import settle
from penstock_shared.runtime.telemetry import child_traceparent

NATS_KEY: Final = "nats"
"""The key id of what came over NATS: the broker names the tenant, not the key."""
_CONTENT: Final = "content"
M = TypeVar("M", bound=BaseModel)


class Handlers:
    """Admissions, from whichever door they come."""

    def __init__(
        self,
        *,
        log: RequestLog,
        keyring: Keyring,
        models: BucketMirror[ModelRecord],
        tenants: BucketMirror[TenantRecord],
        dead: DeadLetters,
        clock: Clock,
        rng: random.Random,
        source: str,
        default_deadline_s: float,
    ) -> None:
        self._log = log
        self._keyring = keyring
        self._models = models
        self._tenants = tenants
        self._dead = dead
        self._clock = clock
        self._rng = rng
        self._source = source
        self._default_deadline_s = default_deadline_s

    async def on_admitted(
        self, subject: str, data: bytes, traceparent: str | None
    ) -> Accepted | Rejected:
        """Realtime asks: it has authenticated, limited and sealed already."""
        try:
            tenant = subjects.parse(subject).tenant
            admission = _parse(Admission, data)
            sealed = await self._keyring.open(
                tenant,
                admission.data_subject,
                admission.request_id,
                _CONTENT,
                admission.content,
            )
            content = Content.model_validate_json(sealed)
            return await self._admit(tenant, admission, content, traceparent)
        except PenstockError as error:
            return rejected(error)

    async def on_submitted(
        self, subject: str, headers: dict[str, str], data: bytes
    ) -> Accepted | Rejected:
        """A tenant's own NATS client asks."""
        try:
            return await self._submit(subject, headers, data)
        except PenstockError as error:
            return rejected(error)

    async def on_queued(self, delivery: Delivery) -> None:
        """A tenant fired and forgot: admitted, retried, or buried."""

        async def handle(queued: Delivery) -> None:
            await self._submit(queued.subject, queued.headers, queued.data)

        async def bury(queued: Delivery, error: PenstockError) -> None:
            metrics.ADMISSIONS.labels("dead").inc()
            await self._dead.bury(INGRESS, queued, error)

        await settle(delivery, handle, bury, self._rng)

    async def _submit(self, subject: str, headers: dict[str, str], data: bytes) -> Accepted:
        tenant = subjects.parse(subject).tenant
        self._refuse_unknown(tenant)
        envelope = Envelope.from_headers(headers)
        if len(data) > MAX_INPUT_BYTES:
            msg = f"The input has {len(data)} bytes, {MAX_INPUT_BYTES} are allowed: shorten it."
            raise TooLargeError(msg, param="input")
        submission = _parse(Submission, data)
        try:
            content = submission.content()
        except ValueError as error:
            raise PermanentError(str(error), code="empty_input", param="input") from error
        request_id = request_id_of(tenant, envelope.id)
        data_subject = submission.safety_identifier or f"{NATS_KEY}:{tenant}"
        admission = Admission(
            request_id=request_id,
            key_id=NATS_KEY,
            data_subject=data_subject,
            model=submission.model,
            lane=Lane.STANDARD,
            sampling=submission.sampling(),
            content=await self._keyring.seal(
                tenant, data_subject, request_id, _CONTENT, content.model_dump_json()
            ),
        )
        return await self._admit(tenant, admission, content, envelope.traceparent)

    def _refuse_unknown(self, tenant: str) -> None:
        record = self._tenants.get(tenant)
        if record is None:
            msg = f"There is no tenant {tenant!r}."
            raise NotFoundError(msg, code="unknown_tenant")
        if record.status is not TenantStatus.ACTIVE:
            msg = "This tenant is suspended: ask your operator."
            raise PermissionDeniedError(msg, code="tenant_suspended")

    async def _admit(
        self, tenant: str, admission: Admission, content: Content, traceparent: str | None
    ) -> Accepted:
        started = perf_counter()
        now = self._clock.now()
        refuse_stale_id(admission.request_id, now)
        decision, model = decide(
            admission.model, tuple(self._models.values()), features_of(content)
        )
        routed = routed_fact(tenant, admission, decision, model, now, self._default_deadline_s)
        metrics.DECISION_LATENCY.observe((perf_counter() - started) * 1000)
        trace = child_traceparent(traceparent)
        try:
            sequence = await self._log.write_routed(routed, source=self._source, traceparent=trace)
        except SequenceConflictError:
            return await self._readmit(tenant, admission.request_id, trace)
        await self._log.publish_job(routed, sequence, source=self._source, traceparent=trace)
        metrics.ADMISSIONS.labels("accepted").inc()
        metrics.TIER.labels(decision.model, admission.lane.value).inc()
        return Accepted(request_id=routed.request_id, model=decision.model, accepted_at=now)

    async def _readmit(self, tenant: str, request_id: str, trace: str) -> Accepted:
        """The same request again: the identical job, or the answer that there is."""
        found = await self._log.last_fact(tenant, request_id)
        if found is None:
            msg = "The event log is catching up: try again."
            raise TransientError(msg, code="event_log_unavailable")
        sequence, fact = found
        metrics.ADMISSIONS.labels("repeated").inc()
        if isinstance(fact, RequestEnded):
            return Accepted(
                request_id=request_id, model=fact.model, accepted_at=fact.routed_at, ended=True
            )
        await self._log.publish_job(fact, sequence, source=self._source, traceparent=trace)
        return _accepted(fact)


def _accepted(routed: RequestRouted) -> Accepted:
    return Accepted(
        request_id=routed.request_id,
        model=routed.decision.model,
        accepted_at=routed.accepted_at,
    )


def request_id_of(tenant: str, event_id: str) -> str:
    """`ce-id` is the request id when it is a UUIDv7, else an idempotency key."""
    try:
        parsed = uuid.UUID(event_id)
    except ValueError:
        return keyed_request_id(tenant, event_id)
    return str(parsed) if parsed.version == 7 else keyed_request_id(tenant, event_id)  # noqa: PLR2004


def rejected(error: PenstockError) -> Rejected:
    """The refusal that goes back; it is no terminal and binds no id."""
    metrics.ADMISSIONS.labels("rejected").inc()
    return Rejected(
        http_status=error.http_status,
        error=error.body(),
        retry_after_s=error.retry_after_s if isinstance(error, TransientError) else None,
    )


def _parse(model: type[M], data: bytes) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            msg = f"The body is no JSON: {first['msg']}."
            raise PermanentError(msg, code="malformed_json") from error
        field = ".".join(str(part) for part in first["loc"])
        msg = f"{field}: {first['msg']}."
        raise SchemaError(msg, param=field) from error
