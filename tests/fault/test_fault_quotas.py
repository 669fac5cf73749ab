"""Servers and routers die between reserving and routing: nothing leaks or is overspent (I4)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.support.billing import Operator, StartBilling, eventually
from tests.support.quotas import QuotaRig, ended, quota, quota_rig, routed, tenant
from tests.support.stack import Stack

from penstock_billing.app import create_app
from penstock_billing.settings import Settings
from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.handlers.orphans import Orphans
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import PenstockError, RateLimitedError
from penstock_shared.contracts.requests import RequestEnded, RequestRouted
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.clock import SystemClock

LIMIT = 500
A_ROUTER = """
import asyncio, sys
from pydantic import SecretStr
from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.adapters.postgres_quotas import PostgresQuotas
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.postgres import Postgres
from tests.support.quotas import routed, tenant

async def main(nats_url, dsn):
    broker = await Broker.connect(nats_url, name="router")
    log = NatsRequestLog(broker)
    clock = SystemClock()
    postgres = await Postgres.prepare(
        SecretStr(dsn), name="router", connections=1, role="penstock_router"
    )
    gate = PostgresQuotas(postgres, clock)
    acme = tenant("acme", "tokens/day=500")

    async def admit():
        while True:
            request = routed(5, deadline=clock.now())
            try:
                await gate.reserve(acme, request)
                await log.write_routed(request, source="/test", traceparent=None)
            except Exception as error:
                print(type(error).__name__, file=sys.stderr, flush=True)
                await asyncio.sleep(0.05)
            print("told", flush=True)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(admit() for _ in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def start_billing(broker: Broker, nats_url: str, postgres_dsn: str, tmp_path: Path) -> StartBilling:
    """Billing, in this process."""
    key_file = tmp_path / "root.key"
    key_file.write_text(base64.b64encode(b"k" * 32).decode())

    @contextlib.asynccontextmanager
    async def start() -> AsyncIterator[object]:
        app = create_app(
            Settings(
                nats_url=nats_url,
                postgres_dsn=SecretStr(postgres_dsn),
                root_key_file=key_file,
                batch_linger_s=0.01,
                position_interval_s=0.1,
            )
        )
        try:
            await app.start()
            yield app
            await app.drain()
        finally:
            await app.stop()

    return start  # type: ignore[return-value]


@pytest.fixture
async def rig(
    start_billing: StartBilling, broker: Broker, postgres_dsn: str
) -> AsyncIterator[QuotaRig]:
    """Billing runs, knows of acme's quota, and has nothing to read again."""
    async with start_billing(), quota_rig(postgres_dsn) as made:
        command = CreateTenant(tenant="acme", name="Acme", quotas=(quota(f"tokens/day={LIMIT}"),))
        await Operator(broker).command("create-tenant", command)
        yield made


def orphans(rig: QuotaRig, broker: Broker) -> Orphans:
    """A router's, with no time to lose."""
    return Orphans(rig.gate, NatsRequestLog(broker), SystemClock(), source="/test", grace_s=-3600)


async def released(rig: QuotaRig) -> None:
    """Wait until billing has read whatever ends reservations."""

    async def nothing_reserved() -> bool:
        return await rig.open_rows() == 0

    await eventually(nothing_reserved)
    await rig.check_sums()


async def test_a_request_that_was_never_routed_is_ended(rig: QuotaRig, broker: Broker) -> None:
    """By one fact, however many routers look; whoever routes it later is fenced (I2, I4)."""
    acme = tenant("acme", f"tokens/day={LIMIT}")
    lost, alive = routed(100, 50), routed(200)
    for request in (lost, alive):
        await rig.gate.reserve(acme, request)
    log = NatsRequestLog(broker)
    await log.write_routed(alive, source="/test", traceparent=None)
    looks = await asyncio.gather(*(orphans(rig, broker).look() for _ in range(4)))
    assert sum(looks) == 1
    with pytest.raises(SequenceConflictError):
        await log.write_routed(lost, source="/test", traceparent=None)
    found = await log.last_fact("acme", lost.request_id)
    assert found is not None
    assert isinstance(found[1], RequestEnded)
    assert (found[1].reason, found[1].run) == ("expired", None)

    async def only_the_other_one() -> bool:
        return (await rig.state()).reserved == 200

    await eventually(only_the_other_one)
    assert await orphans(rig, broker).look() == 0
    await Operator(broker).publish(ended(alive, 120))
    await released(rig)
    assert (await rig.state()).settled == 120


async def test_an_unreadable_fact_keeps_no_other_reservation(rig: QuotaRig, broker: Broker) -> None:
    """One request's poison is passed over: those behind it are ended (I4, I8)."""
    acme = tenant("acme", f"tokens/day={LIMIT}")
    soon = datetime.now(UTC)
    poisoned, lost = routed(10, deadline=soon), routed(10, deadline=soon + timedelta(seconds=1))
    for request in (poisoned, lost):
        await rig.gate.reserve(acme, request)
    await broker.publish(
        subjects.request_event("acme", poisoned.request_id),
        b"?",
        Envelope(id="poison", source="/test", type=RequestRouted.TYPE, time=soon),
    )
    assert await orphans(rig, broker).look() == 1
    assert await NatsRequestLog(broker).last_fact("acme", lost.request_id) is not None


async def test_a_router_killed_between_its_writes(
    rig: QuotaRig, broker: Broker, nats_url: str, postgres_dsn: str
) -> None:
    """`kill -9` while eight admissions are under way: every reservation ends, and by a fact."""
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    rng = random.Random(seed)
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            A_ROUTER,
            nats_url,
            postgres_dsn,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 12)):
            await asyncio.wait_for(process.stdout.readline(), 30)
        process.kill()
        await process.wait()
    state = await rig.state()
    assert 0 < state.reserved <= LIMIT
    await orphans(rig, broker).look()
    log = NatsRequestLog(broker)
    for held in await rig.gate.overdue(datetime.now(UTC) + timedelta(hours=1), None):
        found = await log.last_fact("acme", held.request_id)
        assert found is not None
        if isinstance(found[1], RequestRouted):
            await Operator(broker).publish(ended(found[1], 5))
    await released(rig)


async def test_postgres_killed_while_tenants_come_in(
    rig: QuotaRig, broker: Broker, servers: Stack
) -> None:
    """`kill -9` of PostgreSQL: who has a quota waits or is refused, the others notice nothing (I4).

    Whatever the last statements did, settled and reserved use stay within the limit, and in the
    end what is settled is what was used.
    """
    acme, globex = tenant("acme", f"tokens/day={LIMIT}"), tenant("globex")
    log, operator = NatsRequestLog(broker), Operator(broker)
    spent = refused = 0
    full = asyncio.Event()

    async def submit(of: Callable[[], RequestRouted]) -> None:
        nonlocal spent, refused
        while not full.is_set():
            request = of()
            try:
                await rig.gate.reserve(acme, request)
            except RateLimitedError as error:
                if error.retry_after_s > 1:
                    full.set()
                await asyncio.sleep(0.02)
            except PenstockError:
                refused += 1
                await asyncio.sleep(0.05)
            else:
                await log.write_routed(request, source="/test", traceparent=None)
                await operator.publish(ended(request, 4))
                spent += 4

    submitters = [asyncio.create_task(submit(lambda: routed(5))) for _ in range(8)]
    await asyncio.sleep(0.2)
    servers.kill("postgres")
    for _ in range(20):  # nothing is asked of the database
        await rig.gate.reserve(globex, routed(of="globex", lane=Lane.BATCH))
    sweeping = orphans(rig, broker)
    async with asyncio.timeout(60):
        while not full.is_set():
            with contextlib.suppress(PenstockError, OSError):
                await sweeping.look()
                state = await rig.state()
                assert state.settled + state.reserved <= LIMIT
            await asyncio.sleep(0.1)
    await asyncio.gather(*submitters)
    await sweeping.look()
    await released(rig)
    assert (await rig.state()).settled == spent
    assert LIMIT - 5 < spent <= LIMIT


async def test_a_database_made_anew_learns_of_open_requests_first(
    start_billing: StartBilling, broker: Broker, postgres_dsn: str
) -> None:
    """Nothing is admitted before what the log says is open has been accounted for (I4, I9)."""
    acme = tenant("acme", f"tokens/day={LIMIT}")
    async with start_billing(), quota_rig(postgres_dsn) as rig:
        await rig.set_quotas(acme)
        open_one, over = routed(300, 50), routed(100)
        log = NatsRequestLog(broker)
        for request in (open_one, over):
            await rig.gate.reserve(acme, request)
            await log.write_routed(request, source="/test", traceparent=None)
        await Operator(broker).publish(ended(over, 60))
        await Operator(broker).caught_up()
    async with quota_rig(postgres_dsn) as rig:
        await rig.postgres.fetch("truncate billing.usage")
        await rig.postgres.fetch("delete from billing.reservations")
        await rig.postgres.fetch("update billing.quota_use set reserved = 0")
        with pytest.raises(PenstockError) as away:
            await rig.gate.reserve(acme, routed(1))
        assert away.value.http_status == 503
        async with start_billing():

            async def admits() -> bool:
                with contextlib.suppress(PenstockError):
                    await rig.gate.reserve(acme, routed(1))
                    return True
                return False

            await eventually(admits)
            state = await rig.state()
            assert (state.settled, state.reserved) == (60, 351)
            await rig.check_sums()
