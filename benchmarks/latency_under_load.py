"""What a client waits for when jobs come at random: Poisson arrivals at shares of capacity.

Capacity is the rate of 32 closed-loop streams on the same worker with the same kind of jobs, taken
anew at the beginning of each round, since other users of the machine change it. Arrivals are those
of a Poisson process given their number: sorted uniform times. Each load begins idle and its jobs
are all counted. Rounds are pooled.

- *Time to first token*: from the job's publish to its first delta.
- *Inter-token latency*: for each delta but the first the time since the one before, divided by the
  tokens it brings, and counted once for each of these tokens. Deltas carry text, so a delta's
  tokens are the share of the answer's tokens that it has of the answer's text.
- *Queue wait*: what the terminal fact says, from the publish to the slot.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop

from benchmarks.harness import random_llama, worker_bench
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.heard import between_tokens_s
from benchmarks.harness.job_feed import JobFeed
from benchmarks.harness.report import Grid, Options, Report
from benchmarks.harness.worker_bench import WorkerBench
from benchmarks.harness.worker_runs import closed_loop, warm_up
from benchmarks.harness.workload import BLOCK, Work, mixed, tokens_of

LOADS: Final = (0.5, 0.8, 0.95)
STREAMS: Final = 32
SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_SEED: Final = 11


@dataclass(frozen=True, slots=True)
class Plan:
    """How many jobs: for the capacity, and at each load."""

    capacity_jobs: int
    jobs: int
    rounds: int


FULL: Final = Plan(capacity_jobs=6 * BLOCK, jobs=10 * BLOCK, rounds=3)
QUICK: Final = Plan(capacity_jobs=3 * BLOCK, jobs=2 * BLOCK, rounds=1)


@dataclass(slots=True)
class Waits:
    """What was seen at one load, in seconds."""

    first_token_s: list[float] = field(default_factory=list)
    between_tokens_s: list[float] = field(default_factory=list)
    queued_s: list[float] = field(default_factory=list)
    feeder_share: list[float] = field(default_factory=list)


def run(options: Options) -> Report:
    """Capacity, then each load, in rounds."""
    plan = QUICK if options.quick else FULL
    directory = random_llama.directory()
    works = mixed(directory, plan.jobs)
    rng = random.Random(_SEED)
    waits = {load: Waits() for load in LOADS}
    capacities: list[float] = []
    with worker_bench.running([directory]) as bench:
        warm_up(bench, random_llama.NAME, works[:BLOCK])
        for _ in range(options.rounds or plan.rounds):
            closed = closed_loop(bench, random_llama.NAME, works[: plan.capacity_jobs], STREAMS)
            capacities.append(closed.outcome.tokens_per_s)
            jobs_per_s = capacities[-1] * len(works) / tokens_of(works)
            for load, seen in waits.items():
                times_s = arrivals_s(rng, len(works), load * jobs_per_s)
                uvloop.run(_one_load(bench, works, times_s, seen))
    return Report(
        name="latency_under_load",
        grids=[_grid(waits, capacities)],
        figures={
            "capacity_tokens_per_s": capacities,
            "loads": {str(load): _figures(seen) for load, seen in waits.items()},
        },
    )


def arrivals_s(rng: random.Random, count: int, per_s: float) -> list[float]:
    """When so many jobs come within `count / per_s` seconds: a Poisson process, given its count."""
    return sorted(rng.uniform(0, count / per_s) for _ in range(count))


async def _one_load(
    bench: WorkerBench, works: Sequence[Work], times_s: Sequence[float], seen: Waits
) -> None:
    async with JobFeed.connected(bench, random_llama.NAME) as feed:
        jobs = await feed.prepare(works)
        own_s = await feed.open_loop(list(zip(times_s, jobs, strict=True)))
        lasted_s = max(job.ended_s for job in jobs) - min(job.sent_s for job in jobs)
        seen.feeder_share.append(own_s / lasted_s)
        seen.first_token_s += [job.first_s for job in jobs]
        seen.between_tokens_s += [gap_s for job in jobs for gap_s in between_tokens_s(job)]
        seen.queued_s += await asyncio.gather(*map(feed.queued_s, jobs))


def _grid(waits: dict[float, Waits], capacities: Sequence[float]) -> Grid:
    rows = [
        (
            f"{load:.0%}, {name}",
            *(f"{percentile(values, share) * 1000:,.1f}" for _, share in SHARES),
        )
        for load, seen in waits.items()
        for name, values in _kinds(seen).items()
    ]
    measured = ", ".join(f"{capacity:,.0f}" for capacity in capacities)
    title = f"Poisson arrivals, as a share of capacity ({measured} tokens/s in the rounds)"
    return Grid(title, ("load", *(f"{label} ms" for label, _ in SHARES)), tuple(rows))


def _kinds(seen: Waits) -> dict[str, list[float]]:
    return {
        "time to first token": seen.first_token_s,
        "inter-token latency": seen.between_tokens_s,
        "queue wait": seen.queued_s,
    }


def _figures(seen: Waits) -> dict[str, Any]:
    figures: dict[str, Any] = {
        f"{name} {label} ms": percentile(values, share) * 1000
        for name, values in _kinds(seen).items()
        for label, share in SHARES
    }
    return {**figures, "feeder_share": seen.feeder_share, "jobs": len(seen.first_token_s)}
