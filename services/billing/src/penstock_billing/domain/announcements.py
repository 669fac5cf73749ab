"""What the world learns of an act on an account: the bucket first, then the fact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from penstock_billing.ports.accounts import StoredKey
from penstock_billing.ports.outbox import OutboxEntry, OutboxKind
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_facts import (
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    TenantCreated,
    TenantUpdated,
)
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.plans import TenantPrices
from penstock_shared.contracts.tenant_facts import TenantFact


@dataclass(frozen=True, slots=True)
class Act:
    """When something is done, under which trace, and where its events get their ids."""

    at: datetime
    traceparent: str | None
    new_event_id: Callable[[], str]


def tell_tenant_created(record: TenantRecord, act: Act) -> list[OutboxEntry]:
    """What the world learns of a new tenant."""
    fact = TenantCreated(
        tenant=record.tenant,
        name=record.name,
        requests_per_minute=record.requests_per_minute,
        created_at=record.created_at,
    )
    return [_tenant(act, record), tell_fact(fact, act)]


def tell_tenant_updated(
    record: TenantRecord, changed: tuple[str, ...], act: Act
) -> list[OutboxEntry]:
    """What the world learns of a tenant's new terms."""
    fact = TenantUpdated(tenant=record.tenant, changed=changed, record=record, updated_at=act.at)
    return [_tenant(act, record), tell_fact(fact, act)]


def tell_key_created(key: StoredKey, by: str | None, act: Act) -> list[OutboxEntry]:
    """What the world learns of a new key."""
    record = key.record
    fact = KeyCreated(
        tenant=record.tenant,
        key_id=record.key_id,
        name=record.name,
        role=record.role,
        expires_at=record.expires_at,
        by=by,
        created_at=record.created_at,
    )
    return [_key(act, key), tell_fact(fact, act)]


def tell_key_rotated(
    ending: StoredKey, successor: StoredKey, by: str | None, act: Act
) -> list[OutboxEntry]:
    """What the world learns of a rotation: the new key works before the old one's end is known."""
    fact = KeyRotated(
        tenant=ending.record.tenant,
        key_id=ending.record.key_id,
        successor=successor.record.key_id,
        expires_at=ending.record.expires_at or act.at,
        by=by,
        rotated_at=act.at,
    )
    return [*tell_key_created(successor, by, act), _key(act, ending), tell_fact(fact, act)]


def tell_key_revoked(key: StoredKey, by: str | None, act: Act) -> list[OutboxEntry]:
    """What the world learns of a revocation; the record stays, so that it can be told why."""
    record = key.record
    fact = KeyRevoked(tenant=record.tenant, key_id=record.key_id, by=by, revoked_at=act.at)
    return [_key(act, key), tell_fact(fact, act)]


def tell_fact(fact: TenantFact, act: Act) -> OutboxEntry:
    """A fact about a tenant."""
    subject = subjects.topic_event(fact.tenant, fact.TOPIC, fact.FACT)
    return _entry(act, OutboxKind.FACT, subject, fact, fact.TYPE)


def tell_prices(prices: TenantPrices, act: Act) -> OutboxEntry:
    """What routers take in place of the models' own prices."""
    return _entry(act, OutboxKind.PRICES, prices.tenant, prices)


def _tenant(act: Act, record: TenantRecord) -> OutboxEntry:
    return _entry(act, OutboxKind.TENANT, record.tenant, record)


def _key(act: Act, key: StoredKey) -> OutboxEntry:
    return _entry(act, OutboxKind.KEY, key.sha256, key.record)


def _entry(
    act: Act, kind: OutboxKind, key: str, body: BaseModel, event_type: str | None = None
) -> OutboxEntry:
    return OutboxEntry(
        event_id=act.new_event_id(),
        kind=kind,
        key=key,
        event_type=event_type,
        payload=body.model_dump_json(),
        created_at=act.at,
        traceparent=act.traceparent,
    )
