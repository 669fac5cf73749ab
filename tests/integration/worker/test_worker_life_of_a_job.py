"""The life of a job on a real nats-server: deltas, fact, frame, ack."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from tests.support.worker_rig import PRICE, TRACE, WorkerRig

from penstock_shared.contracts.requests import RequestEnded, Sampling, Status, terminal_id
from penstock_shared.contracts.subjects import Lane


async def test_deltas_then_the_fact_then_the_frame_then_the_ack(rig: WorkerRig):
    """One job: what the client sees, what the log holds and what the queue knows agree (I1, I6)."""
    await rig.start_worker()
    job, client = await rig.submit("one two  three")
    final = await client.final()

    assert "".join(delta.text for delta in client.deltas) == final.text == "one two  three"
    assert [delta.n for delta in client.deltas] == list(range(final.deltas))
    assert {(delta.run, delta.attempt) for delta in client.deltas} == {(final.run, 1)}
    bounds = pairwise((0, *final.delta_ends))
    assert [final.text[a:b] for a, b in bounds] == [delta.text for delta in client.deltas]

    stored = await rig.last_fact(job)
    ended = RequestEnded.model_validate_json(stored.data)
    assert stored.event_type == "penstock.request.completed.v1"
    assert stored.event_id == terminal_id(job.request_id, 1, ended.run)
    assert stored.headers["traceparent"].split("-")[1] == TRACE.split("-")[1]
    assert (ended.status, ended.reason) == (Status.COMPLETED, "stop")
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (3, 3)
    assert ended.price == PRICE
    assert await rig.output(ended) == "one two  three"
    assert "three" not in stored.data.decode()
    assert ended.timings is not None
    assert ended.timings.first_token_ms is not None
    assert 0 <= ended.timings.queued_ms <= ended.timings.first_token_ms <= ended.timings.total_ms
    await rig.settled()
    assert await rig.facts(job) == 2


async def test_every_lane_of_a_model_is_served(rig: WorkerRig):
    """Each lane has its own consumer, and each is pulled."""
    await rig.start_worker()
    clients = [(await rig.submit("hello", lane=lane))[1] for lane in Lane]
    for client in clients:
        assert (await client.final()).status is Status.COMPLETED


async def test_the_limit_of_each_item_holds_inside_a_shared_batch(rig: WorkerRig):
    """Items of one batch stop at their own limits, as incomplete, with exact usage (I3)."""
    await rig.start_worker(echo_tokens_per_s=200)
    words = " ".join(f"w{n}" for n in range(20))
    made = [
        await rig.submit(words, sampling=Sampling(max_output_tokens=limit)) for limit in range(1, 9)
    ]
    for limit, (job, client) in enumerate(made, start=1):
        final = await client.final()
        ended = await rig.terminal(job)
        assert (final.status, final.reason) == (Status.INCOMPLETE, "max_output_tokens")
        assert ended.usage.output_tokens == limit
        assert final.text == " ".join(words.split()[:limit])


async def test_three_hundred_jobs_at_once_end_once_each(rig: WorkerRig):
    """A burst over two workers: every request has one fact, with its own text (I2, I8)."""
    await rig.start_worker()
    await rig.start_worker()
    made = await asyncio.gather(*(rig.submit(f"request number {n}") for n in range(300)))
    for n, (job, client) in enumerate(made):
        final = await client.final(60)
        assert final.text == f"request number {n}"
        assert await rig.facts(job) == 2
    await rig.settled()
