"""Attempts that are not the last: what their clients see, and what becomes of their jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.job_line import JobLine, die
from tests.support.router import fail_attempt
from tests.support.worker_rig import PRICE, WorkerRig, until

from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    AttemptFailed,
    NextAttempt,
    RequestRouted,
    Sampling,
    Status,
)
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import Usage

SCHEMA = {"type": "object", "required": ["name"]}
BAD = '{"title": "Ada"}'
PLAN = (NextAttempt(model="echo", price=PRICE),)
MODELS = Path(__file__).parents[3] / "models"


async def failed(rig: WorkerRig, job: Job) -> tuple[AttemptFailed, Job]:
    """The fact of the attempt, and the job that follows it."""

    async def there() -> bool:
        return (await rig.last_fact(job)).event_type == AttemptFailed.TYPE

    await until(there)
    last = await rig.last_fact(job)
    first = await rig.broker.first_message(
        EVENTS, subjects.request_event(job.tenant, job.request_id)
    )
    assert first is not None
    fact = AttemptFailed.model_validate_json(last.data)
    routed = RequestRouted.model_validate_json(first.data)
    following = Job.after(routed, fact, last.sequence)
    assert following is not None
    return fact, following


async def test_a_job_redelivered_after_its_attempt_failed_is_only_acknowledged(rig: WorkerRig):
    """Its ack was lost: no second run, no second fact, no frame (I2)."""
    job = await rig.route(BAD, output_schema=SCHEMA, plan=PLAN)
    client = await rig.listen(job.request_id)
    async with JobLine(rig.broker) as line:
        await rig.publish(job)
        delivery = await line.take()
        await fail_attempt(rig.broker, job.request_id)
        await die(delivery)
    await rig.start_worker()
    await rig.settled()
    assert await rig.facts(job) == 2
    assert (client.deltas, client.finals) == ([], [])


async def test_an_attempt_that_is_checked_for_confidence_shows_nothing(
    rig: WorkerRig, tmp_path: Path
):
    """Not a word of it, whether or not it is sure; the last one, unchecked, streams from 0 (I6)."""
    shutil.copytree(MODELS / "penstock-small", tmp_path / "models" / "penstock-small")
    await rig.start_worker(models_dir=tmp_path / "models")
    text = "zq xw 17 !!"
    job = await rig.route(
        text,
        model="penstock-small",
        sampling=Sampling(max_output_tokens=64),
        min_confidence=1.0,
        plan=PLAN,
    )
    client = await rig.listen(job.request_id)
    await rig.publish(job)
    fact, following = await failed(rig, job)
    assert fact.reason == "confidence"
    assert (client.deltas, client.finals) == ([], [])
    await rig.publish(following)
    final = await client.final()
    ended = await rig.terminal(job)
    assert (final.text, final.attempt, final.model) == (text, 2, "echo")
    assert {delta.attempt for delta in client.deltas} == {2}
    assert [delta.n for delta in client.deltas] == list(final.numbers)
    assert "".join(delta.text for delta in client.deltas) == text
    assert (ended.used_before, final.usage) == (fact.usage, fact.usage + ended.usage)


async def test_a_later_attempt_that_ends_unstarted_tells_what_was_used(rig: WorkerRig):
    """Cancelled between the two: the second has used nothing, the client is told the first (I3)."""
    await rig.start_worker()
    job = await rig.route(BAD, output_schema=SCHEMA, plan=PLAN)
    client = await rig.listen(job.request_id)
    await rig.publish(job)
    fact, following = await failed(rig, job)
    await rig.cancel(job)
    await rig.publish(following)
    final = await client.final()
    ended = await rig.terminal(job)
    assert (ended.status, ended.attempt) == (Status.CANCELLED, 2)
    assert ended.usage == Usage(input_tokens=0, output_tokens=0)
    assert final.usage == fact.usage
    assert client.deltas == []
