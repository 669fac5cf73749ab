"""Deadlines: only within them may the holder write; past them the sweeper does."""

from __future__ import annotations

import asyncio

from tests.support.worker_rig import WorkerRig

from penstock_shared.contracts.requests import Status


async def test_a_run_stops_before_its_deadline_with_its_true_usage(rig: WorkerRig):
    """Failed (expired), written in time, and what was generated is what is said (I3)."""
    await rig.start_worker(echo_tokens_per_s=50)
    text = " ".join(f"w{n}" for n in range(500))
    job, client = await rig.submit(text, deadline_s=1.5)
    final = await client.final()
    ended = await rig.terminal(job)
    assert (final.status, final.reason) == (Status.FAILED, "expired")
    assert ended.ended_at < job.deadline
    assert 0 < ended.usage.output_tokens == len(final.text.split()) < 500


async def test_a_job_found_past_its_deadline_is_left_to_the_sweeper(rig: WorkerRig):
    """No fact, no frame: the reservation ends by the sweeper's word alone."""
    job, client = await rig.submit("hello", deadline_s=0.1)
    await asyncio.sleep(0.15)
    await rig.start_worker()
    await rig.settled()
    assert await rig.facts(job) == 1
    assert client.finals == []


async def test_without_time_to_begin_it_ends_at_once(rig: WorkerRig):
    """Within the deadline, but too late to write after a run: failed (expired), nothing billed."""
    await rig.start_worker()
    job, client = await rig.submit("hello", deadline_s=0.4)
    final = await client.final()
    ended = await rig.terminal(job)
    assert (final.status, final.reason) == (Status.FAILED, "expired")
    assert (ended.run, ended.usage.output_tokens) == (None, 0)
