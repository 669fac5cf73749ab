"""Cancellation through CONTROL: before, while waiting, while running, and by the wrong tenant."""

from __future__ import annotations

from tests.support.worker_rig import WorkerRig, until

from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.subjects import Lane

_LONG = " ".join(f"w{n}" for n in range(2000))


async def test_cancelled_before_a_worker_is_there(rig: WorkerRig):
    """The cancellation waits in CONTROL; nothing is generated, nothing is billed (I3)."""
    job = await rig.route("hello")
    client = await rig.listen(job.request_id)
    await rig.publish(job)
    await rig.cancel(job)
    await rig.start_worker()
    final = await client.final()
    ended = await rig.terminal(job)
    assert (final.status, final.deltas, client.deltas) == (Status.CANCELLED, 0, [])
    assert (ended.run, ended.usage.input_tokens, ended.usage.output_tokens) == (None, 0, 0)
    await rig.settled()


async def test_cancelled_in_mid_stream_bills_what_was_generated(rig: WorkerRig):
    """It stops within a step, and the usage is the tokens generated until then (I3)."""
    await rig.start_worker(echo_tokens_per_s=200)
    job, client = await rig.submit(_LONG)
    await client.first_delta.wait()
    await rig.cancel(job)
    final = await client.final(5)
    ended = await rig.terminal(job)
    assert (final.status, final.reason) == (Status.CANCELLED, "cancelled")
    assert 0 < ended.usage.output_tokens < 2000
    assert len(final.text.split()) == ended.usage.output_tokens
    assert "".join(delta.text for delta in client.deltas) == final.text
    assert await rig.output(ended) == final.text


async def test_one_cancelled_item_leaves_its_batch_companions_alone(rig: WorkerRig):
    """Only the cancelled item of a batch stops."""
    await rig.start_worker(echo_tokens_per_s=100)
    text = " ".join(f"w{n}" for n in range(40))
    victim, victims_client = await rig.submit(text)
    others = [await rig.submit(text) for _ in range(3)]
    await victims_client.first_delta.wait()
    await rig.cancel(victim)
    assert (await victims_client.final()).status is Status.CANCELLED
    for _, client in others:
        final = await client.final()
        assert (final.status, final.text) == (Status.COMPLETED, text)


async def test_cancelled_while_waiting_for_a_slot_never_runs(rig: WorkerRig):
    """A job in line is taken out of it at once, though every slot is busy."""
    await rig.start_worker(echo_tokens_per_s=20)
    busy = [await rig.submit(_LONG, lane=Lane.INTERACTIVE) for _ in range(4)]
    for _, client in busy:  # one by one: each takes a slot of its own
        await client.first_delta.wait()
    job, client = await rig.submit("hello")

    async def taken() -> bool:
        return await rig.lag() == (0, 1)

    await until(taken)
    await rig.cancel(job)
    final = await client.final(5)
    assert (final.status, final.run) == (Status.CANCELLED, None)
    for held, _ in busy:
        await rig.cancel(held)
    await rig.settled(lane=Lane.INTERACTIVE)


async def test_another_tenants_cancellation_means_nothing(rig: WorkerRig):
    """The request id alone cancels nothing: the tenant is part of the key (I8)."""
    await rig.start_worker(echo_tokens_per_s=400)
    job = await rig.route("a b c d")
    client = await rig.listen(job.request_id)
    await rig.cancel(job, tenant="mallory")
    await rig.broker.jetstream.publish(f"v1.acme.control.{job.request_id.upper()}", b"nonsense")
    await rig.publish(job)
    assert (await client.final()).status is Status.COMPLETED
