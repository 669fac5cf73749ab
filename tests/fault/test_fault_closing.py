"""Billing is killed at every statement of closing a month; whoever comes next finishes it (I2)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import pytest
from tests.support.invoicing import BORN, InvoiceRig, invoice_rig, metered
from tests.support.rating import charge

NOVEMBER = date(2026, 11, 1)
AFTER_GRACE = datetime(2026, 12, 1, 3, tzinfo=UTC)
STATEMENTS = 37
"""As many as closing makes with arguments: the last of them after the commit."""
DYING = """
import asyncio, os, signal, sys
from datetime import datetime
from asyncpg.connection import Connection
from pydantic import SecretStr
from tests.support.invoicing import HandClock, HandLog, InvoiceRig
from penstock_billing.adapters.postgres_roles import TenantPostgres, connect_platform

async def main(dsn, at, last):
    postgres = await connect_platform(SecretStr(dsn), 2)
    tenants = await TenantPostgres.connect(SecretStr(dsn), 1)
    rig = InvoiceRig(postgres, tenants, HandClock(datetime.fromisoformat(at)), HandLog(9, 9))
    run, count = Connection._do_execute, 0

    async def counted(*args, **kwargs):
        nonlocal count
        count += 1
        number = count
        done = await run(*args, **kwargs)
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Connection._do_execute = counted
    await rig.closing.look()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[InvoiceRig]:
    """A month with everything that closing writes: lines, credits, expiry, a carried amount."""
    async with invoice_rig(postgres_dsn) as made:
        made.log.end = made.log.read_up_to = 9
        await made.create()
        await made.subscribe(NOVEMBER, fee_microusd=300, tiers=(charge((10, 5), (None, 3)),))
        await made.grant(40, date(2026, 11, 3), "ends")
        await made.grant(50, None, "stays")
        await made.usage.record([metered(BORN, 30), metered(BORN, 70, model="large")])
        yield made


async def killed_at(dsn: str, statement: int) -> bool:
    """Whether closing had begun so many statements, and died after the last of them."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DYING, dsn, AFTER_GRACE.isoformat(), str(statement)
    )
    code = await process.wait()
    assert code in {0, -signal.SIGKILL}
    return code != 0


async def closed_once(rig: InvoiceRig) -> None:
    """One invoice with its transfers and uses; nothing is owed twice; the month stays closed."""
    rig.clock.at = AFTER_GRACE
    expected = await rig.preview("2026-11")
    await rig.closing.look()
    invoice = await rig.preview("2026-11")
    assert invoice.number == "acme-2026-11"
    assert (invoice.lines, invoice.due_microusd) == (expected.lines, expected.due_microusd)
    assert await rig.receivable(NOVEMBER) == invoice.due_microusd
    assert await rig.balanced()
    told = "select count(*) from billing.outbox where event_type like '%invoice_issued%'"
    assert await rig.postgres.fetchval(told) == 1
    used = "select coalesce(sum(microusd), 0) from billing.grant_uses"
    granted = "select coalesce(sum(used), 0) from billing.grants"
    assert await rig.postgres.fetchval(used) == await rig.postgres.fetchval(granted)
    assert await rig.closing.look() == 0


async def test_a_killed_closing_is_finished(rig: InvoiceRig, postgres_dsn: str) -> None:
    """Killed at some statements one after the other, then let go on: one invoice, one posting."""
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED", random.randrange(2**32)))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    rng = random.Random(seed)
    deaths = [await killed_at(postgres_dsn, n) for n in rng.sample(range(1, STATEMENTS + 1), 3)]
    print(f"killed: {deaths}")
    await closed_once(rig)


@pytest.mark.long
@pytest.mark.parametrize("statement", range(1, STATEMENTS + 1))
async def test_killed_at_each_statement(rig: InvoiceRig, postgres_dsn: str, statement: int) -> None:
    """The same at every single statement, with a correction that is carried over."""
    await rig.adjust(-1_000)
    await killed_at(postgres_dsn, statement)
    await closed_once(rig)
