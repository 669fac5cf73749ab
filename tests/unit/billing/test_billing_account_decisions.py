"""What an act on an account writes and tells."""

from __future__ import annotations

import itertools

import pytest
from tests.support.billing import NOON

from penstock_billing.domain.accounts import (
    Act,
    new_key,
    new_tenant,
    revoked,
    tell_key_created,
    tell_key_revoked,
    tell_tenant_created,
)
from penstock_billing.ports import OutboxKind
from penstock_shared.contracts.accounts import (
    CreateKey,
    CreateTenant,
    KeyRecord,
    KeyRevoked,
    TenantRecord,
    hash_api_key,
    make_api_key,
)
from penstock_shared.contracts.errors import ConflictError

SECRET = make_api_key(lambda n: b"\x07" * n)


def act() -> Act:
    numbers = itertools.count(1)
    return Act(NOON, "00-trace", lambda: f"id-{next(numbers)}")


def test_the_platforms_name_is_nobodys() -> None:
    """A tenant called `platform` could send operator commands (I8)."""
    with pytest.raises(ConflictError) as refusal:
        new_tenant(CreateTenant(tenant="platform", name="x"), NOON)
    assert refusal.value.code == "reserved_name"


def test_records_are_published_before_facts() -> None:
    """Whoever hears of a tenant from EVENTS finds it in the bucket."""
    record = new_tenant(CreateTenant(tenant="acme", name="Acme", weight=4), NOON)
    assert record.weight == 4
    bucket, fact = tell_tenant_created(record, act())
    assert (bucket.kind, bucket.key) == (OutboxKind.TENANT, "acme")
    assert TenantRecord.model_validate_json(bucket.payload) == record
    assert (fact.kind, fact.key) == (OutboxKind.FACT, "v1.acme.events.account.tenant-created")
    assert bucket.event_id != fact.event_id
    assert fact.traceparent == "00-trace"


def test_nothing_told_holds_the_secret() -> None:
    """The bucket's key is the hash; the fact has neither secret nor hash."""
    key = new_key(CreateKey(tenant="acme", name="ci"), SECRET, NOON, lambda n: b"\x01" * n)
    bucket, fact = tell_key_created(key, act())
    assert bucket.key == hash_api_key(SECRET)
    assert SECRET not in bucket.payload + fact.payload
    assert bucket.key not in fact.payload
    assert key.record.hint == SECRET[-4:]


def test_a_revocation_keeps_the_record() -> None:
    """The record stays under its hash, with the time of revocation."""
    key = new_key(CreateKey(tenant="acme", name="ci"), SECRET, NOON, lambda n: b"\x01" * n)
    bucket, fact = tell_key_revoked(revoked(key, NOON), act())
    assert KeyRecord.model_validate_json(bucket.payload).revoked_at == NOON
    assert KeyRevoked.model_validate_json(fact.payload).key_id == key.record.key_id
