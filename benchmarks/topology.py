"""One NATS server or three on one machine: which the embedded stack should start.

First the bus alone, configured as `penstock up` configures it (fsync on every write): publishes of
400 bytes that are acknowledged, to one stream, to several streams of one server, to one stream
that three servers replicate. Then the whole path, with what each costs in memory and start-up.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import uvloop
from nats.js import api

from benchmarks.end_to_end import AIM_CONCURRENCY, WARM_UP_S, measure_once, target_of
from benchmarks.harness import stack
from benchmarks.harness.arithmetic import median_of, percentile
from benchmarks.harness.load import measure
from benchmarks.harness.processes import cpu_seconds, pss_bytes
from benchmarks.harness.report import Grid, Options, Report
from penstock_shared.runtime.broker import PUBLISH_TIMEOUT_S, Broker

CONCURRENCIES: Final = (1, 16, 64)
PAYLOAD: Final = bytes(400)
_BUS_ALONE: Final = ""
_MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A topology of the embedded bus, and over how many streams publishes are spread."""

    topology: str
    streams: int

    @property
    def replicas(self) -> int:
        """Copies of each stream."""
        return 3 if self.topology == "cluster3" else 1

    def __str__(self) -> str:
        servers = "three servers, R3" if self.replicas == 3 else "one server"
        return f"{servers}, {self.streams} {'stream' if self.streams == 1 else 'streams'}"


ARRANGEMENTS: Final = (
    Arrangement("single", 1),
    Arrangement("single", 2),
    Arrangement("single", 4),
    Arrangement("cluster3", 1),
)
TOPOLOGIES: Final = ("single", "cluster3")

Rows = dict[tuple[str, int], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    concurrencies: tuple[int, ...]
    publish_s: float
    requests_s: float
    rounds: int


FULL: Final = Plan(CONCURRENCIES, publish_s=5.0, requests_s=10.0, rounds=3)
QUICK: Final = Plan((1, 16), publish_s=2.0, requests_s=3.0, rounds=1)


def run(options: Options) -> Report:
    """Every arrangement and topology in turn, in rounds; a figure is the rounds' median."""
    plan = QUICK if options.quick else FULL
    repeats = options.rounds or plan.rounds
    publishes: defaultdict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    requests: defaultdict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    costs: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(repeats):
        for arrangement in ARRANGEMENTS:
            for concurrency, row in _bus_alone(arrangement, plan).items():
                publishes[str(arrangement), concurrency].append(row)
        for topology in TOPOLOGIES:
            rows, cost = _whole_path(topology, plan)
            costs[topology].append(cost)
            for concurrency, row in rows.items():
                requests[topology, concurrency].append(row)
    published = {key: median_of(rows) for key, rows in publishes.items()}
    answered = {key: median_of(rows) for key, rows in requests.items()}
    cost_of = {name: median_of(rows) for name, rows in costs.items()}
    return Report(
        name="topology",
        grids=[_publishes_grid(published), _requests_grid(answered), _costs_grid(cost_of)],
        figures={
            "publishes": _flat(published),
            "requests": _flat(answered),
            "costs": cost_of,
            "rounds": repeats,
        },
    )


def _bus_alone(arrangement: Arrangement, plan: Plan) -> dict[int, dict[str, float]]:
    env = {"PENSTOCK_SERVICES": _BUS_ALONE, "PENSTOCK_NATS_TOPOLOGY": arrangement.topology}
    with stack.running(env) as running:
        return uvloop.run(_publish_all(running, arrangement, plan))


async def _publish_all(
    running: stack.Stack, arrangement: Arrangement, plan: Plan
) -> dict[int, dict[str, float]]:
    broker = await Broker.connect(running.bus_url, name="benchmark")
    try:
        subjects = [f"benchmark.{number}" for number in range(arrangement.streams)]
        for number, subject in enumerate(subjects):
            await broker.jetstream.add_stream(
                api.StreamConfig(
                    name=f"BENCHMARK-{number}",
                    subjects=[subject],
                    storage=api.StorageType.FILE,
                    num_replicas=arrangement.replicas,
                )
            )
        await _publish(broker, subjects, AIM_CONCURRENCY, plan.publish_s / 4)  # warm up
        found = {}
        for concurrency in plan.concurrencies:
            before_s = _bus_cpu_s(running)
            row = await _publish(broker, subjects, concurrency, plan.publish_s)
            row["bus_cpu_ms"] = (_bus_cpu_s(running) - before_s) * 1000 / row.pop("publishes")
            found[concurrency] = row
        return found
    finally:
        await broker.close()


async def _publish(
    broker: Broker, subjects: list[str], concurrency: int, duration_s: float
) -> dict[str, float]:
    """A closed loop: each publisher waits for its ack, then takes the next stream in turn."""
    turn = itertools.cycle(subjects)
    latencies_s: list[float] = []
    started_s = perf_counter()

    async def publisher() -> None:
        while (sent_s := perf_counter()) < started_s + duration_s:
            ack = await broker.client.request(next(turn), PAYLOAD, timeout=PUBLISH_TIMEOUT_S)
            if b'"error"' in ack.data:
                raise stack.StackError(ack.data.decode())
            latencies_s.append(perf_counter() - sent_s)

    await asyncio.gather(*(publisher() for _ in range(concurrency)))
    return {
        "publishes": len(latencies_s),
        "publishes_per_s": len(latencies_s) / (perf_counter() - started_s),
        "p50_ms": percentile(latencies_s, 0.5) * 1000,
        "p99_ms": percentile(latencies_s, 0.99) * 1000,
    }


def _whole_path(topology: str, plan: Plan) -> tuple[dict[int, dict[str, float]], dict[str, float]]:
    """Requests by concurrency, and what the topology costs besides."""
    with stack.running({**stack.ECHO, "PENSTOCK_NATS_TOPOLOGY": topology}) as running:
        target = target_of(running)
        idle = pss_bytes(_bus_pids(running))
        measure(target.call, AIM_CONCURRENCY, WARM_UP_S)
        target.settle()
        rows = {}
        for concurrency in plan.concurrencies:
            row = measure_once(target, concurrency, plan.requests_s)
            row["bus_cpu_ms"] = sum(row[f"cpu_ms:{name}"] for name in _bus_pids(running))
            rows[concurrency] = row
        return rows, {
            "start_s": running.start_s,
            "bus_idle_mb": sum(idle.values()) / _MB,
            "bus_loaded_mb": sum(pss_bytes(_bus_pids(running)).values()) / _MB,
        }


def _bus_pids(running: stack.Stack) -> dict[str, int]:
    return {name: pid for name, pid in running.pids.items() if name.startswith("nats")}


def _bus_cpu_s(running: stack.Stack) -> float:
    return sum(cpu_seconds(_bus_pids(running)).values())


def _flat(rows: Rows) -> list[dict[str, str | float]]:
    return [{"what": what, "concurrency": number, **row} for (what, number), row in rows.items()]


def _publishes_grid(rows: Rows) -> Grid:
    return _grid("Acknowledged publishes of 400 B, bus alone", "publish", "publishes", rows)


def _requests_grid(rows: Rows) -> Grid:
    return _grid("Whole path", "request", "requests", rows)


def _grid(title: str, one: str, many: str, rows: Rows) -> Grid:
    columns = ("bus", "in flight", f"{many}/s", "p50 ms", "p99 ms", f"bus CPU ms/{one}")
    cells = tuple(
        (
            name,
            str(concurrency),
            f"{row[f'{many}_per_s']:,.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            f"{row['bus_cpu_ms']:.2f}",
        )
        for (name, concurrency), row in rows.items()
    )
    return Grid(title, columns, cells)


def _costs_grid(costs: dict[str, dict[str, float]]) -> Grid:
    columns = ("bus", "start of the stack s", "bus memory idle MB", "bus memory after load MB")
    cells = tuple(
        (name, f"{row['start_s']:.1f}", f"{row['bus_idle_mb']:.0f}", f"{row['bus_loaded_mb']:.0f}")
        for name, row in costs.items()
    )
    return Grid("What it costs", columns, cells)
