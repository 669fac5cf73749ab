"""Frames from the bus to many sockets through one core, against plain Starlette on the same server.

The edge numbers every delta, buffers it within its session's bound and can resume it; the peers do
nothing of it: Starlette that forwards from the bus, pushes from memory, and echoes. All have the
same server with the same options, one core and the same client. The rate is what was reached with
a window of unheard frames; client and bus share the other core, so the rate per second of the
server's own processor time says more about one core than the wall clock does.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import uvloop

from benchmarks.harness import edge_bench
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.edge_bench import Served
from benchmarks.harness.fan import Fan
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.raw_sockets import RawSocket, connect
from benchmarks.harness.report import Aim, Grid, Options, Report

TEXT: Final = "x" * 20
"""About what five tokens are."""
EVENT_BYTES: Final = 230
"""What such a delta is on the edge's wire: the peers' own frames have the same size."""
WINDOW: Final = 8
_WAIT_S: Final = 60.0
EDGE, FORWARD, PUSH, ECHO = (
    "edge",
    "Starlette, from the bus",
    "Starlette, from memory",
    "Starlette, echo",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much."""

    sockets: int
    frames: int
    rounds: int


FULL: Final = Plan(sockets=500, frames=200, rounds=3)
QUICK: Final = Plan(sockets=100, frames=60, rounds=1)


@dataclass(slots=True)
class Found:
    """Every round's figures."""

    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    delay_ms: list[float] = field(default_factory=list)
    """At p99, from publication to arrival, with the window full."""

    @property
    def per_core_s(self) -> float:
        """Frames per second of the server's processor time."""
        return 1e6 / statistics.median(self.cpu_us)


def run(options: Options) -> Report:
    """All four, in turn in every round."""
    plan = QUICK if options.quick else FULL
    found = {name: Found() for name in (EDGE, FORWARD, PUSH, ECHO)}
    for _ in range(options.rounds or plan.rounds):
        uvloop.run(_round(plan, found))
    return Report("edge_fanout", [_grid(plan, found)], _figures(found), _aims(found))


async def _round(plan: Plan, found: dict[str, Found]) -> None:
    async with edge_bench.running() as bench:
        async with bench.edge() as edge:
            fan = Fan(bench.broker, TEXT)
            await fan.attach_edge(bench, edge, plan.sockets)
            await _fanned(fan, edge, plan, found[EDGE])
        async with bench.plain() as plain:
            fan = Fan(bench.broker, "x" * (EVENT_BYTES - 80))
            await fan.attach_plain(plain, plan.sockets)
            await _fanned(fan, plain, plan, found[FORWARD])
            await _pushed(plain, plan, found[PUSH])
            await _echoed(plain, plan, found[ECHO])


async def _fanned(fan: Fan, served: Served, plan: Plan, found: Found) -> None:
    await fan.pump(plan.frames // 4, WINDOW)
    fan.delays_s.clear()
    frames = plan.frames * plan.sockets

    async def pump() -> None:
        await fan.pump(plan.frames, WINDOW)

    await _timed(served, frames, found, pump)
    found.delay_ms.append(percentile(fan.delays_s, 0.99) * 1000)
    fan.close()


async def _pushed(plain: Served, plan: Plan, found: Found) -> None:
    """Each socket asks once for all its frames."""
    sockets, heard = await _listening(plain, plan.sockets, "push")
    wanted = plan.frames * plan.sockets

    async def ask() -> None:
        for socket in sockets:
            socket.send(b"%d %d" % (plan.frames, EVENT_BYTES))
        await _until(lambda: sum(heard) >= wanted)

    await _timed(plain, wanted, found, ask)
    _cut(sockets)


async def _echoed(plain: Served, plan: Plan, found: Found) -> None:
    """Each socket sends a message for each frame."""
    sockets, heard = await _listening(plain, plan.sockets, "echo")

    async def ask() -> None:
        for n in range(1, plan.frames + 1):
            for socket in sockets:
                socket.send(b"x" * EVENT_BYTES)
            behind = 0 if n == plan.frames else WINDOW
            wanted = (n - behind) * plan.sockets
            await _until(lambda wanted=wanted: sum(heard) >= wanted)  # type: ignore[misc]

    await _timed(plain, plan.frames * plan.sockets, found, ask)
    _cut(sockets)


async def _listening(plain: Served, number: int, path: str) -> tuple[list[RawSocket], list[int]]:
    heard = [0] * number

    def counting(index: int) -> Callable[[int, bytes], None]:
        def on_frame(_: int, __: bytes) -> None:
            heard[index] += 1

        return on_frame

    url = f"ws://127.0.0.1:{plain.port}/{path}"
    return [await connect(url, "", counting(index)) for index in range(number)], heard


def _cut(sockets: list[RawSocket]) -> None:
    for socket in sockets:
        if socket.transport is not None:
            socket.transport.abort()


async def _timed(
    served: Served, frames: int, found: Found, work: Callable[[], Awaitable[None]]
) -> None:
    pids = {"server": served.pid}
    before_s, started_s = cpu_seconds(pids)["server"], perf_counter()
    await work()
    found.per_s.append(frames / (perf_counter() - started_s))
    found.cpu_us.append((cpu_seconds(pids)["server"] - before_s) * 1e6 / frames)


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(_WAIT_S):
        while not reached():  # noqa: ASYNC110  counters
            await asyncio.sleep(0.0005)


def _grid(plan: Plan, found: dict[str, Found]) -> Grid:
    rows = [
        (
            name,
            f"{statistics.median(one.per_s):,.0f}",
            f"{statistics.median(one.cpu_us):.1f}",
            f"{one.per_core_s:,.0f}",
            f"{statistics.median(one.delay_ms):.1f}" if one.delay_ms else "",
        )
        for name, one in found.items()
    ]
    columns = ("", "frames/s reached", "CPU µs/frame", "frames/s of one core", "p99 delay ms")
    return Grid(f"{plan.sockets} sockets, {plan.frames} frames each", columns, tuple(rows))


def _figures(found: dict[str, Found]) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            "frames_per_s": statistics.median(one.per_s),
            "cpu_us_per_frame": statistics.median(one.cpu_us),
            "frames_per_core_s": one.per_core_s,
            "p99_delay_ms": statistics.median(one.delay_ms) if one.delay_ms else None,
        }
        for name, one in found.items()
    }


def _aims(found: dict[str, Found]) -> list[Aim]:
    edge = found[EDGE].per_core_s
    return [
        Aim(
            f"at least as many frames per core as {name}",
            f"{edge / found[name].per_core_s:.2f} times",
            edge >= found[name].per_core_s,
        )
        for name in (FORWARD, ECHO)
    ]
