"""One request through the router: asked, decided, `routed` and its job on disk, answered.

One request at a time on one router, of a tenant without quotas and of one with quotas that are
never reached, in turn; the latter's are reserved in Postgres. Beside it, what no router can save:
the same client writes the bytes of both facts straight to the bus, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import uvloop

from benchmarks.harness import router_bench
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.report import Aim, Grid, Options, Report
from benchmarks.harness.router_bench import LIMITED_TENANT, TENANTS
from penstock_shared.contracts.quotas import MAX_AMOUNT, Quota, QuotaPeriod, QuotaUnit

AIM_MS: Final = 2.0
QUOTAS: Final = (
    Quota(unit=QuotaUnit.TOKENS, period=QuotaPeriod.DAY, limit=MAX_AMOUNT),
    Quota(unit=QuotaUnit.MICROUSD, period=QuotaPeriod.MONTH, limit=MAX_AMOUNT),
)
FREE: Final = "without a quota"
LIMITED: Final = "with two quotas"
BUS: Final = "both facts, straight to the bus"
_BLOCK: Final = 100
_FIRST: Final = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """How many blocks of requests of each kind."""

    blocks: int


FULL: Final = Plan(blocks=40)
QUICK: Final = Plan(blocks=3)


def run(options: Options) -> Report:
    """Blocks of each kind in turn: a noisy minute is noisy for all."""
    plan = QUICK if options.quick else FULL
    took_s = uvloop.run(_measure(plan.blocks * (options.rounds or 1)))
    p50_ms = percentile(took_s[FREE], 0.5) * 1000
    return Report(
        name="router_hop",
        grids=[_grid(took_s)],
        figures={name: _figures(values) for name, values in took_s.items()},
        aims=[
            Aim(f"the whole hop at most {AIM_MS:g} ms at p50", f"{p50_ms:.2f} ms", p50_ms <= AIM_MS)
        ],
    )


async def _measure(blocks: int) -> dict[str, list[float]]:
    took_s: dict[str, list[float]] = {FREE: [], LIMITED: [], BUS: []}
    async with router_bench.running(quotas=QUOTAS) as bench:
        for tenant in (*TENANTS[:1], LIMITED_TENANT):
            warm = await bench.prepare(_FIRST, [tenant])
            await bench.run(warm, 1, end=True)
        for _ in range(blocks):
            for name, tenant in ((FREE, TENANTS[0]), (LIMITED, LIMITED_TENANT)):
                load = await bench.run(await bench.prepare(_BLOCK, [tenant]), 1)
                took_s[name] += load.took_s
            alone = await bench.write(await bench.prepare(_BLOCK), warm[-1], 1)
            took_s[BUS] += alone.took_s
    return took_s


def _grid(took_s: dict[str, list[float]]) -> Grid:
    alone_s = percentile(took_s[BUS], 0.5)
    return Grid(
        "One request at a time",
        ("", "requests", "p50 ms", "p99 ms", "p50 against the bus alone"),
        tuple(
            (
                name,
                f"{len(values):,}",
                *(f"{percentile(values, share) * 1000:.2f}" for share in (0.5, 0.99)),
                f"{percentile(values, 0.5) / alone_s:.2f}",
            )
            for name, values in took_s.items()
        ),
    )


def _figures(values: list[float]) -> dict[str, Any]:
    return {
        "requests": len(values),
        "p50_ms": percentile(values, 0.5) * 1000,
        "p99_ms": percentile(values, 0.99) * 1000,
    }
