"""What an act on an account writes and tells."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from tests.support.billing import NOON

from penstock_billing.domain.accounts import (
    new_key,
    new_tenant,
    revoked,
    rotated,
    updated_tenant,
    works,
)
from penstock_billing.domain.announcements import (
    Act,
    tell_key_created,
    tell_key_revoked,
    tell_key_rotated,
    tell_tenant_created,
    tell_tenant_updated,
)
from penstock_billing.ports.accounts import StoredKey
from penstock_billing.ports.outbox import OutboxKind
from penstock_shared.contracts.account_commands import CreateKey, CreateTenant, UpdateTenant
from penstock_shared.contracts.account_facts import (
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    TenantUpdated,
)
from penstock_shared.contracts.accounts import (
    KeyRecord,
    Role,
    SuspensionReason,
    TenantRecord,
    TenantStatus,
    hash_api_key,
    make_api_key,
)
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, QuotaUnit

SECRET = make_api_key(lambda n: b"\x07" * n)
OTHER = make_api_key(lambda n: b"\x08" * n)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def act() -> Act:
    numbers = itertools.count(1)
    return Act(NOON, "00-trace", lambda: f"id-{next(numbers)}")


def a_key(**fields: object) -> StoredKey:
    command = CreateKey.model_validate({"tenant": "acme", "name": "ci", **fields})
    return new_key(command, SECRET, NOON, lambda n: b"\x01" * n)


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
    bucket, fact = tell_key_created(key, None, act())
    assert bucket.key == hash_api_key(SECRET)
    assert SECRET not in bucket.payload + fact.payload
    assert bucket.key not in fact.payload
    assert key.record.hint == SECRET[-4:]


def test_a_revocation_keeps_the_record() -> None:
    """The record stays under its hash, with the time of revocation."""
    key = new_key(CreateKey(tenant="acme", name="ci"), SECRET, NOON, lambda n: b"\x01" * n)
    bucket, fact = tell_key_revoked(revoked(key, NOON), "key_admin", act())
    assert KeyRecord.model_validate_json(bucket.payload).revoked_at == NOON
    told = KeyRevoked.model_validate_json(fact.payload)
    assert (told.key_id, told.by) == (key.record.key_id, "key_admin")


def test_a_key_may_have_a_role_and_an_end() -> None:
    """Both stand in the record, from which everybody decides, and in the fact."""
    key = a_key(role="read-only", expires_in_s=3600)
    assert (key.record.role, key.record.expires_at) == (Role.READ_ONLY, NOON + HOUR)
    assert works(key.record, NOON)
    assert not works(key.record, NOON + HOUR)
    told = KeyCreated.model_validate_json(tell_key_created(key, None, act())[1].payload)
    assert (told.role, told.expires_at) == (Role.READ_ONLY, NOON + HOUR)


def test_a_rotation_overlaps() -> None:
    """The successor has name, role and a lifetime of its own; the old key ends after the overlap.

    The successor is published first: nobody is ever without a key.
    """
    old = a_key(role="admin", expires_in_s=30 * 86_400)
    at = NOON + 29 * DAY
    ending, successor = rotated(old, 3600, OTHER, at, lambda n: b"\x02" * n)
    assert ending.record.expires_at == at + HOUR
    assert (successor.record.name, successor.record.role) == ("ci", Role.ADMIN)
    assert successor.record.expires_at == at + 30 * DAY
    assert (ending.sha256, successor.sha256) == (hash_api_key(SECRET), hash_api_key(OTHER))
    entries = tell_key_rotated(ending, successor, None, act())
    assert [entry.key for entry in entries] == [
        successor.sha256,
        "v1.acme.events.account.key-created",
        ending.sha256,
        "v1.acme.events.account.key-rotated",
    ]
    told = KeyRotated.model_validate_json(entries[-1].payload)
    assert (told.key_id, told.successor) == (old.record.key_id, successor.record.key_id)
    assert told.expires_at == at + HOUR


def test_a_rotation_never_prolongs() -> None:
    """An overlap beyond the old key's end leaves that as it is; rotating again only shortens."""
    old = a_key(expires_in_s=60)
    ending, _ = rotated(old, 3600, OTHER, NOON, lambda n: b"\x02" * n)
    assert ending.record.expires_at == old.record.expires_at
    at_once, _ = rotated(ending, 0, OTHER, NOON, lambda n: b"\x02" * n)
    assert at_once.record.expires_at == NOON


@pytest.mark.parametrize("ended", [revoked(a_key(), NOON), a_key(expires_in_s=60)])
def test_what_has_ended_is_not_rotated(ended: StoredKey) -> None:
    """A revoked or expired key would come back to life under another secret."""
    with pytest.raises(ConflictError) as refusal:
        rotated(ended, 0, OTHER, NOON + HOUR, lambda n: b"\x02" * n)
    assert refusal.value.code == "key_has_ended"


def test_an_update_changes_what_was_sent() -> None:
    """Fields that were left out stay, null lifts a limit, and the fact names what is different."""
    provider = {"issuer": "https://id.example", "audiences": ["p"], "default_role": "member"}
    terms = {"tokens_per_minute": 5, "weight": 3, "identity_providers": [provider]}
    new = CreateTenant.model_validate({"tenant": "acme", "name": "Acme", **terms})
    record = new_tenant(new, NOON)
    assert record.identity_providers[0].default_role is Role.MEMBER
    wish = {"tenant": "acme", "status": "suspended", "tokens_per_minute": None, "weight": 3}
    after, changed = updated_tenant(record, UpdateTenant.model_validate(wish))
    assert changed == ("status", "suspended_reason", "tokens_per_minute")
    assert (after.status, after.tokens_per_minute) == (TenantStatus.SUSPENDED, None)
    assert after.identity_providers == record.identity_providers
    bucket, fact = tell_tenant_updated(after, changed, act())
    assert TenantRecord.model_validate_json(bucket.payload) == after
    assert TenantUpdated.model_validate_json(fact.payload).changed == changed
    assert updated_tenant(after, UpdateTenant.model_validate(wish)) == (after, ())


@pytest.mark.parametrize(
    "wrong",
    [{"issuer": "http://id.example"}, {"issuer": "https://u:p@id.example"},
     {"algorithms": ["none"]},
     {"algorithms": ["HS256"]}, {"algorithms": []}, {"audiences": []}, {"default_role": None},
     {"issuer": "https://id.example?x"}, {"typo": 1}, {"clock_skew_s": 3600}],
)  # fmt: skip
def test_a_provider_that_would_be_unsafe_is_refused(wrong: dict[str, object]) -> None:
    """No plain HTTP, no shared secrets, no provider that lets everybody or nobody in."""
    provider = {"issuer": "https://id.example", "audiences": ["p"], "default_role": "member"}
    with pytest.raises(ValueError, match="identity_providers"):
        UpdateTenant.model_validate({"tenant": "acme", "identity_providers": [provider | wrong]})


def test_an_operators_word_outweighs_any_other_reason() -> None:
    """A tenant that owes is held back until an operator says so, or let in although it owes."""
    record = new_tenant(CreateTenant(tenant="acme", name="Acme"), NOON)
    owes = record.model_copy(
        update={
            "status": TenantStatus.SUSPENDED,
            "suspended_reason": SuspensionReason.PAST_DUE,
        }
    )
    for status, reason in (
        (TenantStatus.SUSPENDED, SuspensionReason.OPERATOR),
        (TenantStatus.ACTIVE, None),
    ):
        after, _ = updated_tenant(owes, UpdateTenant(tenant="acme", status=status))
        assert (after.status, after.suspended_reason) == (status, reason)
    renamed, changed = updated_tenant(owes, UpdateTenant(tenant="acme", name="Acme Ltd"))
    assert changed == ("name",)
    assert renamed.refusal() is not None


def test_who_is_refused_learns_why() -> None:
    """An older release suspended without a reason: then it was an operator."""
    record = new_tenant(CreateTenant(tenant="acme", name="Acme"), NOON)
    assert record.refusal() is None
    codes = []
    for reason in (None, *SuspensionReason):
        gone = {"status": TenantStatus.SUSPENDED, "suspended_reason": reason}
        refusal = record.model_copy(update=gone).refusal()
        assert refusal is not None
        codes.append(refusal.code)
    assert codes == ["tenant_suspended", "tenant_suspended", "tenant_past_due"]


def test_what_is_only_soft_is_not_reserved_for() -> None:
    """A hard quota, or a plan that limits, is; an older release reads what is not soft."""
    record = new_tenant(CreateTenant(tenant="acme", name="Acme"), NOON)
    hard = Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.DAY, limit=5)
    soft = hard.model_copy(update={"soft": True})
    assert not record.reserves
    assert not record.model_copy(update={"quotas": (soft,)}).reserves
    assert record.model_copy(update={"quotas": (soft, hard)}).reserves
    assert record.model_copy(update={"limited_from": NOON.date()}).reserves
    assert "soft" not in hard.model_dump()
    assert Quota.model_validate_json(soft.model_dump_json()) == soft
