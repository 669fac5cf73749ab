"""Quotas reserved: exactly, alone and in batches, against slices that a router leases (ADR 0021).

The exact ways write a reservation for each request; a lease is one write for many, and what a
router then takes of it is in its memory only. Nothing is metered meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import SecretStr

from benchmarks.harness import stack
from benchmarks.harness.report import Aim, Grid, Options, Report
from benchmarks.harness.reserving import reserving_request
from penstock_router.adapters.postgres_quotas import PostgresQuotas
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, QuotaUnit
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.reservations import reservations_json
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.postgres import Postgres

SUBMITTERS: Final = (1, 16, 64, 256)
TENANTS: Final = (1, 64)
RATE_AIM: Final = 1_500
_CONNECTIONS: Final = 8
_SLICE: Final = 10_000
"""Tokens that a lease takes: room for a hundred requests."""
_PRICE: Final = Price(input_microusd_per_1k=1, output_microusd_per_1k=2)
_QUOTA: Final = Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.DAY, limit=10**15)
_SLICES: Final = """
create table bench_slices (tenant text primary key, most bigint, leased bigint default 0)"""
_TENANT: Final = """
with added as (
    insert into billing.tenants
        (tenant, name, status, requests_per_minute, created_at, quotas)
    values ($1, $1, 'active', 1, now(), $2) on conflict do nothing
)
insert into bench_slices values ($1, 1000000000000000) on conflict do nothing"""
_RECOUNT: Final = "select billing.recount($1, date_trunc('month', now(), 'UTC')::date)"
_LEASE: Final = """
update bench_slices set leased = leased + $2 where tenant = $1 and leased + $2 <= most
returning 1"""

Reserving = Callable[[TenantRecord, RequestRouted], Awaitable[None]]


class Leases:
    """What a router would do that leases slices: a statement when a slice is used up."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._left: dict[str, int] = {}
        self._leasing: dict[str, asyncio.Lock] = {}

    async def reserve(self, tenant: TenantRecord, routed: RequestRouted) -> None:
        """Take it from the slice in memory."""
        tokens = sum(reserve.tokens for reserve in routed.reserves)
        async with self._leasing.setdefault(tenant.tenant, asyncio.Lock()):
            if self._left.get(tenant.tenant, 0) < tokens:
                await self._postgres.fetch(_LEASE, tenant.tenant, _SLICE)
                self._left[tenant.tenant] = _SLICE
            self._left[tenant.tenant] -= tokens


def run(options: Options) -> Report:
    """Every way in turn at each number of submitters and tenants."""
    with stack.running(stack.ECHO) as running:
        figures = asyncio.run(_measure(str(running.ready["postgres"]), options))
    rows = [
        (
            f["way"],
            str(f["tenants"]),
            str(f["submitters"]),
            f"{f['rate_per_s']:,.0f}",
            f"{f['p50_ms']:.2f}",
            f"{f['p99_ms']:.2f}",
        )
        for f in figures
    ]
    columns = ("reserved", "tenants", "submitters", "requests/s", "p50 ms", "p99 ms")
    best = max(f["rate_per_s"] for f in figures if f["way"] == "exact, in batches")
    return Report(
        name="quota_reservations",
        grids=[Grid("Reservations", columns, tuple(rows))],
        figures={"rows": figures},
        aims=[
            Aim(
                f"exact reservations keep up with one router ({RATE_AIM:,} requests/s)",
                f"{best:,.0f}/s",
                best >= RATE_AIM,
            )
        ],
    )


async def _measure(dsn: str, options: Options) -> list[dict[str, Any]]:
    duration_s = 0.5 if options.quick else 4.0
    postgres = await Postgres.connect(SecretStr(dsn), name="bench", connections=_CONNECTIONS)
    await postgres.fetch(_SLICES)
    one = await Postgres.prepare(SecretStr(dsn), name="router", connections=2)
    gate = PostgresQuotas(one, SystemClock())

    async def alone(_: TenantRecord, routed: RequestRouted) -> None:
        text = reservations_json([routed])
        await postgres.fetch("select * from billing.reserve($1::jsonb)", text)

    ways: dict[str, Reserving] = {
        "exact, in batches": gate.reserve,
        "exact, one by one": alone,
        "leased slices": Leases(postgres).reserve,
    }
    figures = []
    for _ in range(options.rounds or 1):
        for tenants in TENANTS:
            records = [await _tenant(postgres, f"bench{number}") for number in range(tenants)]
            for submitters in SUBMITTERS:
                for way, reserve in ways.items():
                    took = await _run(reserve, records, submitters, duration_s)
                    figures.append(
                        {"way": way, "tenants": tenants, "submitters": submitters} | took
                    )
    await gate.stop()
    await postgres.close()
    return figures


async def _run(
    reserve: Reserving, tenants: list[TenantRecord], submitters: int, duration_s: float
) -> dict[str, float]:
    took: list[float] = []
    started = time.perf_counter()

    async def submit(number: int) -> None:
        tenant = tenants[number % len(tenants)]
        while (before := time.perf_counter()) < started + duration_s:
            await reserve(tenant, _request(tenant.tenant))
            took.append(time.perf_counter() - before)
            await asyncio.sleep(0)

    await asyncio.gather(*(submit(number) for number in range(submitters)))
    elapsed_s = time.perf_counter() - started
    took.sort()
    return {
        "rate_per_s": len(took) / elapsed_s,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
    }


async def _tenant(postgres: Postgres, name: str) -> TenantRecord:
    quotas = f"[{_QUOTA.model_dump_json()}]"
    await postgres.fetch(_TENANT, name, quotas)
    await postgres.fetch(_RECOUNT, name)
    return TenantRecord(tenant=name, name=name, quotas=(_QUOTA,), created_at=datetime.now(UTC))


def _request(tenant: str) -> RequestRouted:
    return reserving_request(tenant, _PRICE, tokens=100, microusd=1)
