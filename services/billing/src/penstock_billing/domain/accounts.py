"""What an act on an account writes and tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import BaseModel

from penstock_billing.ports import OutboxEntry, OutboxKind, StoredKey
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import (
    ACCOUNT_TOPIC,
    CreateKey,
    CreateTenant,
    KeyCreated,
    KeyRecord,
    KeyRevoked,
    TenantCreated,
    TenantRecord,
    hash_api_key,
)
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.ids import PLATFORM

_HINT_CHARS: Final = 4
_KEY_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Act:
    """When something is done, under which trace, and where its events get their ids."""

    at: datetime
    traceparent: str | None
    new_event_id: Callable[[], str]


def new_tenant(command: CreateTenant, at: datetime) -> TenantRecord:
    """The tenant that `command` asks for.

    Raises:
        ConflictError: the name is the platform's own.
    """
    if command.tenant == PLATFORM:
        msg = f"'{PLATFORM}' is the platform's own name: choose another for the tenant."
        raise ConflictError(msg, code="reserved_name", param="tenant")
    return TenantRecord(
        tenant=command.tenant,
        name=command.name,
        requests_per_minute=command.requests_per_minute,
        weight=command.weight,
        created_at=at,
    )


def new_key(
    command: CreateKey, secret: str, at: datetime, random_bytes: Callable[[int], bytes]
) -> StoredKey:
    """The key that `command` asks for; of the secret only hash and last characters are kept."""
    record = KeyRecord(
        key_id=f"key_{random_bytes(_KEY_ID_BYTES).hex()}",
        tenant=command.tenant,
        name=command.name,
        hint=secret[-_HINT_CHARS:],
        created_at=at,
    )
    return StoredKey(sha256=hash_api_key(secret), record=record)


def revoked(key: StoredKey, at: datetime) -> StoredKey:
    """The key, revoked."""
    return StoredKey(key.sha256, key.record.model_copy(update={"revoked_at": at}))


def tell_tenant_created(record: TenantRecord, act: Act) -> list[OutboxEntry]:
    """What the world learns of a new tenant: the bucket first, then the fact."""
    fact = TenantCreated(
        tenant=record.tenant,
        name=record.name,
        requests_per_minute=record.requests_per_minute,
        created_at=record.created_at,
    )
    return [
        _entry(act, OutboxKind.TENANT, record.tenant, record),
        _fact(act, record.tenant, fact),
    ]


def tell_key_created(key: StoredKey, act: Act) -> list[OutboxEntry]:
    """What the world learns of a new key."""
    record = key.record
    fact = KeyCreated(
        tenant=record.tenant,
        key_id=record.key_id,
        name=record.name,
        created_at=record.created_at,
    )
    return [_entry(act, OutboxKind.KEY, key.sha256, record), _fact(act, record.tenant, fact)]


def tell_key_revoked(key: StoredKey, act: Act) -> list[OutboxEntry]:
    """What the world learns of a revocation; the record stays, so that it can be told why."""
    record = key.record
    fact = KeyRevoked(tenant=record.tenant, key_id=record.key_id, revoked_at=act.at)
    return [_entry(act, OutboxKind.KEY, key.sha256, record), _fact(act, record.tenant, fact)]


def _entry(act: Act, kind: OutboxKind, key: str, record: BaseModel) -> OutboxEntry:
    return OutboxEntry(
        event_id=act.new_event_id(),
        kind=kind,
        key=key,
        event_type=None,
        payload=record.model_dump_json(),
        created_at=act.at,
        traceparent=act.traceparent,
    )


def _fact(act: Act, tenant: str, fact: TenantCreated | KeyCreated | KeyRevoked) -> OutboxEntry:
    return OutboxEntry(
        event_id=act.new_event_id(),
        kind=OutboxKind.FACT,
        key=subjects.topic_event(tenant, ACCOUNT_TOPIC, fact.FACT),
        event_type=fact.TYPE,
        payload=fact.model_dump_json(),
        created_at=act.at,
        traceparent=act.traceparent,
    )
