"""Requests per second through one router process, and what bounds them.

The router has a core to itself; the bus and the clients share the others. Beside each run the same
clients write the bytes of a request's `routed` and job straight to the bus, one after the
other, with as many requests at once: what the bus could take with no router before it. One more row
has every request ended at once, as workers would: a third fact on disk, and more for the router to
learn from. The last run samples where the router's time goes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.harness import router_bench
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.report import Aim, Grid, Options, Report
from benchmarks.harness.router_bench import Load

AT_ONCE: Final = (16, 64, 256)
ENDED: Final = "64, each ended"
AIM_PER_S: Final = 1_500
_FIRST: Final = 200
"""Requests before the clock starts: code is warmed up, each tenant's data key is read."""
_BUSY: Final = 0.9
"""A core that is used so much is what bounds the run."""
_SHOWN: Final = 25
_SAMPLED: Final = "benchmarks.harness.sampled"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    rounds: int
    requests: int


FULL: Final = Plan(rounds=3, requests=8_000)
QUICK: Final = Plan(rounds=1, requests=1_000)


def run(options: Options) -> Report:
    """Every concurrency in each round, the bus alone right after it; then the samples."""
    plan = QUICK if options.quick else FULL
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds or plan.rounds):
        uvloop.run(_round(plan, found))
    sampled = uvloop.run(_samples(plan))
    rows = {
        which: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for which, rows in found.items()
    }
    best = max(row["per_s"] for row in rows.values())
    return Report(
        name="router_throughput",
        grids=[_throughput(rows), _shares(sampled)],
        figures={"rows": rows, "samples": sampled},
        aims=[
            Aim(
                f"at least {AIM_PER_S:,} requests/s through one router process",
                f"{best:,.0f}",
                best >= AIM_PER_S,
            )
        ],
    )


async def _round(plan: Plan, found: dict[str, list[dict[str, float]]]) -> None:
    async with router_bench.running() as bench:
        await bench.run(await bench.prepare(_FIRST), 16, end=True)
        for at_once in AT_ONCE:
            requests = await bench.prepare(plan.requests)
            row = _row(await bench.run(requests, at_once))
            alone = await bench.write(await bench.prepare(plan.requests), requests[-1], at_once)
            row["bus_per_s"] = plan.requests / alone.lasted_s
            found.setdefault(str(at_once), []).append(row)
        ended = await bench.run(await bench.prepare(plan.requests), 64, end=True)
        found.setdefault(ENDED, []).append(_row(ended))


def _row(load: Load) -> dict[str, float]:
    requests = len(load.took_s)
    return {
        "per_s": requests / load.lasted_s,
        "p50_ms": percentile(load.took_s, 0.5) * 1000,
        "p99_ms": percentile(load.took_s, 0.99) * 1000,
        "router_busy": load.cpu_s["router"] / load.lasted_s,
        **{f"{name}_cpu_us": cpu_s / requests * 1e6 for name, cpu_s in load.cpu_s.items()},
    }


async def _samples(plan: Plan) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-samples-") as scratch:
        out = Path(scratch) / "samples.json"
        async with router_bench.running((_SAMPLED, str(out), "penstock_router")) as bench:
            await bench.run(await bench.prepare(_FIRST), 16, end=True)
            load = await bench.run(await bench.prepare(plan.requests), 64, end=True)
        counted: dict[str, int] = json.loads(out.read_text())
    busy = counted.pop("busy")
    cpu_us = load.cpu_s["router"] / len(load.took_s) * 1e6
    return {
        "cpu_us": cpu_us,
        "share": {name: samples / busy for name, samples in counted.items()},
    }


def _throughput(rows: dict[str, dict[str, float]]) -> Grid:
    columns = (
        *("in flight", "requests/s", "p50 ms", "p99 ms", "router µs", "bus µs", "clients µs"),
        *("router's core", "bus alone/s", "bound by"),
    )
    return Grid(
        "Through one router; CPU per request",
        columns,
        tuple(
            (
                which,
                f"{row['per_s']:,.0f}",
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                *(f"{row[f'{name}_cpu_us']:.0f}" for name in ("router", "bus", "clients")),
                f"{row['router_busy']:.0%}",
                f"{row['bus_per_s']:,.0f}" if "bus_per_s" in row else "",
                "router's CPU" if row["router_busy"] >= _BUSY else "bus and clients",
            )
            for which, row in rows.items()
        ),
    )


def _shares(sampled: dict[str, Any]) -> Grid:
    dearest = sorted(sampled["share"].items(), key=lambda one: -one[1])[:_SHOWN]
    return Grid(
        f"Where a router's {sampled['cpu_us']:.0f} µs go, sampled; what is called is included",
        ("function", "share", "µs/request"),
        tuple(
            (name, f"{share:.1%}", f"{share * sampled['cpu_us']:.0f}") for name, share in dearest
        ),
    )
