"""Roles, expiry, rotation, last uses, tenants' terms and providers: from NATS to Postgres."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel
from tests.support.billing import Operator, StartBilling

from penstock_billing.domain import accounts as account_rules
from penstock_shared.contracts.account_commands import (
    CreatedKey,
    CreateKey,
    CreateTenant,
    KeyList,
    KeyUse,
    KeyUseNoted,
    ListKeys,
    ReportKeyUse,
    RevokeKey,
    RotateKey,
    UpdateTenant,
)
from penstock_shared.contracts.account_facts import KeyRotated, TenantUpdated
from penstock_shared.contracts.accounts import KeyRecord, Role, TenantRecord, hash_api_key
from penstock_shared.contracts.errors import ErrorReply
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

ACME = CreateTenant(tenant="acme", name="Acme")
PROVIDER = {"issuer": "https://id.example", "audiences": ["acme"], "default_role": "member"}


async def create_key(operator: Operator, **fields: Any) -> CreatedKey:
    wish = CreateKey.model_validate({"tenant": "acme", "name": "ci", **fields})
    return CreatedKey.model_validate_json(await operator.command("create-key", wish))


async def update(operator: Operator, **fields: Any) -> bytes:
    """As the `penstock` command sends it: only what was said."""
    wish = json.dumps({"tenant": "acme", **fields}).encode()

    class Sent(BaseModel):
        def model_dump_json(self, **_: Any) -> str:
            return wish.decode()

    return await operator.command("update-tenant", Sent())


def code_of(answer: bytes) -> str:
    return ErrorReply.model_validate_json(answer).error.code


async def bucket_key(broker: Broker, secret: str) -> KeyRecord:
    entry = await kv.last_entry(broker, Bucket.KEYS, hash_api_key(secret))
    assert entry is not None
    return KeyRecord.model_validate_json(entry.data)


async def test_role_and_expiry_reach_the_bucket(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Everybody decides from the bucket, so both must be there before the answer is."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        created = await create_key(operator, role="read-only", expires_in_s=3600)
        assert await bucket_key(broker, created.secret) == created.key
        assert created.key.role is Role.READ_ONLY
        assert created.key.expires_at == created.key.created_at + timedelta(hours=1)
        listed = KeyList.model_validate_json(await operator.command("list-keys", ListKeys()))
        assert listed.keys[0].expires_at == created.key.expires_at


async def test_rotation(start_billing: StartBilling, operator: Operator, broker: Broker) -> None:
    """Both keys work for the overlap, the old one's end is in its bucket entry, both are facts."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        old = await create_key(operator, role="admin")
        wish = RotateKey(key_id=old.key.key_id, overlap_s=600)
        new = CreatedKey.model_validate_json(await operator.command("rotate-key", wish))
        assert new.secret != old.secret
        assert (new.key.name, new.key.role, new.key.expires_at) == ("ci", Role.ADMIN, None)
        assert await bucket_key(broker, new.secret) == new.key
        end = (await bucket_key(broker, old.secret)).expires_at
        assert end == new.key.created_at + timedelta(minutes=10)
        fact = await broker.last_message(EVENTS, "v1.acme.events.account.key-rotated")
        assert fact is not None
        told = KeyRotated.model_validate_json(fact.data)
        assert (told.successor, told.expires_at) == (new.key.key_id, end)
        assert hash_api_key(new.secret) not in str(fact)


async def test_two_rotations_at_once(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Sent twice, or through two replicas: the earlier end stands, and every secret told works."""
    async with start_billing(), start_billing():
        await operator.command("create-tenant", ACME)
        old = await create_key(operator)
        wishes = [RotateKey(key_id=old.key.key_id, overlap_s=s) for s in (3600, 60, 600)]
        answers = await asyncio.gather(*(operator.command("rotate-key", w) for w in wishes))
        made = [CreatedKey.model_validate_json(answer) for answer in answers]
        for created in made:
            assert (await bucket_key(broker, created.secret)).expires_at is None
        end = (await bucket_key(broker, old.secret)).expires_at
        assert end is not None
        assert end <= max(c.key.created_at for c in made) + timedelta(seconds=60)


@pytest.mark.parametrize("command", [RotateKey, RevokeKey])
async def test_another_tenants_key_is_not_found(
    start_billing: StartBilling,
    operator: Operator,
    broker: Broker,
    command: Callable[..., BaseModel],
) -> None:
    """An admin who names a foreign key learns nothing and changes nothing (I8)."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        created = await create_key(operator)
        verb = "rotate-key" if command is RotateKey else "revoke-key"
        foreign = command(key_id=created.key.key_id, tenant="globex", by="key_theirs")
        unknown = command(key_id="key_0", tenant="globex", by="key_theirs")
        answers = [await operator.command(verb, body) for body in (foreign, unknown)]
        assert [code_of(answer) for answer in answers] == ["key_not_found"] * 2
        texts = [a.replace(created.key.key_id.encode(), b"key_0") for a in answers]
        assert texts[0] == texts[1]
        assert await bucket_key(broker, created.secret) == created.key


async def test_what_has_ended_is_not_rotated(
    start_billing: StartBilling, operator: Operator
) -> None:
    """A revoked key stays dead."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        key_id = (await create_key(operator)).key.key_id
        await operator.command("revoke-key", RevokeKey(key_id=key_id))
        answer = await operator.command("rotate-key", RotateKey(key_id=key_id))
        assert code_of(answer) == "key_has_ended"


async def test_pages(start_billing: StartBilling, operator: Operator) -> None:
    """Page after page gives every key once, in the order of their making."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        made = [(await create_key(operator)).key.key_id for _ in range(5)]
        seen: list[str] = []
        after = None
        for more in (True, True, False):
            query = ListKeys(tenant="acme", after=after, limit=2)
            page = KeyList.model_validate_json(await operator.command("list-keys", query))
            seen += [key.key_id for key in page.keys]
            after = seen[-1]
            assert page.has_more is more
        assert seen == made


async def test_a_tenant_has_only_so_many_keys(
    start_billing: StartBilling, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made at once through two replicas, never more than the limit; a revoked one makes room."""
    monkeypatch.setattr("penstock_billing.handlers.accounts.MAX_WORKING_KEYS", 3)
    assert account_rules.MAX_WORKING_KEYS > 3
    async with start_billing(), start_billing():
        await operator.command("create-tenant", ACME)
        wish = CreateKey(tenant="acme", name="ci")
        answers = await asyncio.gather(*(operator.command("create-key", wish) for _ in range(8)))
        refused = [answer for answer in answers if b'"error"' in answer]
        assert {code_of(answer) for answer in refused} == {"too_many_keys"}
        assert len(refused) == 5
        listed = KeyList.model_validate_json(await operator.command("list-keys", ListKeys()))
        await operator.command("revoke-key", RevokeKey(key_id=listed.keys[0].key_id))
        await create_key(operator)


async def test_last_uses(start_billing: StartBilling, operator: Operator, broker: Broker) -> None:
    """Late, repeated, unknown and future reports: the latest time stands, the bucket is left alone.

    A watch that woke for every use would cost every service of every replica.
    """
    async with start_billing():
        await operator.command("create-tenant", ACME)
        created = await create_key(operator)
        before = await kv.last_entry(broker, Bucket.KEYS, hash_api_key(created.secret))
        now = datetime.now(UTC)

        async def report(*times: datetime) -> int:
            uses = tuple(KeyUse(key_id=created.key.key_id, at=at) for at in times)
            uses += (KeyUse(key_id="key_unknown", at=now),)
            answer = await operator.command("report-key-use", ReportKeyUse(uses=uses))
            return KeyUseNoted.model_validate_json(answer).noted

        minute = timedelta(minutes=1)
        assert await report(now - minute, now - 2 * minute) == 1
        assert await report(now - minute) == 0
        assert await report(now - 3 * minute) == 0
        (key,) = KeyList.model_validate_json(await operator.command("list-keys", ListKeys())).keys
        assert key.last_used_at == now - minute
        assert await report(now + timedelta(days=365)) == 1
        (key,) = KeyList.model_validate_json(await operator.command("list-keys", ListKeys())).keys
        assert key.last_used_at is not None
        assert key.last_used_at < datetime.now(UTC) + minute
        assert await kv.last_entry(broker, Bucket.KEYS, hash_api_key(created.secret)) == before


async def test_reports_that_overlap_do_not_deadlock(
    start_billing: StartBilling, operator: Operator
) -> None:
    """Many instances report the same keys in different orders, all at once."""
    async with start_billing(), start_billing():
        await operator.command("create-tenant", ACME)
        keys = [(await create_key(operator)).key.key_id for _ in range(20)]
        base = datetime.now(UTC) - timedelta(hours=1)
        reports = [
            ReportKeyUse(
                uses=tuple(
                    KeyUse(key_id=key, at=base + timedelta(seconds=n))
                    for key in (keys if n % 2 else reversed(keys))
                )
            )
            for n in range(30)
        ]
        answers = await asyncio.gather(*(operator.command("report-key-use", r) for r in reports))
        assert [code_of(a) for a in answers if b'"error"' in a] == []
        listed = KeyList.model_validate_json(await operator.command("list-keys", ListKeys())).keys
        assert {key.last_used_at for key in listed} == {base + timedelta(seconds=29)}


async def test_an_update_is_everywhere_before_its_answer(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Limits, providers and a suspension; a repetition is no second fact (I5)."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        terms = {"tokens_per_minute": 9, "identity_providers": [PROVIDER], "status": "suspended"}
        first, second = [await update(operator, **terms) for _ in range(2)]
        assert first == second
        entry = await kv.last_entry(broker, Bucket.TENANTS, "acme")
        assert entry is not None
        record = TenantRecord.model_validate_json(entry.data)
        assert record == TenantRecord.model_validate_json(first)
        assert (record.name, record.tokens_per_minute) == ("Acme", 9)
        info = await broker.jetstream.stream_info(EVENTS, subjects_filter="v1.*.events.account.*")
        assert (info.state.subjects or {})["v1.acme.events.account.tenant-updated"] == 1
        fact = await broker.last_message(EVENTS, "v1.acme.events.account.tenant-updated")
        assert fact is not None
        told = TenantUpdated.model_validate_json(fact.data)
        changed = ("identity_providers", "status", "suspended_reason", "tokens_per_minute")
        assert told.changed == changed
        lifted = TenantRecord.model_validate_json(await update(operator, tokens_per_minute=None))
        assert lifted.tokens_per_minute is None
        assert lifted.identity_providers == record.identity_providers


async def test_an_audience_belongs_to_one_tenant(
    start_billing: StartBilling, operator: Operator
) -> None:
    """Tokens of one issuer for one audience name one tenant, or they would name two (I8)."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        await update(operator, identity_providers=[PROVIDER])
        globex = {"tenant": "globex", "name": "G", "identity_providers": [PROVIDER]}
        taken = await operator.command("create-tenant", CreateTenant.model_validate(globex))
        assert code_of(taken) == "audience_taken"
        twice = await update(operator, identity_providers=[PROVIDER, PROVIDER])
        assert code_of(twice) == "audience_taken"
        await update(operator, identity_providers=[])
        made = await operator.command("create-tenant", CreateTenant.model_validate(globex))
        assert TenantRecord.model_validate_json(made).identity_providers[0].audiences == ("acme",)


async def test_one_audience_two_tenants_at_once(
    start_billing: StartBilling, operator: Operator
) -> None:
    """Claimed through two replicas in the same moment, it goes to one of them (I8)."""
    async with start_billing(), start_billing():
        wishes = [
            CreateTenant.model_validate(
                {"tenant": f"t{n}", "name": "T", "identity_providers": [PROVIDER]}
            )
            for n in range(6)
        ]
        answers = await asyncio.gather(*(operator.command("create-tenant", w) for w in wishes))
        assert sum(b'"error"' not in answer for answer in answers) == 1


async def test_an_unknown_tenant_is_not_updated(
    start_billing: StartBilling, operator: Operator
) -> None:
    """And what cannot be stored is refused by name."""
    async with start_billing():
        assert code_of(await update(operator, weight=2)) == "tenant_not_found"
        await operator.command("create-tenant", ACME)
        for wrong in ({"weight": 0}, {"name": "a\x00b"}, {"status": "gone"}, {"typo": 1}):
            answer = await update(operator, **wrong)
            error = ErrorReply.model_validate_json(answer).error
            assert (error.code, error.param) == ("invalid_schema", next(iter(wrong)))


async def test_the_release_before_goes_on_writing_keys(
    start_billing: StartBilling, operator: Operator, postgres_dsn: str
) -> None:
    """Replicas are replaced one by one: an insert that knows no role still fits (ADR 0003)."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(
            "insert into billing.api_keys (sha256, key_id, tenant, name, hint, created_at,"
            " revoked_at) values ($1, 'key_old', 'acme', 'ci', 'abcd', now(), null)",
            "0" * 64,
        )
        await connection.close()
        (old,) = KeyList.model_validate_json(await operator.command("list-keys", ListKeys())).keys
        assert (old.role, old.expires_at, old.last_used_at) == (Role.MEMBER, None, None)


def test_an_update_says_only_what_was_said() -> None:
    """What the `penstock` command sends: a default that travelled along would be a wish."""
    wish = UpdateTenant(tenant="acme", tokens_per_minute=None)
    assert json.loads(wish.model_dump_json(exclude_unset=True)) == {
        "tenant": "acme",
        "tokens_per_minute": None,
    }
