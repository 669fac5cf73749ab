"""Redelivery, fencing and poison: one fact per request, whatever comes twice (I2)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.support.worker_rig import SUBJECT, TENANT, WorkerRig

from penstock_shared.contracts import subjects
from penstock_shared.contracts.dead import DeadLetter
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import TransientError, UnavailableError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import RequestEnded, Status, terminal_type
from penstock_shared.contracts.streams import DEAD, JOBS, Bucket, job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.consumer import DurableConsumer
from penstock_shared.runtime.keyring import data_key_name
from penstock_shared.runtime.kv import purge
from penstock_worker.adapters.nats_responses import NatsResponses
from penstock_worker.adapters.nats_returns import NatsReturns
from penstock_worker.domain.ending import cancelled_unstarted, failed_unstarted
from penstock_worker.errors import PoisonError
from penstock_worker.handlers.terminals import Terminals


async def let_holders_die(rig: WorkerRig, times: int) -> None:
    """The only job is taken and begun, and its holder gone, so many times."""
    consumer = DurableConsumer(rig.broker, job_consumer("echo", Lane.STANDARD), credit=1)
    await consumer.start()
    for _ in range(times):
        delivery = await asyncio.wait_for(consumer.get(), 5)
        await NatsReturns(rig.broker).crashes(delivery)
        await delivery.nak(0.001, failed=True)
    await consumer.stop()
    await consumer.close()


async def write_terminal(
    rig: WorkerRig, job: Job, ended: RequestEnded | None = None
) -> RequestEnded:
    """Somebody else ends the request."""
    ended = ended or cancelled_unstarted(job, SystemClock().now())
    await rig.broker.publish(
        subjects.request_event(TENANT, job.request_id),
        ended.model_dump_json().encode(),
        Envelope(id="somebody-else", source="/t", type=terminal_type(ended.status)),
        expected_last_seq=job.expected_seq,
    )
    return ended


async def dead_letter(rig: WorkerRig) -> DeadLetter | None:
    message = await rig.broker.last_message(DEAD, subjects.dead(TENANT, "jobs"))
    return None if message is None else DeadLetter.model_validate_json(message.data)


async def test_a_job_redelivered_after_its_fact_is_only_acknowledged(rig: WorkerRig):
    """Its ack was lost: no second run, no second fact; the frame is shown once more."""
    await rig.start_worker()
    job, client = await rig.submit("hello world")
    first = await client.final()
    await rig.settled()
    await rig.workers.pop().stop()
    await rig.publish(job)
    await let_holders_die(rig, 1)
    await rig.start_worker()
    await rig.settled()
    assert await rig.facts(job) == 2
    assert client.finals == [first, first]
    assert {delta.run for delta in client.deltas} == {first.run}


async def test_a_redelivered_job_runs_under_a_new_run(rig: WorkerRig):
    """An earlier holder that left no fact leaves no trace either."""
    job, client = await rig.submit("hello world")
    await let_holders_die(rig, 2)
    await rig.start_worker()
    final = await client.final()
    assert (final.status, final.text) == (Status.COMPLETED, "hello world")
    assert await rig.facts(job) == 2


async def test_a_run_that_comes_second_is_dropped_quietly(rig: WorkerRig):
    """Fenced: the standing fact stays, no final frame contradicts it, the job is done."""
    await rig.start_worker(echo_tokens_per_s=20)
    job, client = await rig.submit("a b c d e f")
    await client.first_delta.wait()
    await write_terminal(rig, job)
    await rig.settled()
    assert await rig.facts(job) == 2
    assert client.finals == []
    assert (await rig.last_fact(job)).event_id == "somebody-else"


async def test_the_same_job_published_twice_has_one_fact(rig: WorkerRig):
    """A work queue's dedup ends; expected-last-sequence does not."""
    await rig.start_worker()
    job, client = await rig.submit("hello")
    await rig.publish(job)
    await client.final()
    await rig.settled()
    assert await rig.facts(job) == 2


async def test_a_job_whose_holders_keep_dying_ends_as_poison(rig: WorkerRig):
    """After three crashes: fact, then DEAD with sealed content, then term."""
    job, client = await rig.submit("hello")
    await let_holders_die(rig, 3)
    await rig.start_worker()
    final = await client.final()
    assert final.status is Status.FAILED
    assert final.error is not None
    assert final.error.code == "poison"
    await rig.settled()
    letter = await dead_letter(rig)
    assert letter is not None
    assert (letter.stream, letter.deliveries, letter.error.code) == (JOBS, 4, "poison")
    assert job.request_id not in letter.content


async def test_a_holder_that_dies_between_fact_and_dead_loses_no_letter(rig: WorkerRig):
    """The next one finds the fact of a job that was given up, and buries it."""
    job = await rig.route("hello")
    await write_terminal(rig, job, failed_unstarted(job, SystemClock().now(), PoisonError("died")))
    await rig.publish(job)
    await let_holders_die(rig, 1)
    await rig.start_worker()
    await rig.settled()
    letter = await dead_letter(rig)
    assert letter is not None
    assert (letter.error.code, letter.error.message) == ("poison", "died")
    assert await rig.facts(job) == 2


@pytest.mark.parametrize("payload", [b"not json", b'{"request_id":"x"}'])
async def test_what_is_no_job_lies_in_dead(rig: WorkerRig, payload: bytes):
    """It has no client to tell, and blocks nobody."""
    await rig.start_worker()
    await rig.broker.publish(
        subjects.job(TENANT, "echo", Lane.STANDARD),
        payload,
        Envelope(id="x", source="/t", type="t"),
    )
    _, client = await rig.submit("hello")
    assert (await client.final()).status is Status.COMPLETED
    await rig.settled()
    letter = await dead_letter(rig)
    assert letter is not None
    assert letter.error.code == "job_invalid"


async def test_a_job_under_another_tenants_subject_is_refused(rig: WorkerRig):
    """What a job says of its tenant must be what its subject says (I8)."""
    await rig.start_worker()
    job = await rig.route("hello")
    await rig.broker.publish(
        subjects.job("mallory", "echo", Lane.STANDARD),
        job.model_dump_json().encode(),
        Envelope(id=job.id, source="/t", type="t"),
    )
    await rig.settled()
    message = await rig.broker.last_message(DEAD, subjects.dead("mallory", "jobs"))
    assert message is not None
    assert await rig.facts(job) == 1


async def test_erased_content_ends_the_request_as_failed(rig: WorkerRig):
    """A destroyed key is no poison: the client is told, and nobody else (I10)."""
    job, client = await rig.submit("hello")
    await purge(rig.broker, Bucket.DATA_KEYS, data_key_name(TENANT, SUBJECT))
    await rig.start_worker()
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, "erased")
    await rig.settled()
    assert await dead_letter(rig) is None
    assert (await rig.terminal(job)).output is None


class UnsureBroker(Broker):
    """Stores the fact and loses the confirmation, `lost` times."""

    lost = 1

    async def publish(self, subject: str, *args: Any, **options: Any) -> int:
        sequence = await super().publish(subject, *args, **options)
        if ".events." in subject and self.lost:
            self.lost -= 1
            raise UnavailableError("The confirmation did not come.")
        return sequence


async def test_a_fact_stored_without_confirmation_is_recognised(rig: WorkerRig):
    """The retry of one's own write looks like a conflict: the ids tell (I2)."""
    job = await rig.route("hello")
    client = await rig.listen(job.request_id)
    broker = UnsureBroker(rig.broker.client)
    clock = SystemClock()
    terminals = Terminals(broker, NatsResponses(broker), clock, random.Random(1), "/t")
    ended = cancelled_unstarted(job, clock.now())
    assert await terminals.write(job, ended, "", None)
    assert (await client.final()).status is Status.CANCELLED
    assert await rig.facts(job) == 2


async def test_a_log_that_stays_silent_until_the_deadline_leaves_the_job_to_its_next_holder(
    rig: WorkerRig,
):
    """Perhaps the fact is stored: the error makes a nak, and whoever is next will look."""
    job = await rig.route("hello", deadline_s=1.0)
    broker = UnsureBroker(rig.broker.client)
    broker.lost = 1000

    async def silent(*_: object) -> None:
        raise UnavailableError("Nothing is heard.")

    broker.last_message = silent  # type: ignore[method-assign,assignment]
    clock = SystemClock()
    terminals = Terminals(broker, NatsResponses(broker), clock, random.Random(1), "/t")
    with pytest.raises(TransientError):
        await terminals.write(job, cancelled_unstarted(job, clock.now()), "", None)


async def test_a_replica_that_is_behind_is_no_sign_that_the_job_is_over(rig: WorkerRig):
    """A log that does not show the job's own `routed` yet makes a retry, not an ack (I2)."""
    job = await rig.route("hello", deadline_s=0.5)
    broker = UnsureBroker(rig.broker.client)

    async def behind(*_: object) -> None:
        return None

    broker.last_message = behind  # type: ignore[method-assign,assignment]
    clock = SystemClock()
    terminals = Terminals(broker, NatsResponses(broker), clock, random.Random(1), "/t")
    with pytest.raises(TransientError):
        await terminals.standing(job)
    await asyncio.sleep(0.6)
    assert await terminals.standing(job) == (True, None)
