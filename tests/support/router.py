"""A router as it runs in production, and those who send it requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from penstock_router.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.models import ModelKind, ModelLimits, ModelRecord
from penstock_shared.contracts.requests import (
    Accepted,
    Admission,
    AdmissionReply,
    AttemptFailed,
    Rejected,
    RequestRouted,
    Timings,
    attempt_failed_id,
)
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.contracts.submissions import conversation
from penstock_shared.contracts.usage import Price, Usage
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.request_log import DEADLINE_HEADER

StartRouter = Callable[..., AbstractAsyncContextManager[App]]
IDS = IdSource(SystemClock())
ROOT = b"k" * 32


def model_record(
    name: str = "small", kind: ModelKind = ModelKind.TEXT, **limits: int
) -> ModelRecord:
    return ModelRecord(
        name=name,
        version="1",
        kind=kind,
        parameters=1,
        context_tokens=64,
        price=Price(input_microusd_per_1k=1, output_microusd_per_1k=2),
        limits=ModelLimits(**limits),
    )


async def put_model(broker: Broker, record: ModelRecord) -> None:
    await kv.put(broker, Bucket.MODELS, record.name, record.model_dump_json().encode())


async def put_tenant(broker: Broker, tenant: str, weight: int = 1) -> None:
    record = TenantRecord(tenant=tenant, name=tenant, weight=weight, created_at=datetime.now(UTC))
    await kv.put(broker, Bucket.TENANTS, tenant, record.model_dump_json().encode())


async def admit(
    broker: Broker,
    request_id: str,
    *,
    tenant: str = "acme",
    plain: str | None = None,
    keyring: Keyring | None = None,
    **changes: object,
) -> Accepted | Rejected:
    """As realtime: sealed, on `admitted`. `plain` is what is sealed instead of a conversation."""
    ring = keyring or Keyring(ROOT, kv.BucketStore(broker, Bucket.DATA_KEYS), SystemClock())
    told = conversation("hello there").to_seal() if plain is None else plain
    fields: dict[str, object] = {"request_id": request_id, "key_id": "k1", "data_subject": "u1"}
    fields |= changes
    sealed = await ring.seal(tenant, str(fields["data_subject"]), request_id, "content", told)
    admission = Admission.model_validate({"content": sealed} | fields)
    reply = await broker.request(
        subjects.admitted(tenant), admission.model_dump_json().encode(), timeout_s=5
    )
    return AdmissionReply.model_validate_json(reply.data).reply


async def submit(
    broker: Broker, event_id: str, payload: object, tenant: str = "acme"
) -> Accepted | Rejected:
    """As a tenant's own NATS client."""
    envelope = Envelope(id=event_id, source="/client", type="penstock.request.submit.v1")
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    reply = await broker.client.request(
        subjects.submit(tenant), data, timeout=5, headers=envelope.headers()
    )
    return AdmissionReply.model_validate_json(reply.data).reply


async def count(broker: Broker, stream: str) -> int:
    return int((await broker.jetstream.stream_info(stream)).state.messages)


async def last_of(broker: Broker, request_id: str, tenant: str = "acme") -> StoredMessage:
    """The last fact of a request, as it lies in EVENTS."""
    stored = await broker.last_message(EVENTS, subjects.request_event(tenant, request_id))
    assert stored is not None
    return stored


async def routed_of(broker: Broker, request_id: str, tenant: str = "acme") -> RequestRouted:
    stored = await last_of(broker, request_id, tenant)
    return RequestRouted.model_validate_json(stored.data)


async def fail_attempt(broker: Broker, request_id: str, tenant: str = "acme") -> int:
    """Write `attempt.failed` after `routed`, as a worker does; returns its sequence."""
    stored = await last_of(broker, request_id, tenant)
    routed = RequestRouted.model_validate_json(stored.data)
    failed = AttemptFailed(
        request_id=routed.request_id,
        tenant=routed.tenant,
        key_id=routed.key_id,
        data_subject=routed.data_subject,
        model=routed.model,
        attempt=1,
        run=IDS.new(),
        reason="schema",
        detail="sealed",
        usage=Usage(input_tokens=5, output_tokens=9),
        price=routed.price,
        output="sealed",
        timings=Timings(queued_ms=1, first_token_ms=2, total_ms=3),
        routed_at=routed.accepted_at,
        failed_at=routed.accepted_at,
    )
    return await broker.publish(
        subjects.request_event(routed.tenant, routed.request_id),
        failed.model_dump_json().encode(),
        Envelope(
            id=attempt_failed_id(routed.request_id, 1, failed.run),
            source="/t",
            type=AttemptFailed.TYPE,
        ),
        expected_last_seq=stored.sequence,
        extra_headers={DEADLINE_HEADER: str(routed.deadline.timestamp())},
    )
