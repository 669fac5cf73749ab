"""What the edge adds to the first token and to every frame, against reading them from the bus.

The same client asks both ways, in turn. Straight from the bus: it subscribes to the response's
subject, asks the router, and reads the frames. Through the edge: a WebSocket and the API. The
router answers at once and the first frame follows its answer; the worker's part is left out of
both. Frames are published at a fixed pace to all responses at once, and each is timed from its
publication to its arrival on either way.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import uvloop
from nats.aio.msg import Msg

from benchmarks.harness import edge_bench
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.edge_bench import MODEL, TENANT
from benchmarks.harness.fan import Fan
from benchmarks.harness.report import Grid, Options, Report
from penstock_shared.contracts import subjects
from penstock_shared.contracts.ids import uuid7
from penstock_shared.contracts.requests import Admission, Sampling
from penstock_shared.contracts.responses import decode_delta
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker

CONCURRENCIES: Final = (1, 32, 256)
TEXT: Final = "x" * 20
PAUSE_S: Final = 0.05
"""Between the frames of one response: twenty a second."""
FIRSTS: Final = 64
"""First tokens per round, at least."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    rounds: int
    frames: int


FULL: Final = Plan(rounds=3, frames=300)
QUICK: Final = Plan(rounds=1, frames=60)


@dataclass(slots=True)
class Found:
    """All rounds' delays at one concurrency, in milliseconds."""

    first_edge: list[float] = field(default_factory=list)
    first_bus: list[float] = field(default_factory=list)
    frame_edge: list[float] = field(default_factory=list)
    frame_bus: list[float] = field(default_factory=list)


def run(options: Options) -> Report:
    """All concurrencies, in rounds."""
    plan = QUICK if options.quick else FULL
    found = {concurrency: Found() for concurrency in CONCURRENCIES}
    for _ in range(options.rounds or plan.rounds):
        for concurrency, one in found.items():
            uvloop.run(_round(plan, concurrency, one))
    return Report("edge_overhead", [_grid(found)], _figures(found))


async def _round(plan: Plan, concurrency: int, found: Found) -> None:
    async with edge_bench.running() as bench, bench.edge() as edge:
        reader = await Broker.connect(bench.bus_url, name="reader")
        for warm in (True, False):
            fan = Fan(bench.broker, TEXT)
            for _ in range(1 if warm else max(1, FIRSTS // concurrency)):
                fan.close()
                fan.ears.clear()
                first_edge_s = await fan.attach_edge(bench, edge, concurrency)
                first_bus_s = await asyncio.gather(*(_asked(reader, n) for n in range(concurrency)))
                if not warm:
                    found.first_edge += [value * 1000 for value in first_edge_s]
                    found.first_bus += [value * 1000 for value in first_bus_s]
            heard_s = await _both(reader, fan, plan.frames // 10 if warm else plan.frames)
            fan.close()
        found.frame_edge += [value * 1000 for value in fan.delays_s]
        found.frame_bus += [value * 1000 for value in heard_s]
        await reader.close()


async def _asked(reader: Broker, number: int) -> float:
    """The first delta of a request that went straight to the router."""
    request_id = uuid7(number, os.urandom)
    first: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_frame(_: Msg) -> None:
        if not first.done():
            first.set_result(perf_counter())

    admission = Admission(
        request_id=request_id,
        key_id="key_bench",
        data_subject="key_bench",
        model=MODEL,
        lane=Lane.INTERACTIVE,
        sampling=Sampling(),
        content="x",
    )
    sent_s = perf_counter()
    subscription = await reader.client.listen(subjects.responses(TENANT, request_id), on_frame)
    await reader.client.request(subjects.admitted(TENANT), admission.model_dump_json().encode(), 10)
    async with asyncio.timeout(10):
        took_s = await first - sent_s
    await subscription.unsubscribe()
    return took_s


async def _both(reader: Broker, fan: Fan, frames: int) -> list[float]:
    """The same frames straight from the bus, while the edge's sockets hear them, too."""
    heard_s: list[float] = []

    def on_frame(msg: Msg) -> None:
        delta = decode_delta(msg.data)
        if delta is not None:
            heard_s.append(perf_counter() - fan.sent_s[delta.n])

    for ear in fan.ears:
        await reader.client.listen(ear.subject, on_frame)
    await reader.client.flush()
    await fan.pump(frames, frames, PAUSE_S)
    return heard_s


def _grid(found: dict[int, Found]) -> Grid:
    rows = []
    for concurrency, one in found.items():
        for what, edge, bus in (
            ("first token", one.first_edge, one.first_bus),
            ("frame", one.frame_edge, one.frame_bus),
        ):
            ways = [f"{percentile(way, share):.2f}" for way in (bus, edge) for share in (0.5, 0.99)]
            added = statistics.median(edge) - statistics.median(bus)
            rows.append((f"{concurrency}, {what}", *ways, f"{added:.2f}"))
    columns = ("responses at once", "bus p50 ms", "p99", "edge p50 ms", "p99", "added at p50")
    return Grid("From the request, or from publication, to arrival", columns, tuple(rows))


def _figures(found: dict[int, Found]) -> dict[str, Any]:
    return {
        str(concurrency): {
            f"{name}_{quantile}_ms": percentile(values, share)
            for name, values in (
                ("first_edge", one.first_edge),
                ("first_bus", one.first_bus),
                ("frame_edge", one.frame_edge),
                ("frame_bus", one.frame_bus),
            )
            for quantile, share in (("p50", 0.5), ("p99", 0.99))
        }
        for concurrency, one in found.items()
    }
