"""Facts with usage into PostgreSQL, exactly once: how many a second on one core, and at what cost.

PostgreSQL and the process that meters share one core. `metering`: facts are in this process's
memory, as the consumer hands them over; the figure holds their parsing, the statement with all its
triggers (rows, sums by day, minute and user, ledger), the commit with its fsync. It does not hold
the bus: neither reading from it nor acknowledging.
`from EVENTS`: billing as it runs in production reads a backlog from the stream, half of it `routed`
facts that it passes over, and acknowledges after the commit; the bus has the other core.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import secrets
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

from benchmarks.harness import metered, service, stack
from benchmarks.harness.edge_bench import pin
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.report import Aim, Grid, Options, Report
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.handlers.usage import UsageIngest
from penstock_billing.settings import Settings
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.migrations import migrate
from penstock_shared.runtime.postgres import Postgres
from penstock_shared.runtime.provision import provision

AIM_PER_S: Final = 20_000
HISTORIES: Final = (0, 1_000_000, 10_000_000)
FACTS: Final = 100_000
BACKLOG: Final = 30_000
_AT_ONCE: Final = 500
"""Facts that are on their way to the stream at a time."""
_WITHIN_S: Final = 120.0
_READ: Final = "select coalesce(sum(requests), 0)::bigint from billing.usage_days"


def run(options: Options) -> Report:
    """With more and more history in the same database; then from the stream."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-billing-") as scratch,
        stack.running({"PENSTOCK_SERVICES": ""}) as servers,
    ):
        cores = _separate(servers)
        try:
            direct, whole = asyncio.run(_measure(servers, options, Path(scratch), cores))
        finally:
            pin(os.getpid(), cores)
    return _report(direct, whole)


async def _measure(
    servers: stack.Stack, options: Options, scratch: Path, cores: set[int]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    dsn = SecretStr(str(servers.ready["postgres"]))
    postgres = await Postgres.connect(dsn, name="bench", connections=2)
    await migrate(postgres, "billing", "penstock_billing.adapters")
    await postgres.fetch("delete from billing.rebuild")
    # As the role that the server's maker has: it may checkpoint, and has no time limit.
    admin = await asyncpg.connect(_superuser_dsn(servers))
    direct, there = [], 0
    rng = random.Random(1)
    for history in (0, 20_000) if options.quick else HISTORIES:
        await metered.add_history(admin, history - there, datetime.now(UTC))
        there = history
        for _ in range(options.rounds or 1):
            facts = list(metered.facts(rng, 4_000 if options.quick else FACTS, datetime.now(UTC)))
            direct.append({"history": history} | await _meter(postgres, facts, servers))
    backlog = 2_000 if options.quick else BACKLOG
    whole = {"history": there} | await _from_events(servers, admin, rng, backlog, scratch, cores)
    await admin.close()
    await postgres.close()
    return direct, whole


async def _meter(
    postgres: Postgres, facts: Sequence[metered.StoredFact], servers: stack.Stack
) -> dict[str, float]:
    """In the batches in which a backlog is read."""
    ingest = UsageIngest(
        PostgresUsage(postgres),
        _refuse,
        random.Random(1),
        asyncio.sleep,
    )
    deliveries = [_delivery(number, fact) for number, fact in enumerate(facts, 1)]
    limit = Settings.model_fields["batch_limit"].default
    before = _cpu_s(servers)
    started_s = time.perf_counter()
    for first in range(0, len(deliveries), limit):
        await ingest.on_batch(deliveries[first : first + limit])
    elapsed_s = time.perf_counter() - started_s
    python_s, postgres_s = (now - then for now, then in zip(_cpu_s(servers), before, strict=True))
    count = len(facts)
    return {
        "facts_per_s": count / elapsed_s,
        "python_us": python_s / count * 1e6,
        "postgres_us": postgres_s / count * 1e6,
    }


async def _from_events(
    servers: stack.Stack,
    admin: Any,
    rng: random.Random,
    count: int,
    scratch: Path,
    cores: set[int],
) -> dict[str, float]:
    """A backlog is there when billing starts; timed from the first batch that is committed."""
    await _publish(servers, list(metered.facts(rng, count, datetime.now(UTC))))
    there = await admin.fetchval(_READ)
    root_key_file = scratch / "root.key"
    root_key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    env = {
        "PENSTOCK_NATS_URL": servers.bus_url,
        "PENSTOCK_POSTGRES_DSN": str(servers.ready["postgres"]),
        "PENSTOCK_ROOT_KEY_FILE": str(root_key_file),
    }
    watching = asyncio.create_task(_watch(admin, there, there + count))
    with service.running(["penstock_billing"], env, scratch):  # on our core: it inherits it
        pin(os.getpid(), cores - {min(cores)} or cores)
        rate_per_s = await watching
    pin(os.getpid(), {min(cores)})
    return {"facts_per_s": rate_per_s}


async def _watch(admin: Any, there: int, until: int) -> float:
    started_s, started = 0.0, there
    async with asyncio.timeout(_WITHIN_S):
        while (read := await admin.fetchval(_READ)) < until:
            if started == there < read:
                started_s, started = time.perf_counter(), read
            await asyncio.sleep(0.02)
    return float(until - started) / (time.perf_counter() - started_s)


async def _publish(servers: stack.Stack, facts: Sequence[metered.StoredFact]) -> None:
    broker = await Broker.connect(servers.bus_url, name="bench")
    await provision(broker, 1)
    room = asyncio.Semaphore(_AT_ONCE)

    async def publish(fact: metered.StoredFact) -> None:
        async with room:
            for stored in (metered.routed_before(fact), fact):
                await broker.jetstream.publish(
                    stored.subject, stored.payload, headers=stored.headers, timeout=_WITHIN_S
                )

    await asyncio.gather(*map(publish, facts))
    await broker.close()


def _separate(servers: stack.Stack) -> set[int]:
    """PostgreSQL and this process on one core, the bus on the others; returns all of them."""
    cores = os.sched_getaffinity(0)
    one = {min(cores)}
    postgres = int(servers.pids["postgres"])
    children = Path(f"/proc/{postgres}/task/{postgres}/children").read_text().split()
    for pid in (os.getpid(), postgres, *map(int, children)):
        pin(pid, one)
    pin(int(servers.pids["nats"]), cores - one or cores)
    return cores


def _cpu_s(servers: stack.Stack) -> tuple[float, float]:
    return time.process_time(), cpu_seconds({"postgres": servers.pids["postgres"]})["postgres"]


def _delivery(number: int, fact: metered.StoredFact) -> Delivery:
    async def ack() -> None:
        """Nobody is told."""

    msg: Any = SimpleNamespace(ack=ack)
    return Delivery(
        msg=msg,
        subject=fact.subject,
        data=fact.payload,
        headers=fact.headers,
        sequence=number,
        deliveries=1,
        stored_ns=time.time_ns(),
    )


async def _refuse(_: Delivery, error: PenstockError) -> None:
    raise error


def _superuser_dsn(servers: stack.Stack) -> str:
    place = str(servers.ready["postgres"]).rpartition("@")[2]
    password = servers.secret("postgres_superuser_password")
    return f"postgresql://postgres:{password}@{place}"


def _report(direct: list[dict[str, Any]], whole: dict[str, Any]) -> Report:
    rows = [
        (
            "metering",
            f"{f['history']:,}",
            f"{f['facts_per_s']:,.0f}",
            f"{f['python_us']:.1f}",
            f"{f['postgres_us']:.1f}",
        )
        for f in direct
    ]
    rows.append(("from EVENTS", f"{whole['history']:,}", f"{whole['facts_per_s']:,.0f}", "", ""))
    columns = ("what", "attempts before", "facts with usage/s", "Python µs", "PostgreSQL µs")
    grown = [f["facts_per_s"] for f in direct if f["history"]]
    return Report(
        name="billing_ingest",
        grids=[Grid("Usage into PostgreSQL, exactly once, on one core", columns, tuple(rows))],
        figures={"metering": direct, "from_events": whole},
        aims=[
            Aim(
                f"{AIM_PER_S:,} facts/s on one core, whatever was there before",
                f"{min(grown):,.0f}/s at the least",
                min(grown) >= AIM_PER_S,
            )
        ],
    )
