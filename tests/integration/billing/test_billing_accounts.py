"""Accounts end to end: NATS in, Postgres, buckets and facts out."""

from __future__ import annotations

import asyncio

import asyncpg
from tests.support.billing import Operator, StartBilling, eventually

from penstock_shared.contracts.account_commands import (
    CreatedKey,
    CreateKey,
    CreateTenant,
    KeyList,
    ListAccounts,
    ListedKey,
    RevokeKey,
    TenantList,
)
from penstock_shared.contracts.account_facts import KeyCreated, KeyRevoked, TenantCreated
from penstock_shared.contracts.accounts import (
    KeyRecord,
    TenantRecord,
    hash_api_key,
    looks_like_api_key,
)
from penstock_shared.contracts.errors import ErrorReply
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.provision import provision

ACME = CreateTenant(tenant="acme", name="Acme Ltd")


async def make_key(operator: Operator, tenant: str = "acme") -> CreatedKey:
    """A tenant and one key of its."""
    await operator.command("create-tenant", CreateTenant(tenant=tenant, name=tenant))
    answer = await operator.command("create-key", CreateKey(tenant=tenant, name="ci"))
    return CreatedKey.model_validate_json(answer)


def code_of(answer: bytes) -> str:
    return ErrorReply.model_validate_json(answer).error.code


async def test_a_key_works_at_once(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """The answer to create-key comes after the buckets hold tenant and key."""
    async with start_billing():
        created = await make_key(operator)
        assert looks_like_api_key(created.secret)
        key = await kv.last_entry(broker, Bucket.KEYS, hash_api_key(created.secret))
        tenant = await kv.last_entry(broker, Bucket.TENANTS, "acme")
        assert key is not None
        assert KeyRecord.model_validate_json(key.data) == created.key
        assert tenant is not None
        assert TenantRecord.model_validate_json(tenant.data).name == "acme"
        assert created.key.hint == created.secret[-4:]


async def test_the_secret_is_nowhere(
    start_billing: StartBilling, operator: Operator, broker: Broker, postgres_dsn: str
) -> None:
    """Neither Postgres nor a fact nor a bucket holds the secret; no fact holds its hash (I8)."""
    async with start_billing():
        created = await make_key(operator)
        connection = await asyncpg.connect(postgres_dsn)
        dump = str(await connection.fetch("select * from billing.api_keys"))
        await connection.close()
        assert created.secret not in dump
        fact = await broker.last_message(EVENTS, "v1.acme.events.account.key-created")
        assert fact is not None
        assert hash_api_key(created.secret) not in str(fact)
        assert created.secret not in str(fact)


async def test_revoking_is_effective_and_idempotent(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """revoke-key marks the bucket before it answers; a repetition changes nothing."""
    async with start_billing():
        created = await make_key(operator)
        command = RevokeKey(key_id=created.key.key_id)
        first, second = [await operator.command("revoke-key", command) for _ in range(2)]
        entry = await kv.last_entry(broker, Bucket.KEYS, hash_api_key(created.secret))
        assert entry is not None
        assert KeyRecord.model_validate_json(entry.data).revoked_at is not None
        assert first == second
        info = await broker.jetstream.stream_info(EVENTS, subjects_filter="v1.*.events.account.*")
        assert info.state.subjects is not None
        assert info.state.subjects["v1.acme.events.account.key-revoked"] == 1


async def test_every_act_is_a_fact(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """EVENTS holds each act once, in its contract's form: audit sees who could do what (I5)."""
    async with start_billing():
        created = await make_key(operator)
        await operator.command("revoke-key", RevokeKey(key_id=created.key.key_id))
        for contract in (TenantCreated, KeyCreated, KeyRevoked):
            fact = await broker.last_message(EVENTS, f"v1.acme.events.account.{contract.FACT}")
            assert fact is not None
            assert fact.event_type == contract.TYPE
            assert contract.model_validate_json(fact.data).tenant == "acme"
            assert fact.headers["traceparent"].startswith("00-")


async def test_refusals_say_why(start_billing: StartBilling, operator: Operator) -> None:
    """Taken and reserved names, unknown tenants, keys and verbs, and malformed commands."""
    async with start_billing():
        await operator.command("create-tenant", ACME)
        cases = {
            "already_exists": ("create-tenant", ACME),
            "reserved_name": ("create-tenant", CreateTenant(tenant="platform", name="x")),
            "tenant_not_found": ("create-key", CreateKey(tenant="nobody", name="x")),
            "key_not_found": ("revoke-key", RevokeKey(key_id="key_0")),
            "unknown_command": ("drop-tenant", ListAccounts()),
            "invalid_schema": ("create-key", ListAccounts(tenant="acme")),
        }
        for code, (verb, body) in cases.items():
            assert code_of(await operator.command(verb, body)) == code


async def test_lists(start_billing: StartBilling, operator: Operator) -> None:
    """Both show all, or one tenant's; a tenant with its weight, a key without secret or hash."""
    async with start_billing():
        created = await make_key(operator, "acme")
        await make_key(operator, "globex")
        heavy = CreateTenant(tenant="gold", name="Gold", weight=4)
        await operator.command("create-tenant", heavy)
        tenants = await operator.command("list-tenants", ListAccounts())
        listed = TenantList.model_validate_json(tenants).tenants
        assert [(t.tenant, t.weight) for t in listed] == [("acme", 1), ("globex", 1), ("gold", 4)]
        keys = await operator.command("list-keys", ListAccounts(tenant="acme"))
        listed_key = ListedKey(**created.key.model_dump())
        assert KeyList.model_validate_json(keys).keys == (listed_key,)
        assert created.secret.encode() not in keys
        assert hash_api_key(created.secret).encode() not in keys


async def test_the_release_before_goes_on_writing_tenants(
    start_billing: StartBilling, operator: Operator, postgres_dsn: str
) -> None:
    """Replicas are replaced one by one: an insert that knows no weight still fits (ADR 0003)."""
    async with start_billing():
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(
            "insert into billing.tenants values ('old', 'Old', 'active', 60, now())"
        )
        await connection.close()
        tenants = await operator.command("list-tenants", ListAccounts(tenant="old"))
        (old,) = TenantList.model_validate_json(tenants).tenants
        assert old.weight == 1


async def test_lost_buckets_come_back(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """The bus lost its store: the reconciliation refills the buckets from Postgres (I9)."""
    async with start_billing(reconcile_interval_s=0.1):
        created = await make_key(operator)
        for bucket in (Bucket.TENANTS, Bucket.KEYS):
            await broker.jetstream.delete_stream(kv.bucket_stream(bucket))
        await provision(broker, 1)

        async def is_back() -> bool:
            digest = hash_api_key(created.secret)
            return await kv.last_entry(broker, Bucket.KEYS, digest) is not None

        await eventually(is_back)


async def test_orphans_stop_working(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """A key that Postgres does not know could never be revoked: the bucket loses it (I8)."""
    async with start_billing(reconcile_interval_s=0.1):
        created = await make_key(operator)
        stray = created.key.model_dump_json().encode()
        await kv.put(broker, Bucket.KEYS, "0" * 64, stray)

        async def is_gone() -> bool:
            entry = await kv.last_entry(broker, Bucket.KEYS, "0" * 64)
            return entry is not None and entry.data == b""

        await eventually(is_gone)
        kept = await kv.last_entry(broker, Bucket.KEYS, hash_api_key(created.secret))
        assert kept is not None
        assert kept.data == stray


async def test_two_replicas_serve_the_same_accounts(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Forty keys made and revoked through two replicas at once: every entry ends revoked."""
    async with start_billing(), start_billing():
        await operator.command("create-tenant", ACME)

        async def make_and_revoke() -> str:
            answer = await operator.command("create-key", CreateKey(tenant="acme", name="x"))
            created = CreatedKey.model_validate_json(answer)
            await operator.command("revoke-key", RevokeKey(key_id=created.key.key_id))
            return hash_api_key(created.secret)

        digests = await asyncio.gather(*(make_and_revoke() for _ in range(20)))
        entries = await kv.read_bucket(broker, Bucket.KEYS)
        assert set(entries) == set(digests)
        for entry in entries.values():
            assert KeyRecord.model_validate_json(entry.data).revoked_at is not None
        info = await broker.jetstream.stream_info(EVENTS, subjects_filter="v1.*.events.account.*")
        assert info.state.subjects == {
            "v1.acme.events.account.tenant-created": 1,
            "v1.acme.events.account.key-created": 20,
            "v1.acme.events.account.key-revoked": 20,
        }
