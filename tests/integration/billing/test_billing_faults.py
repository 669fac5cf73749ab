"""Servers die, replicas die, relays die half-way: nothing is lost, nothing is doubled (I2)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from tests.support.billing import NOON, Operator, StartBilling, eventually, terminals
from tests.support.stack import Stack
from tests.support.tcp_proxy import TcpProxy

from penstock_billing.adapters.nats_publisher import NatsEntryPublisher
from penstock_billing.adapters.postgres_accounts import PostgresAccounts
from penstock_billing.adapters.postgres_outbox import PostgresOutbox
from penstock_billing.domain.accounts import new_tenant
from penstock_billing.domain.announcements import Act, tell_tenant_created
from penstock_billing.handlers.relay import OutboxRelay
from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import ErrorReply, PenstockError
from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import UsageReport
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.migrations import migrate
from penstock_shared.runtime.postgres import Postgres

BILLING = ("billing", "penstock_billing.adapters")
"""Schema, and the package of its migrations."""


def requests_and_tokens(report: UsageReport) -> tuple[int, int]:
    return sum(r.requests for r in report.rows), sum(r.output_tokens for r in report.rows)


def wanted(facts: list[RequestEnded]) -> tuple[int, int]:
    return len(facts), sum(fact.usage.output_tokens for fact in facts)


async def publish_whatever_happens(operator: Operator, facts: list[RequestEnded]) -> None:
    """Publish each fact until it is acknowledged: what a worker's retry does, copies included."""
    for fact in facts:
        while True:
            try:
                await operator.publish(fact)
                break
            except Exception:  # noqa: BLE001  whatever the broken bus says
                await asyncio.sleep(0.1)


async def true(what: bool) -> bool:  # noqa: FBT001  an answer, as `eventually` wants it
    return what


async def settled(operator: Operator, facts: list[RequestEnded]) -> bool:
    with contextlib.suppress(PenstockError, ValueError):
        report = await operator.usage()
        return requests_and_tokens(report) == wanted(facts)
    return False


async def test_postgres_dies_in_mid_run(
    start_billing: StartBilling, operator: Operator, servers: Stack
) -> None:
    """`kill -9` of PostgreSQL while facts come in: held, written when it is back, each once."""
    facts = terminals(random.Random(11), 300)
    async with start_billing(batch_limit=10) as app:
        publishing = asyncio.create_task(publish_whatever_happens(operator, facts))
        await asyncio.sleep(0.1)
        servers.kill("postgres")
        await publishing
        await eventually(lambda: settled(operator, facts), within_s=40)

        await eventually(lambda: true(app.problems() == []))


async def test_nats_dies_in_mid_run(
    start_billing: StartBilling, operator: Operator, servers: Stack
) -> None:
    """`kill -9` of nats-server while facts come in: the consumer resumes, acks lost or not."""
    facts = terminals(random.Random(12), 300)
    async with start_billing(batch_limit=10):
        publishing = asyncio.create_task(publish_whatever_happens(operator, facts))
        await asyncio.sleep(0.1)
        servers.kill("nats")
        await publishing
        await eventually(lambda: settled(operator, facts), within_s=40)


async def test_a_network_that_is_cut(
    start_billing: StartBilling, operator: Operator, postgres_dsn: str
) -> None:
    """Postgres out of reach: commands say so at once, `/readyz` too, facts wait and then count."""
    place = urlsplit(postgres_dsn)
    facts = terminals(random.Random(14), 50)
    async with TcpProxy(place.hostname or "", place.port or 0) as proxy:
        dsn = postgres_dsn.replace(f":{place.port}/", f":{proxy.port}/")
        async with start_billing(postgres_dsn=dsn, relay_interval_s=0.1) as app:
            await proxy.cut()
            await publish_whatever_happens(operator, facts)
            command = CreateTenant(tenant="acme", name="x")
            answer = await operator.command("create-tenant", command)
            assert ErrorReply.model_validate_json(answer).error.code == "postgres_unavailable"
            await eventually(lambda: true(app.problems() != []))
            await proxy.mend()
            await eventually(lambda: settled(operator, facts))
            await eventually(lambda: true(app.problems() == []))
            assert TenantRecord.model_validate_json(
                await operator.command("create-tenant", command)
            )


async def test_draining_while_postgres_is_away(
    start_billing: StartBilling, operator: Operator, postgres_dsn: str
) -> None:
    """A replica that cannot write hands its batch back instead of keeping it from the others."""
    place = urlsplit(postgres_dsn)
    facts = terminals(random.Random(15), 50)
    async with TcpProxy(place.hostname or "", place.port or 0) as proxy:
        dsn = postgres_dsn.replace(f":{place.port}/", f":{proxy.port}/")
        async with start_billing(postgres_dsn=dsn):
            await proxy.cut()
            await publish_whatever_happens(operator, facts)
    async with start_billing():
        await eventually(lambda: settled(operator, facts), within_s=5)


@contextlib.asynccontextmanager
async def process(env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Billing as its own process, killed without warning at the end of the block."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock_billing", env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def test_billing_dies_again_and_again(
    broker: Broker, operator: Operator, nats_url: str, postgres_dsn: str, root_key_file: Path
) -> None:
    """`kill -9` of billing at seeded moments while facts come in: each counts once."""
    rng = random.Random(13)
    env = {
        **os.environ,
        "PENSTOCK_NATS_URL": nats_url,
        "PENSTOCK_POSTGRES_DSN": postgres_dsn,
        "PENSTOCK_ROOT_KEY_FILE": str(root_key_file),
        "PENSTOCK_BATCH_LIMIT": "5",
        "PENSTOCK_BATCH_LINGER_S": "0",
    }
    facts = terminals(rng, 600)
    for begin in range(0, 600, 200):
        async with process(env):
            some = publish_whatever_happens(operator, facts[begin : begin + 200])
            await asyncio.gather(some, asyncio.sleep(1.5))
            await asyncio.sleep(rng.uniform(0, 0.1))
    async with process(env):
        # What the dead ones held comes back when AckWait is over.
        await eventually(lambda: settled(operator, facts), within_s=60)


class DyingPublisher:
    """Publishes, then dies before anybody learns of it; works on the second try."""

    def __init__(self, real: NatsEntryPublisher) -> None:
        self._real = real
        self._seen: set[str] = set()

    async def publish(self, entry: OutboxEntry) -> None:
        await self._real.publish(entry)
        if entry.event_id not in self._seen:
            self._seen.add(entry.event_id)
            raise ConnectionAbortedError


async def test_a_relay_that_dies_between_publishing_and_deleting(
    broker: Broker, postgres_dsn: str
) -> None:
    """The entry is published again and recognised: one fact, whatever the dedup window says."""
    postgres = await Postgres.connect(SecretStr(postgres_dsn), name="test", connections=3)
    await migrate(postgres, *BILLING)
    outbox = PostgresOutbox(postgres)
    relay = OutboxRelay(outbox, DyingPublisher(NatsEntryPublisher(broker, "/test")))
    act = Act(NOON, None, IdSource(SystemClock()).new)
    record = new_tenant(CreateTenant(tenant="acme", name="Acme"), NOON)
    async with PostgresAccounts(postgres).transaction() as transaction:
        await transaction.add_tenant(record)
        await transaction.enqueue(tell_tenant_created(record, act))
    for left in (2, 1):  # it dies at the tenant's record, then at the fact
        with pytest.raises(PenstockError):
            await relay.flush()
        assert await outbox.backlog() == left
    await relay.flush()
    assert await outbox.backlog() == 0
    state = (await broker.jetstream.stream_info(EVENTS)).state
    assert state.messages == 1
    await postgres.close()


async def test_replicas_that_start_together_migrate_once(postgres_dsn: str) -> None:
    """Five at once on an empty database: one migrates, the others wait and find it done."""
    pools = [
        await Postgres.connect(SecretStr(postgres_dsn), name="test", connections=2)
        for _ in range(5)
    ]
    await asyncio.gather(*(migrate(pool, *BILLING) for pool in pools))
    scripts = list((files("penstock_billing.adapters") / "migrations").iterdir())
    applied = await pools[0].fetchval("select count(*) from billing.schema_version")
    assert applied == sum(script.name.endswith(".sql") for script in scripts)
    await pools[0].fetch("update billing.schema_version set checksum = 'other'")
    with pytest.raises(PenstockError, match="changed after it was applied"):
        await migrate(pools[0], *BILLING)
    await asyncio.gather(*(pool.close() for pool in pools))
