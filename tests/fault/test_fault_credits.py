"""`kill -9` of PostgreSQL and of billing while 200 submitters use prepaid credit up (I4).

`PENSTOCK_FAULT_SEED=<n>` replays a run's choices: who dies when, and what requests cost.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.billing import Operator, eventually
from tests.support.credits import asked, cost, grant, left, prepaid
from tests.support.quotas import QuotaRig, quota_rig
from tests.support.service_process import ServiceProcess
from tests.support.stack import Stack

from penstock_billing.adapters.postgres_months import PostgresMonths
from penstock_billing.domain.invoicing import draw_up
from penstock_billing.domain.plans import month_start
from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.handlers.orphans import Orphans
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import PenstockError, RateLimitedError
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock

SUBMITTERS = 200
EACH = 10
INCLUDED, GRANTS = 500, (500, 250)


@pytest.fixture
async def billing(
    broker: Broker, nats_url: str, postgres_dsn: str, tmp_path: Path
) -> AsyncIterator[ServiceProcess]:
    """In a process of its own; it has made its tables."""
    key = tmp_path / "root.key"
    key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    process = ServiceProcess(
        "penstock_billing",
        log_file=tmp_path / "billing.log",
        settings={
            "nats_url": nats_url,
            "postgres_dsn": postgres_dsn,
            "root_key_file": key,
            "batch_linger_s": 0.01,
            "position_interval_s": 0.1,
        },
    )
    await process.start()

    async def answers() -> bool:
        with contextlib.suppress(PenstockError):
            command = CreateTenant(tenant="globex", name="Globex")
            await Operator(broker).command("create-tenant", command)
            return True
        return False

    await eventually(answers, 30)
    yield process
    await process.stop()


class Submitters:
    """Clients of one tenant, and the workers that run what was let in."""

    def __init__(self, rig: QuotaRig, acme: TenantRecord, broker: Broker, seed: int) -> None:
        self._rig, self._acme = rig, acme
        self._log, self._operator = NatsRequestLog(broker), Operator(broker)
        self._rng = random.Random(seed)
        self.full = asyncio.Event()
        self.used = 0

    async def submit(self) -> None:
        """Until what is left is too little, for good."""
        while not self.full.is_set():
            request = asked(EACH)
            try:
                await self._rig.gate.reserve(self._acme, request)
            except RateLimitedError as error:
                if error.retry_after_s > 1:
                    self.full.set()
                await asyncio.sleep(0.05)
            except PenstockError:
                await asyncio.sleep(0.05)
            else:
                await self._log.write_routed(request, source="/test", traceparent=None)
                spent = self._rng.randrange(1, EACH + 1)
                await self._operator.publish(cost(request, spent))
                self.used += spent


async def test_no_death_lets_a_tenant_use_more_than_it_has(
    billing: ServiceProcess, broker: Broker, servers: Stack, postgres_dsn: str
) -> None:
    """Not by one micro-dollar, at any instant; all of it can be used, and the invoice is paid."""
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    rng = random.Random(seed)
    async with quota_rig(postgres_dsn) as rig:
        acme = await prepaid(rig, included=INCLUDED)
        for microusd in GRANTS:
            await grant(rig, microusd)
        covered = await left(rig)
        sweeping = Orphans(
            rig.gate, NatsRequestLog(broker), SystemClock(), source="/test", grace_s=-3600
        )
        clients = Submitters(rig, acme, broker, seed)
        running = [asyncio.create_task(clients.submit()) for _ in range(SUBMITTERS)]
        await _kill(billing, servers, rng)
        async with asyncio.timeout(60):
            while not clients.full.is_set():
                with contextlib.suppress(PenstockError, OSError):
                    await sweeping.look()
                    await _check_bound(rig, covered)
                await asyncio.sleep(0.1)
        await asyncio.gather(*running)

        async def nothing_held() -> bool:
            await sweeping.look()
            return await rig.open_rows() == 0

        await eventually(nothing_held, 30)
        await rig.check_sums()
        assert await left(rig) == covered - clients.used
        assert covered - EACH < clients.used <= covered
        async with rig.postgres.acquire() as connection:
            month = PostgresMonths(connection, "acme")
            records = await month.records(month_start(datetime.now(UTC).date()))
            drawn = draw_up(records, await month.grants(), 0)
        assert (drawn.invoice.usage_microusd, drawn.invoice.due_microusd) == (clients.used, 0)


async def _kill(billing: ServiceProcess, servers: Stack, rng: random.Random) -> None:
    """Each of them, and billing once more when it may be reading what it has read before."""
    victims = ["billing", "postgres", "billing"]
    rng.shuffle(victims)
    for victim in victims:
        await asyncio.sleep(rng.uniform(0.05, 0.4))
        if victim == "postgres":
            servers.kill("postgres")
        else:
            billing.signal(signal.SIGKILL)
            await billing.died()
            await billing.start()


async def _check_bound(rig: QuotaRig, covered: int) -> None:
    (row,) = await rig.postgres.fetch(
        "select sum(settled + reserved) as taken from billing.quota_use"
        " where tenant = 'acme' and unit = 'microusd'"
    )
    assert (row["taken"] or 0) <= covered
