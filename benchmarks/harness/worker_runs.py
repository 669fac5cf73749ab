"""One stretch of load on a worker, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import uvloop

from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.heard import Fed, deliveries
from benchmarks.harness.job_feed import JobFeed
from benchmarks.harness.steady import Outcome, Produced, ramp_end_s, tokens_per_s
from benchmarks.harness.worker_bench import WorkerBench
from benchmarks.harness.workload import Work, tokens_of


@dataclass(frozen=True, slots=True)
class WorkerRun:
    """What the worker gave, and what giving it work cost."""

    outcome: Outcome
    bus_us_per_token: float
    feeder_share: float
    """Of one core, while the run lasted."""


def closed_loop(bench: WorkerBench, model: str, works: Sequence[Work], streams: int) -> WorkerRun:
    """All jobs, by so many streams; the rate is that of the steady part.

    Steady: from the end of the first tenth of the jobs until the last one was asked for.

    Raises:
        FeedError: a job did not end as it should.
    """
    return uvloop.run(_closed_loop(bench, model, works, streams))


def warm_up(bench: WorkerBench, model: str, works: Sequence[Work]) -> None:
    """Have the worker load and tune the model, before anything is measured."""
    uvloop.run(_warm_up(bench, model, works))


async def _warm_up(bench: WorkerBench, model: str, works: Sequence[Work]) -> None:
    async with JobFeed.connected(bench, model) as feed:
        await feed.closed_loop(await feed.prepare(works), len(works))


async def _closed_loop(
    bench: WorkerBench, model: str, works: Sequence[Work], streams: int
) -> WorkerRun:
    async with JobFeed.connected(bench, model) as feed:
        jobs = await feed.prepare(works)
        before_s, started_s = bench.cpu_s(), perf_counter()
        own_s = await feed.closed_loop(jobs, streams)
        lasted_s, after_s = perf_counter() - started_s, bench.cpu_s()
    per_token = {
        name: (after_s[name] - before_s[name]) * 1e6 / tokens_of(works) for name in before_s
    }
    return WorkerRun(
        outcome=Outcome(
            tokens_per_s=steady_rate(jobs),
            cpu_us_per_token=per_token["worker"],
            first_s=tuple(job.first_s for job in jobs),
            total_s=tuple(job.total_s for job in jobs),
        ),
        bus_us_per_token=per_token["nats"],
        feeder_share=own_s / lasted_s,
    )


def steady_rate(jobs: Sequence[Fed]) -> float:
    """Tokens per second between ramp and tail of a closed loop.

    Raises:
        FeedError: a job did not end as it should.
    """
    produced = [
        Produced(came.at_s, came.at_s, came.tokens) for job in jobs for came in deliveries(job)
    ]
    begin_s = ramp_end_s([job.ended_s for job in jobs])
    return tokens_per_s(produced, begin_s, max(job.sent_s for job in jobs))


def spread_ms(name: str, values_s: Sequence[float]) -> dict[str, Any]:
    """p50, p95 and p99 in milliseconds, as figures."""
    return {
        f"{name}_{label}_ms": percentile(values_s, share) * 1000
        for label, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
