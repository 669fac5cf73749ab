"""What an idle WebSocket costs the edge, with its session, and how fast they open.

Memory is the edge's proportional set size with all sockets open, minus before, divided by their
number. Opening includes authentication, the session and its write to Redis.
"""

from __future__ import annotations

import asyncio
import statistics
from time import perf_counter
from typing import Final

import uvloop

from benchmarks.harness import edge_bench
from benchmarks.harness.edge_bench import EdgeBench
from benchmarks.harness.processes import cpu_seconds, pss_bytes
from benchmarks.harness.raw_sockets import RawSocket, connect
from benchmarks.harness.report import Aim, Grid, Options, Report

SOCKETS, FEW_SOCKETS = 5000, 500
AT_ONCE: Final = 50
AIM_KB: Final = 32.0
_SETTLE_S: Final = 3.0
_WARM_SOCKETS: Final = 50


def run(options: Options) -> Report:
    """Open them all, wait until all is quiet, look."""
    number = FEW_SOCKETS if options.quick else SOCKETS
    rows = [uvloop.run(_measure(number)) for _ in range(options.rounds or 1)]
    kb, opened_s, cpu_us = (statistics.median(column) for column in zip(*rows, strict=True))
    grid = Grid(
        f"{number} idle WebSockets",
        ("", "kB/socket", "opened in s", "sockets/s", "CPU µs each"),
        (("edge", f"{kb:.1f}", f"{opened_s:.2f}", f"{number / opened_s:,.0f}", f"{cpu_us:.0f}"),),
    )
    figures = {"sockets": number, "kb_per_socket": kb, "opened_s": opened_s, "cpu_us_each": cpu_us}
    aim = Aim(f"at most {AIM_KB:g} kB a socket with its session", f"{kb:.1f} kB", kb <= AIM_KB)
    return Report("edge_connections", [grid], figures, [aim])


async def _measure(number: int) -> tuple[float, float, float]:
    async with edge_bench.running() as bench, bench.edge() as edge:
        url = f"ws://127.0.0.1:{edge.port}/v1/responses"
        warm = await _open(bench, url, _WARM_SOCKETS)  # pools and imports
        await asyncio.sleep(_SETTLE_S)
        pids = {"edge": edge.pid}
        before, cpu_before_s, started_s = pss_bytes(pids), cpu_seconds(pids), perf_counter()
        sockets = await _open(bench, url, number)
        opened_s = perf_counter() - started_s
        cpu_s = cpu_seconds(pids)["edge"] - cpu_before_s["edge"]
        await asyncio.sleep(_SETTLE_S)
        grown = pss_bytes(pids)["edge"] - before["edge"]
        for socket in (*warm, *sockets):
            if socket.transport is not None:
                socket.transport.abort()
    return grown / number / 1000, opened_s, cpu_s * 1e6 / number


async def _open(bench: EdgeBench, url: str, number: int) -> list[RawSocket]:
    sockets: list[RawSocket] = []
    while len(sockets) < number:
        batch = min(AT_ONCE, number - len(sockets))
        sockets += await asyncio.gather(*(connect(url, bench.key) for _ in range(batch)))
    return sockets
