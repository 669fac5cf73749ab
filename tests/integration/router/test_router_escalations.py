"""From a failed attempt to the next one: who publishes its job, when, and what stops it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.support.router import StartRouter, admit, fail_attempt, put_tenant
from tests.support.two_models import ASKED, DEARER, PLAN, SCHEMA, put_two_models
from tests.support.worker_rig import PRICE, WorkerRig, until

from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.adapters.sweeper import Sweeper
from penstock_router.domain.open_requests import OpenRequests
from penstock_router.handlers.escalations import Escalations
from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    Accepted,
    AttemptFailed,
    NextAttempt,
    RequestEnded,
    Status,
)
from penstock_shared.contracts.streams import EVENTS, JOBS
from penstock_shared.contracts.usage import Usage
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.request_log import read_fact

OWN = "/penstock/router/own"


@pytest.fixture
async def rig(
    broker: Broker, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WorkerRig]:
    """Both models, and no worker yet."""
    await put_two_models(broker, monkeypatch)
    directory = tmp_path / "rig"
    directory.mkdir()
    async with WorkerRig(broker, nats_url, directory) as rig:
        yield rig


@contextlib.asynccontextmanager
async def replica(
    broker: Broker,
    source: str = OWN,
    *,
    others_after_s: float = 60.0,
    grace_s: float = 60.0,
    exists: Callable[[str], bool] = lambda _: True,
) -> AsyncIterator[None]:
    """What one router does with failed attempts: as its composition root wires it."""
    clock, request_log = SystemClock(), NatsRequestLog(broker)
    escalations = Escalations(
        request_log, exists, clock, source=source, others_after_s=others_after_s
    )
    sweeper = Sweeper(
        broker, request_log, OpenRequests(grace_s), clock, source=source, on_fact=escalations.fold
    )
    await sweeper.start()
    try:
        yield
    finally:
        await sweeper.stop()
        await escalations.close()


async def until_ended(rig: WorkerRig, job: Job) -> RequestEnded:
    async def ended() -> bool:
        return (await rig.last_fact(job)).event_type in TERMINAL_TYPES

    await until(ended)
    return await rig.terminal(job)


async def facts_of(broker: Broker, job: Job) -> list[StoredMessage]:
    """Every fact of a request, in order."""
    reader = OrderedReader(broker, EVENTS, subjects.request_event(job.tenant, job.request_id))
    await reader.start()
    found = [await reader.get() for _ in range(reader.pending_at_start)]
    await reader.stop()
    return found


async def jobs_ever(broker: Broker) -> int:
    """Jobs that were stored, those taken included."""
    return int((await broker.jetstream.stream_info(JOBS)).state.last_seq)


async def test_the_next_model_of_the_plan_answers(broker: Broker, rig: WorkerRig) -> None:
    """Each attempt has its own usage and price; the client is told one end, and the sum (I2, I3).

    It sees nothing of the first attempt.
    """
    await rig.start_worker()
    async with replica(broker):
        job, client = await rig.submit(
            ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source=OWN
        )
        final = await client.final()
        ended = await until_ended(rig, job)
    facts = [read_fact(each) for each in await facts_of(broker, job)]
    failed = facts[1]
    assert isinstance(failed, AttemptFailed)
    assert len(facts) == 3
    assert (failed.model, failed.attempt, failed.price) == ("clumsy", 1, PRICE)
    assert (ended.model, ended.attempt, ended.price) == ("careful", 2, DEARER)
    assert (failed.usage, ended.usage) == (
        Usage(input_tokens=1, output_tokens=1),
        Usage(input_tokens=2, output_tokens=2),
    )
    assert final.usage == failed.usage + ended.usage
    assert (ended.status, final.text) == (Status.COMPLETED, ASKED)
    assert not {delta.attempt for delta in client.deltas} - {2}
    assert len(client.finals) == 1
    assert await jobs_ever(broker) == 2


async def test_a_plan_of_three_goes_on_until_it_ends(broker: Broker, rig: WorkerRig) -> None:
    """Clumsy, clumsy again, clumsy at last: the third answer that fails ends the request (I2)."""
    await rig.start_worker()
    again = NextAttempt(model="clumsy", price=PRICE)
    async with replica(broker):
        job, client = await rig.submit(
            ASKED, model="clumsy", output_schema=SCHEMA, plan=(again, again), source=OWN
        )
        await client.final()
    facts = [read_fact(each) for each in await facts_of(broker, job)]
    ended = facts[-1]
    assert isinstance(ended, RequestEnded)
    assert ended.error is not None
    assert (ended.attempt, ended.error.code) == (3, "output_invalid")
    assert ended.total_usage.output_tokens == 3
    assert [type(fact) for fact in facts[1:3]] == [AttemptFailed] * 2


async def test_of_several_replicas_the_job_is_published_once(
    broker: Broker, rig: WorkerRig
) -> None:
    """The one that admitted does at once; the others find it still open, and are swallowed."""
    async with (
        replica(broker),
        replica(broker, "/penstock/router/b", others_after_s=0.2),
        replica(broker, "/penstock/router/c", others_after_s=0.2),
    ):
        job = await rig.route(ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source=OWN)
        await fail_attempt(broker, job.request_id)
        await until(lambda: _stored(broker, 1))
        await asyncio.sleep(0.6)
        assert await jobs_ever(broker) == 1
        await rig.start_worker()
        assert (await until_ended(rig, job)).status is Status.COMPLETED
    assert await rig.facts(job) == 3


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_replica_that_died_is_stood_in_for(
    broker: Broker,
    rig: WorkerRig,
    restarted: bool,  # noqa: FBT001  parametrised
) -> None:
    """Whoever follows the log publishes the job after a while, also one that starts later (I2)."""
    job = await rig.route(ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source=OWN)
    if restarted:
        await fail_attempt(broker, job.request_id)
    async with replica(broker, "/penstock/router/other", others_after_s=0.1):
        if not restarted:
            await fail_attempt(broker, job.request_id)
        await rig.start_worker()
        ended = await until_ended(rig, job)
    assert (ended.status, ended.attempt) == (Status.COMPLETED, 2)


async def test_a_model_that_is_gone_ends_the_request(broker: Broker, rig: WorkerRig) -> None:
    """`model_not_found`, nothing billed for the second attempt, and the client is told (I2, I3)."""
    await rig.start_worker()
    async with replica(broker, exists=lambda name: name != "careful"):
        job, client = await rig.submit(
            ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source=OWN
        )
        final = await client.final()
    ended = await rig.terminal(job)
    assert ended.error is not None
    assert (ended.status, ended.error.code) == (Status.FAILED, "model_not_found")
    assert (ended.attempt, ended.model, ended.usage.output_tokens) == (2, "careful", 0)
    assert final.usage == ended.used_before == Usage(input_tokens=1, output_tokens=1)
    assert await jobs_ever(broker) == 1


async def test_a_cancellation_between_two_attempts_ends_it(broker: Broker, rig: WorkerRig) -> None:
    """Nobody holds a job then, so the next one is published, and its holder says the end (I2)."""
    job = await rig.route(ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source=OWN)
    await fail_attempt(broker, job.request_id)
    await rig.cancel(job)
    async with replica(broker, others_after_s=0.05):
        await rig.start_worker()
        ended = await until_ended(rig, job)
    assert (ended.status, ended.attempt, ended.usage.output_tokens) == (Status.CANCELLED, 2, 0)
    assert await rig.facts(job) == 3


async def test_a_deadline_between_two_attempts_is_the_sweepers(
    broker: Broker, rig: WorkerRig
) -> None:
    """No job for what has expired; the attempt that never began expires, unbilled (I2, I3)."""
    job = await rig.route(
        ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source=OWN, deadline_s=2.0
    )
    await fail_attempt(broker, job.request_id)
    async with replica(broker, others_after_s=2.1, grace_s=0.5):
        ended = await until_ended(rig, job)
    assert (ended.reason, ended.attempt, ended.usage.output_tokens) == ("expired", 2, 0)
    assert await jobs_ever(broker) == 0


async def test_what_has_ended_meanwhile_is_left_alone(broker: Broker, rig: WorkerRig) -> None:
    """The others' wait is over when the terminal is there: no job (I2)."""
    job = await rig.route(ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source=OWN)
    await fail_attempt(broker, job.request_id)
    async with replica(broker, others_after_s=0.5):
        stored = await rig.last_fact(job)
        failed = read_fact(stored)
        assert isinstance(failed, AttemptFailed)
        ended = RequestEnded.unstarted(
            failed, failed.failed_at, status=Status.CANCELLED, reason="cancelled"
        )
        await NatsRequestLog(broker).write_ended(ended, stored.sequence, source="/t")
        await asyncio.sleep(0.8)
    assert await jobs_ever(broker) == 0
    assert await rig.facts(job) == 3


async def test_a_repeated_submission_gets_the_attempt_that_is_due(
    broker: Broker, rig: WorkerRig, start_router: StartRouter
) -> None:
    """Who asks again need not wait for anybody to notice: the same job, at once (I1)."""
    job = await rig.route(ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN)
    await put_tenant(broker, job.tenant)
    async with start_router(root_key_file=rig.root_key_file):
        await fail_attempt(broker, job.request_id)
        reply = await admit(broker, job.request_id, keyring=rig.keyring, model="clumsy")
        assert isinstance(reply, Accepted)
        assert not reply.ended
        assert await jobs_ever(broker) == 1
        await rig.start_worker()
        assert (await until_ended(rig, job)).attempt == 2
    assert await rig.facts(job) == 3


async def _stored(broker: Broker, count: int) -> bool:
    return await jobs_ever(broker) == count
