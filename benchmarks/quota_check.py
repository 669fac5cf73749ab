"""What a limit costs a request: to reserve before it is routed, and to settle when it is metered.

Beside them stands a statement that writes one row and commits: what the disk asks of everybody.
Settled are the requests that were reserved just before, one by one and in the batches in which a
backlog is metered. The prepaid tenant has a month of use in three models behind it, and three
grants of which one expires before the month's end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr

from benchmarks.harness import stack
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.report import Aim, Grid, Options, Report
from benchmarks.harness.reserving import reserving_request
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.ports.usage import MeteredUsage
from penstock_router.adapters.postgres_quotas import PostgresQuotas
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.plans import PlanTerms
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, QuotaUnit
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.migrations import migrate
from penstock_shared.runtime.postgres import Postgres

AIM_MS: Final = 1.0
SUBMITTERS: Final = (1, 16)
_BATCH: Final = 500
_MOST: Final = 10**15
_PRICE: Final = Price(input_microusd_per_1k=1_000, output_microusd_per_1k=1_000)
_TENANT: Final = """
insert into billing.tenants
    (tenant, name, status, requests_per_minute, created_at, quotas, limited_from)
values ($1, $1, 'active', 1, now(), $2, $3)"""
_PLAN: Final = """
insert into billing.subscriptions values ($1, $2, 'pay-as-you-go', 1, $3, now())"""
_GRANT: Final = """
insert into billing.grants
    (grant_id, tenant, kind, microusd, priority, expires_on, reference, granted_at)
values (gen_random_uuid(), $1, 'prepaid', 300000000000000, 1, $2, gen_random_uuid()::text, now())"""
_HISTORY: Final = """
insert into billing.usage_days
select $1, date_trunc('month', day)::date, day::date, 'text', 'model-' || model, 1, 1, 0, 1, 0, 9
from generate_series(date_trunc('month', $2::date::timestamp), $2::date - 1, '1 day') as day,
     generate_series(1, 3) as model"""
_BARE: Final = "insert into bench_commits default values"

Work = Callable[[], Awaitable[object]]


def run(options: Options) -> Report:
    """Each kind of tenant in turn."""
    with stack.running({"PENSTOCK_SERVICES": ""}) as running:
        figures = asyncio.run(_measure(running, options))
    columns = ("limits", "submitters", "what", "p50 ms", "p99 ms", "PostgreSQL's CPU, µs each")
    rows = tuple(
        (
            f["limits"],
            str(f["submitters"]),
            f["what"],
            f"{f['p50_ms']:.2f}",
            f"{f['p99_ms']:.2f}",
            f"{f['postgres_us']:.0f}",
        )
        for f in figures
    )
    alone = [f for f in figures if f["submitters"] == 1 and f["limits"] != "none"]
    return Report(
        name="quota_check",
        grids=[Grid("Reserving and settling", columns, rows)],
        figures={"rows": figures},
        aims=[
            Aim(
                f"p99 of '{what}' below {AIM_MS:g} ms",
                f"{worst:.2f} ms",
                worst < AIM_MS,
            )
            for what in ("reserve", "settle")
            if (worst := max(f["p99_ms"] for f in alone if f["what"] == what))
        ],
    )


async def _measure(servers: stack.Stack, options: Options) -> list[dict[str, Any]]:
    count = 100 if options.quick else 4_000
    dsn = SecretStr(str(servers.ready["postgres"]))
    postgres = await Postgres.connect(dsn, name="bench", connections=2)
    await migrate(postgres, "billing", "penstock_billing.adapters")
    await postgres.fetch("delete from billing.rebuild")
    await postgres.fetch("create table bench_commits (n bigint generated always as identity)")
    own = await Postgres.prepare(dsn, name="router", connections=1)
    gate, ledger = PostgresQuotas(own, SystemClock()), PostgresUsage(postgres)
    figures = []
    for number in range(options.rounds or 1):
        bare = await _time(servers, 1, count, lambda: postgres.fetch(_BARE))
        figures.append({"limits": "none", "submitters": 1, "what": "a row and a commit"} | bare)
        for limits, tenant in (
            ("one quota", await _tenant(postgres, f"one-{number}", 1)),
            ("three quotas", await _tenant(postgres, f"three-{number}", 3)),
            ("prepaid", await _prepaid(postgres, f"prepaid-{number}")),
        ):
            for submitters in SUBMITTERS:
                figures += [
                    {"limits": limits, "submitters": submitters} | figure
                    for figure in await _pair(servers, gate, ledger, tenant, submitters, count)
                ]
    await gate.stop()
    await postgres.close()
    return figures


async def _pair(
    servers: stack.Stack,
    gate: PostgresQuotas,
    ledger: PostgresUsage,
    tenant: TenantRecord,
    submitters: int,
    count: int,
) -> list[dict[str, Any]]:
    """Reserve, then settle what was reserved."""
    requests = [_request(tenant.tenant) for _ in range(count)]
    waiting = iter(requests)
    reserve = await _time(servers, submitters, count, lambda: gate.reserve(tenant, next(waiting)))
    rows = [_metered(request) for request in requests]
    if submitters == 1:
        ended = iter(rows)
        settle = await _time(servers, 1, count, lambda: ledger.record([next(ended)]))
        return [{"what": "reserve"} | reserve, {"what": "settle"} | settle]
    batches = iter([rows[n : n + _BATCH] for n in range(0, count, _BATCH)])
    many = await _time(servers, 1, -(-count // _BATCH), lambda: ledger.record(next(batches)))
    each = {**many, "postgres_us": many["postgres_us"] / min(_BATCH, count)}
    return [{"what": "reserve"} | reserve, {"what": f"settle {min(_BATCH, count)}"} | each]


async def _time(servers: stack.Stack, submitters: int, count: int, work: Work) -> dict[str, float]:
    """How long each took from call to answer; PostgreSQL's time is that of all its processes."""
    took: list[float] = []
    pids = {"postgres": servers.pids["postgres"]}

    async def submit(times: int) -> None:
        for _ in range(times):
            before = time.perf_counter()
            await work()
            took.append(time.perf_counter() - before)

    before_s = cpu_seconds(pids)["postgres"]
    await asyncio.gather(*(submit(count // submitters) for _ in range(submitters)))
    busy_s = cpu_seconds(pids)["postgres"] - before_s
    took.sort()
    return {
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
        "postgres_us": busy_s / len(took) * 1e6,
    }


async def _tenant(postgres: Postgres, name: str, quotas: int) -> TenantRecord:
    all_three = [(QuotaUnit.TOKENS, QuotaPeriod.DAY), (QuotaUnit.MICROUSD, QuotaPeriod.MONTH)]
    all_three.append((QuotaUnit.REQUESTS, QuotaPeriod.DAY))
    limits = tuple(
        Quota(unit=unit, period=period, limit=_MOST) for unit, period in all_three[:quotas]
    )
    text = ",".join(quota.model_dump_json() for quota in limits)
    await postgres.fetch(_TENANT, name, f"[{text}]", None)
    await _counted(postgres, name)
    return TenantRecord(tenant=name, name=name, quotas=limits, created_at=datetime.now(UTC))


async def _prepaid(postgres: Postgres, name: str) -> TenantRecord:
    since, today = date(2020, 1, 1), datetime.now(UTC).date()
    await postgres.fetch(_TENANT, name, "[]", since)
    terms = PlanTerms(title="Prepaid", included_microusd=10**9, overage=False)
    await postgres.fetch(_PLAN, name, since, terms.model_dump_json())
    for expires_on in (None, today, today + timedelta(days=60)):
        await postgres.fetch(_GRANT, name, expires_on)
    await postgres.fetch(_HISTORY, name, today)
    await _counted(postgres, name)
    return TenantRecord(tenant=name, name=name, limited_from=since, created_at=datetime.now(UTC))


async def _counted(postgres: Postgres, name: str) -> None:
    await postgres.fetch("select billing.recount($1, current_date)", name)


def _request(tenant: str) -> RequestRouted:
    return reserving_request(tenant, _PRICE, tokens=100, microusd=100)


def _metered(request: RequestRouted) -> MeteredUsage:
    return MeteredUsage(
        tenant=request.tenant,
        request_id=request.request_id,
        attempt=1,
        event_seq=1,
        model="m",
        key_id="bench",
        data_subject="bench",
        kind="text",
        status="completed",
        input_tokens=50,
        cached_input_tokens=0,
        output_tokens=30,
        tool_calls=0,
        cost_microusd=80,
        accepted_at=request.accepted_at,
        ended_at=request.accepted_at,
    )
