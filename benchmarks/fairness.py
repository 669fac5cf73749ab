"""One tenant floods 1,000 jobs at once; what does another wait that sends a short one a second?

Three times on one worker: the quiet tenant alone; the flood as the router hands it on (so many jobs
in the fair lane as a tenant may have in flight, the rest in the over-share lane); and the whole
flood in the quiet tenant's own lane, as it would be without the router's cap. The worker can only
order what it has fetched, and a lane's stream is in order of arrival, so the last shows what the
cap is for.

"First in, first out" is computed, not measured: a job that comes behind the flood would start when
the last of the flood ends. Waits count from the publish to the first delta.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import uvloop

from benchmarks.harness import random_llama, worker_bench
from benchmarks.harness.arithmetic import percentile
from benchmarks.harness.heard import Fed
from benchmarks.harness.job_feed import JobFeed
from benchmarks.harness.report import Grid, Options, Report
from benchmarks.harness.worker_bench import WorkerBench
from benchmarks.harness.worker_runs import warm_up
from benchmarks.harness.workload import BLOCK, Work, mixed
from penstock_shared.contracts.subjects import Lane

FAIR_CAP: Final = 64
"""The router's default cap on a tenant's jobs in the fair lanes."""
FLOODING: Final = "flooding"
QUIET: Final = "quiet"
ALONE: Final = "alone"
LANES: Final = "flood in the fair and the over-share lane"
ONE_LANE: Final = "flood in one lane, no cap"
FLOOD_OUTPUT_TOKENS: Final = (16, 128)
QUIET_TOKENS: Final = (16, 32)
_EVERY_S: Final = 1.0
_JITTER_S: Final = 0.5
_SEED: Final = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """Jobs of the flood, and of the quiet tenant while it is alone and while it is not."""

    flood: int
    quiet_alone: int
    quiet_beside: int


FULL: Final = Plan(flood=1000, quiet_alone=60, quiet_beside=240)
QUICK: Final = Plan(flood=128, quiet_alone=8, quiet_beside=30)


@dataclass(frozen=True, slots=True)
class Seen:
    """One scenario; the quiet tenant's jobs are those that were sent before the flood ended."""

    waits_s: tuple[float, ...]
    fifo_s: tuple[float, ...]
    """What each of these would have waited behind the whole flood; none without one."""
    tokens: dict[str, int]
    """Delivered to each tenant while the flood lasted."""
    lasted_s: float


def run(options: Options) -> Report:
    """Alone, then beside the flood in each arrangement."""
    plan = QUICK if options.quick else FULL
    directory = random_llama.directory()
    flood = mixed(directory, plan.flood, output_tokens=FLOOD_OUTPUT_TOKENS)
    quiet = mixed(
        directory, plan.quiet_beside, prompt_tokens=QUIET_TOKENS, output_tokens=QUIET_TOKENS
    )
    with worker_bench.running([directory]) as bench:
        warm_up(bench, random_llama.NAME, flood[:BLOCK])
        scenes = {
            name: uvloop.run(_scene(bench, given, quiet[:jobs], fair))
            for name, given, jobs, fair in (
                (ALONE, flood[:0], plan.quiet_alone, 0),
                (LANES, flood, plan.quiet_beside, FAIR_CAP),
                (ONE_LANE, flood, plan.quiet_beside, plan.flood),
            )
        }
    return Report(
        name="fairness",
        grids=[_waits(scenes, plan), _tokens(scenes)],
        figures={name: _figures(seen) for name, seen in scenes.items()},
    )


async def _scene(
    bench: WorkerBench, flood: Sequence[Work], quiet: Sequence[Work], fair: int
) -> Seen:
    """`fair` of the flood's jobs go to the standard lane, the rest to the over-share lane."""
    rng = random.Random(_SEED)
    async with JobFeed.connected(bench, random_llama.NAME) as feed:
        flooding = await feed.prepare(flood[:fair], tenant=FLOODING)
        flooding += await feed.prepare(flood[fair:], tenant=FLOODING, lane=Lane.OVER_SHARE)
        own = await feed.prepare(quiet, tenant=QUIET)
        beside = [(n * _EVERY_S + rng.uniform(0, _JITTER_S), job) for n, job in enumerate(own, 1)]
        await feed.open_loop([*((0.0, job) for job in flooding), *beside])
    return seen_of(flooding, own)


def seen_of(flooding: Sequence[Fed], quiet: Sequence[Fed]) -> Seen:
    """What counts of a scene: the time until the flood has ended, or all of it without one."""
    everybody = [*flooding, *quiet]
    over_s = max(job.ended_s for job in flooding or quiet)
    beside = [job for job in quiet if job.sent_s < over_s]
    return Seen(
        waits_s=tuple(job.first_s for job in beside),
        fifo_s=tuple(over_s - job.sent_s for job in beside) if flooding else (),
        tokens={
            tenant: sum(
                job.limit for job in everybody if job.tenant == tenant and job.ended_s <= over_s
            )
            for tenant in (FLOODING, QUIET)
        },
        lasted_s=over_s - min(job.sent_s for job in everybody),
    )


def _waits(scenes: dict[str, Seen], plan: Plan) -> Grid:
    rows = [
        (name, str(len(waits_s)), *(f"{percentile(waits_s, p) * 1000:,.0f}" for p in (0.5, 0.95)))
        for scene, seen in scenes.items()
        for name, waits_s in (
            (scene, seen.waits_s),
            (f"{scene}, if first in, first out (computed)", seen.fifo_s),
        )
        if waits_s
    ]
    title = f"The quiet tenant's wait for its first token, beside a flood of {plan.flood:,} jobs"
    return Grid(title, ("", "jobs", "p50 ms", "p95 ms"), tuple(rows))


def _tokens(scenes: dict[str, Seen]) -> Grid:
    rows = [
        (
            f"{scene}: {tenant} tenant",
            f"{tokens:,}",
            f"{tokens / seen.lasted_s:,.0f}",
        )
        for scene, seen in scenes.items()
        for tenant, tokens in seen.tokens.items()
        if tokens
    ]
    return Grid("Tokens served", ("", "tokens", "tokens/s"), tuple(rows))


def _figures(seen: Seen) -> dict[str, Any]:
    figures: dict[str, Any] = {"tokens": seen.tokens, "lasted_s": seen.lasted_s}
    for name, values in (("wait", seen.waits_s), ("fifo", seen.fifo_s)):
        if values:
            figures[f"{name}_p50_ms"] = percentile(values, 0.5) * 1000
            figures[f"{name}_p95_ms"] = percentile(values, 0.95) * 1000
    return figures
