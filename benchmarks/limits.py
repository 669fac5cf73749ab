"""What it costs to know who calls and whether they may: limits in Redis and alone, credentials.

All four tiers are on, requests and tokens, so one check reads and writes eight buckets; none is
ever full. Callers are of sixteen tenants. Closed loop: each caller asks again when answered. For
comparison each caller gets a limiter of its own, so that no two share a step.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import uvloop
from pydantic import SecretStr

from benchmarks.harness import stack
from benchmarks.harness.arithmetic import median_of, percentile
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.report import Aim, Grid, Options, Report
from penstock_realtime.ports import TokenOrigin
from penstock_realtime.serving.authentication import Authentication
from penstock_realtime.serving.key_uses import KeyUses
from penstock_realtime.serving.tokens import Tokens
from penstock_shared.contracts.accounts import (
    IdentityProvider,
    KeyRecord,
    TenantRecord,
    hash_api_key,
    make_api_key,
)
from penstock_shared.runtime.access import AccessControl, Permission
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.rate_limit import Demand
from penstock_shared.runtime.redis_rate_limit import RedisRateLimiter
from penstock_shared.runtime.settings import LimitSettings

CONCURRENCIES: Final = (1, 16, 64)
REDIS_AIM_MS: Final = 0.3
AUTH_AIM_US: Final = 5.0
_PLENTY: Final = 100_000_000
_TENANTS: Final = 16
_LOOPS: Final = 20_000
_ISSUER: Final = "https://login.example"

Row = dict[str, float]


def run(options: Options) -> Report:
    """Measure every round: Redis at each concurrency, then what needs no server."""
    seconds = 0.5 if options.quick else 4.0
    rounds = options.rounds or (1 if options.quick else 3)
    found: dict[str, list[Row]] = {}
    alone: dict[str, list[float]] = {}
    with stack.running({"PENSTOCK_SERVICES": ""}) as running:
        addresses = json.loads((running.data_dir / "run.json").read_text())["addresses"]
        for _ in range(rounds):
            for concurrency in CONCURRENCIES:
                for shared in (True, False):
                    row = uvloop.run(
                        _against_redis(
                            str(addresses["redis"]),
                            running.pids["redis"],
                            concurrency,
                            seconds,
                            shared=shared,
                        )
                    )
                    name = f"{concurrency}" if shared else f"{concurrency}, each alone"
                    found.setdefault(name, []).append(row)
            for name, cpu_us in uvloop.run(_in_memory()).items():
                alone.setdefault(name, []).append(cpu_us)
    rows = {name: median_of(every) for name, every in found.items()}
    memory = {name: statistics.median(every) for name, every in alone.items()}
    return Report(
        name="limits",
        grids=[
            Grid(
                "Four tiers, requests and tokens, in Redis",
                ("callers", "p50 ms", "p99 ms", "checks/s", "CPU µs/check", "Redis µs/check"),
                tuple(
                    (name, f"{row['p50_ms']:.3f}", f"{row['p99_ms']:.3f}", *_counts(row))
                    for name, row in rows.items()
                ),
            ),
            Grid(
                "From memory",
                ("what", "CPU µs"),
                tuple((name, f"{cpu_us:.2f}") for name, cpu_us in memory.items()),
            ),
        ],
        figures={"redis": rows, "memory_cpu_us": memory},
        aims=_aims(rows["1"], memory),
    )


def _settings(redis_url: str | None) -> LimitSettings:
    return LimitSettings(
        nats_url=SecretStr("nats://none"),  # not used here
        redis_url=None if redis_url is None else SecretStr(redis_url),
        redis_timeout_s=5.0,
        global_requests_per_minute=_PLENTY,
        global_tokens_per_minute=_PLENTY,
        address_requests_per_minute=_PLENTY,
        address_tokens_per_minute=_PLENTY,
    )


def _demand(caller: int) -> Demand:
    tenant = TenantRecord(
        tenant=f"bench{caller % _TENANTS}",
        name="Benchmark",
        requests_per_minute=_PLENTY,
        tokens_per_minute=_PLENTY,
        user_requests_per_minute=_PLENTY,
        user_tokens_per_minute=_PLENTY,
        created_at=datetime.now(UTC),
    )
    return Demand(tenant, f"key_{caller}", f"192.0.2.{caller}", tokens=20)


async def _against_redis(url: str, pid: int, callers: int, seconds: float, *, shared: bool) -> Row:
    settings = _settings(url)
    failures: list[None] = []

    def limiter() -> RedisRateLimiter:
        return RedisRateLimiter(settings, time.monotonic, lambda: failures.append(None))

    limiters = [limiter()] * callers if shared else [limiter() for _ in range(callers)]
    demands = [_demand(caller) for caller in range(callers)]
    await asyncio.gather(*(one.take(demand) for one, demand in zip(limiters, demands, strict=True)))
    took_s: list[float] = []
    until_s = time.perf_counter() + seconds

    async def ask(one: RedisRateLimiter, demand: Demand) -> None:
        while (started_s := time.perf_counter()) < until_s:
            await one.take(demand)
            took_s.append(time.perf_counter() - started_s)

    redis_before_s, before_s = cpu_seconds({"redis": pid})["redis"], time.process_time()
    await asyncio.gather(*(ask(one, demand) for one, demand in zip(limiters, demands, strict=True)))
    spent_s = time.process_time() - before_s
    redis_spent_s = cpu_seconds({"redis": pid})["redis"] - redis_before_s
    await asyncio.gather(*(one.close() for one in limiters))
    if failures:
        msg = f"Redis did not answer {len(failures)} times"
        raise stack.StackError(msg)
    return {
        "p50_ms": percentile(took_s, 0.5) * 1000,
        "p99_ms": percentile(took_s, 0.99) * 1000,
        "per_s": len(took_s) / seconds,
        "cpu_us": spent_s / len(took_s) * 1e6,
        "redis_us": redis_spent_s / len(took_s) * 1e6,
    }


async def _in_memory() -> dict[str, float]:
    alone = RedisRateLimiter(_settings(None), time.monotonic, lambda: None)
    demand = _demand(0)
    authentication, key, token = await _authentication()
    by_key, by_token = f"Bearer {key}", f"Bearer {token}"
    return {
        "eight limits, without Redis": await _cpu_us(lambda: alone.take(demand)),
        "an API key": await _cpu_us(lambda: authentication.caller(by_key, Permission.WRITE)),
        "a JWT that was seen before": await _cpu_us(
            lambda: authentication.caller(by_token, Permission.WRITE)
        ),
    }


async def _cpu_us(call: Callable[[], Awaitable[Any]]) -> float:
    """The best of five: what others do to the caches is not the question."""
    spent_s = []
    for _ in range(5):
        before_s = time.process_time()
        for _ in range(_LOOPS):
            await call()
        spent_s.append(time.process_time() - before_s)
    return min(spent_s) / _LOOPS * 1e6


class _Mirror(dict[str, Any]):
    """A bucket in memory, without the watch that keeps it fresh."""


class _Provider:
    """Vouches for one token; how long checking a signature takes is not measured here."""

    def origin(self, _: str) -> TokenOrigin:
        return TokenOrigin(_ISSUER, frozenset(("penstock",)))

    async def verify(self, _: str, __: IdentityProvider) -> dict[str, Any]:
        return {"sub": "somebody", "exp": time.time() + 3600}


async def _authentication() -> tuple[Authentication, str, str]:
    clock = SystemClock()
    provider = IdentityProvider(issuer=_ISSUER, audiences=("penstock",), default_role="member")
    tenant = _demand(0).tenant.model_copy(update={"identity_providers": (provider,)})
    secret = make_api_key(os.urandom)
    key = KeyRecord(
        key_id="key_bench",
        tenant=tenant.tenant,
        name="Benchmark",
        hint=secret[-4:],
        created_at=clock.now(),
    )
    keys: Any = _Mirror({hash_api_key(secret): key})
    tenants: Any = _Mirror({tenant.tenant: tenant})
    access = AccessControl(keys, tenants, clock)
    tokens = Tokens(access, _Provider(), clock)
    tokens.on_tenant(tenant.tenant, tenant)
    desk: Any = None  # nothing is reported here
    return Authentication(access, tokens, KeyUses(desk, clock)), secret, f"e30.{'e' * 700}.c2ln"


def _counts(row: Row) -> tuple[str, ...]:
    return f"{row['per_s']:,.0f}", f"{row['cpu_us']:.0f}", f"{row['redis_us']:.0f}"


def _aims(single: Row, memory: dict[str, float]) -> Sequence[Aim]:
    credentials = max(cpu_us for name, cpu_us in memory.items() if "limits" not in name)
    return [
        Aim(
            f"the four tiers in Redis under {REDIS_AIM_MS} ms at p99, one at a time",
            f"{single['p99_ms']:.3f} ms",
            single["p99_ms"] < REDIS_AIM_MS,
        ),
        Aim(
            f"a credential from memory under {AUTH_AIM_US:.0f} µs of processor time",
            f"{credentials:.1f} µs",
            credentials < AUTH_AIM_US,
        ),
    ]
