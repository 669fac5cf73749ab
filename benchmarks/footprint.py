"""Time until everything is ready, and memory of all processes together when nothing happens."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.harness import stack
from benchmarks.harness.processes import pss_bytes
from benchmarks.harness.report import Aim, Grid, Options, Report

START_AIM_S: Final = 8.0
MEMORY_AIM_MB: Final = 600.0
_MB: Final = 1e6


def run(options: Options) -> Report:
    """Start cold once, then warm; look at memory after a while of idling."""
    starts, idle_s = (1, 5.0) if options.quick else (5, 30.0)
    with tempfile.TemporaryDirectory(prefix="penstock-footprint-") as scratch:
        data_dir = Path(scratch) / "data"
        with stack.running(data_dir=data_dir) as first:
            cold_s = first.start_s
        warm_s: list[float] = []
        for _ in range(starts):
            with stack.running(data_dir=data_dir) as running:
                warm_s.append(running.start_s)
                if len(warm_s) == starts:
                    time.sleep(idle_s)
                    memory = pss_bytes(running.pids)
    total_mb, median_s = sum(memory.values()) / _MB, statistics.median(warm_s)
    by_size = sorted(memory.items(), key=lambda one: -one[1])
    return Report(
        name="footprint",
        grids=[
            Grid(
                "From `penstock up` to ready",
                ("start", "seconds"),
                (
                    ("fresh data directory", f"{cold_s:.2f}"),
                    (f"existing one, median of {starts}", f"{median_s:.2f}"),
                ),
            ),
            Grid(
                f"Memory (PSS) after {idle_s:.0f} s of idling",
                ("process", "MB"),
                (
                    *((name, f"{size / _MB:.0f}") for name, size in by_size),
                    ("together", f"{total_mb:.0f}"),
                ),
            ),
        ],
        figures={
            "cold_start_s": cold_s,
            "warm_start_s": warm_s,
            "idle_pss_mb": {name: size / _MB for name, size in by_size},
            "idle_pss_total_mb": total_mb,
        },
        aims=[
            Aim("ready within 8 s on a warm disk", f"{median_s:.1f} s", median_s <= START_AIM_S),
            Aim("idle in 600 MB", f"{total_mb:.0f} MB", total_mb <= MEMORY_AIM_MB),
        ],
    )
