"""Cancellation through CONTROL: before, while waiting, while running, and by the wrong tenant."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import REGISTRY
from tests.support.worker_rig import WorkerRig, until

from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.subjects import Lane

_MODELS = Path(__file__).parents[3] / "models"
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


async def test_cancelled_before_its_first_token_stops_with_it(rig: WorkerRig):
    """The engine stops within one step: that step's token is all that is billed (I3)."""
    await rig.start_worker(echo_tokens_per_s=1)
    job, client = await rig.submit(_LONG)
    await until(_runs)
    assert client.deltas == []
    await rig.cancel(job)
    final = await client.final(10)
    ended = await rig.terminal(job)
    assert (final.status, ended.usage.output_tokens) == (Status.CANCELLED, 1)
    assert final.text == "w0"


async def _runs() -> bool:
    return bool(REGISTRY.get_sample_value("worker_jobs_running", {"model": "echo"}))


async def test_a_real_engine_stops_in_mid_stream(rig: WorkerRig):
    """CTranslate2 lets go of the item with its next token; text, deltas and usage agree (I3)."""
    await rig.start_worker(models_dir=_MODELS, echo_model=False, tuning_budget_s=0)
    job, client = await rig.submit("x " * 300, model="penstock-large")  # it babbles on and on
    await client.first_delta.wait()
    await rig.cancel(job)
    final = await client.final(10)
    ended = await rig.terminal(job)
    assert final.status is Status.CANCELLED
    assert 0 < ended.usage.output_tokens < 700  # it has room for as many
    assert "".join(delta.text for delta in client.deltas) == final.text
    await rig.settled("penstock-large")


async def test_a_cancellation_after_the_end_changes_nothing(rig: WorkerRig):
    """The fact stands, there is no second one, and the next request is served (I2)."""
    await rig.start_worker()
    job, client = await rig.submit("hello world")
    assert (await client.final()).status is Status.COMPLETED
    await rig.cancel(job)
    _, other = await rig.submit("and on")
    assert (await other.final()).status is Status.COMPLETED
    assert (await rig.terminal(job)).status is Status.COMPLETED
    assert (await rig.facts(job), len(client.finals)) == (2, 1)


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
    await rig.broker.client.publish(f"v1.acme.control.{job.request_id.upper()}", b"nonsense")
    await rig.publish(job)
    assert (await client.final()).status is Status.COMPLETED
