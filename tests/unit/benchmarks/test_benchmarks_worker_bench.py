"""The feeder against a real bus and a real worker process, with the model that needs no weights."""

from __future__ import annotations

import uvloop
from benchmarks.harness import worker_bench
from benchmarks.harness.job_feed import JobFeed
from benchmarks.harness.worker_bench import WorkerBench
from benchmarks.harness.worker_runs import closed_loop
from benchmarks.harness.workload import Work

from penstock_shared.contracts.requests import ChatMessage
from penstock_shared.contracts.subjects import Lane

LIMIT = 5
SAID = "one two three four five six seven eight nine"
WORKS = [Work((ChatMessage(role="user", content=SAID),), (), LIMIT)] * 40


async def _open_loop(bench: WorkerBench) -> list[float]:
    async with JobFeed.connected(bench, "echo") as feed:
        jobs = await feed.prepare(WORKS[:4], tenant="other", lane=Lane.INTERACTIVE)
        await feed.open_loop([(0.01 * n, job) for n, job in enumerate(jobs)])
        return [await feed.queued_s(job) for job in jobs]


def test_every_job_is_fed_heard_and_counted() -> None:
    """Closed and open loop; frames, usage and facts are the worker's own."""
    with worker_bench.running([], {"PENSTOCK_ECHO_MODEL": "1"}) as bench:
        run = closed_loop(bench, "echo", WORKS, 4)
        assert len(run.outcome.first_s) == len(WORKS)
        assert run.outcome.tokens_per_s > 0
        assert run.outcome.cpu_us_per_token > 0
        assert run.bus_us_per_token > 0
        assert all(
            0 < first <= total
            for first, total in zip(run.outcome.first_s, run.outcome.total_s, strict=True)
        )
        queued_s = uvloop.run(_open_loop(bench))
    assert len(queued_s) == 4
    assert all(0 <= waited < 60 for waited in queued_s)
