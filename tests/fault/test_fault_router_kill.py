"""`kill -9` of a router between any two of its side effects; what is left, another one finishes.

The process kills itself at the chosen write (tests/support/fatal_router.py); the successor runs in
the test's own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.ledger import assert_once, wait_until_ended
from tests.support.router import admit, put_tenant
from tests.support.service_process import ServiceProcess
from tests.support.two_models import ASKED, PLAN, SCHEMA, put_two_models
from tests.support.worker_rig import TENANT, WorkerRig

from penstock_router.app import create_app
from penstock_router.settings import Settings
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.requests import (
    Accepted,
    RequestRouted,
    Status,
)
from penstock_shared.contracts.streams import JOBS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

ROUTED, JOB = RequestRouted.TYPE, "penstock.job.run.v1"
FAILED = "penstock.request.failed.v1"


def settings(rig: WorkerRig, instance: str, **options: Any) -> dict[str, Any]:
    return {
        "nats_url": rig.nats_url,
        "root_key_file": rig.root_key_file,
        "instance": instance,
        "sweep_grace_s": 0.1,
        **options,
    }


@contextlib.asynccontextmanager
async def victim(
    rig: WorkerRig, moment: str, kind: str, count: int = 1, **options: Any
) -> AsyncIterator[ServiceProcess]:
    """A router that dies at this write."""
    router = ServiceProcess(
        "tests.support.fatal_router",
        moment,
        kind,
        str(count),
        log_file=rig.directory / "victim.log",
        settings=settings(rig, "victim", **options),
    )
    await router.start()
    try:
        yield router
    except BaseException:
        print(router.log_text())
        raise
    finally:
        await router.stop()


@contextlib.asynccontextmanager
async def successor(rig: WorkerRig, **options: Any) -> AsyncIterator[None]:
    """A router that stays."""
    app = create_app(Settings(**settings(rig, "successor", **options)))
    try:
        await app.start()
        yield
        await app.drain()
    finally:
        await app.stop()


async def killed(router: ServiceProcess) -> None:
    async with asyncio.timeout(60):
        assert await router.died() == signal.SIGKILL


async def ask_until_it_dies(rig: WorkerRig, router: ServiceProcess, request_id: str) -> None:
    """Submit until the router is there; it does not live to answer."""

    async def keep_asking() -> None:
        while True:
            with contextlib.suppress(PenstockError):
                pytest.fail(f"it answered: {await ask(rig, request_id)}")
            await asyncio.sleep(0.1)

    dying, asking = asyncio.create_task(killed(router)), asyncio.create_task(keep_asking())
    await asyncio.wait([dying, asking], return_when=asyncio.FIRST_COMPLETED)
    if asking.done():
        await asking
    asking.cancel()
    await dying


async def ask(rig: WorkerRig, request_id: str) -> Any:
    return await admit(rig.broker, request_id, keyring=rig.keyring, model="echo", deadline_s=20.0)


async def stored(broker: Broker, stream: str) -> int:
    return int((await broker.jetstream.stream_info(stream)).state.last_seq)


@pytest.mark.parametrize(
    ("moment", "kind", "facts", "jobs"),
    [
        pytest.param("before", ROUTED, 0, 0, marks=pytest.mark.long),
        ("before", JOB, 1, 0),
        pytest.param("after", JOB, 1, 1, marks=pytest.mark.long),
    ],
    ids=["before routed", "routed, job", "job, reply"],
)
async def test_a_router_dies_over_a_submission(
    rig: WorkerRig, moment: str, kind: str, facts: int, jobs: int
) -> None:
    """The client was told nothing, asks again, and gets one answer to one request (I1, I2)."""
    await rig.start_worker()
    await put_tenant(rig.broker, TENANT)
    request_id = rig.ids.new()
    async with victim(rig, moment, kind) as router:
        await ask_until_it_dies(rig, router, request_id)
    found = await rig.broker.jetstream.stream_info(
        "EVENTS", subjects_filter="v1.*.events.request.*"
    )
    assert bool(found.state.subjects) == bool(facts)
    assert await stored(rig.broker, JOBS) == jobs
    async with successor(rig):
        reply = await ask(rig, request_id)
        assert isinstance(reply, Accepted)
        requests = await wait_until_ended(rig.broker)
    assert_once(requests, {request_id})
    (ended,) = requests.ended[request_id]
    assert (ended.status, ended.attempt) == (Status.COMPLETED, 1)


@pytest.mark.parametrize(
    ("moment", "jobs"),
    [("before", 1), pytest.param("after", 2, marks=pytest.mark.long)],
    ids=["attempt.failed, next job", "next job"],
)
async def test_a_router_dies_over_an_escalation(
    rig: WorkerRig, monkeypatch: pytest.MonkeyPatch, moment: str, jobs: int
) -> None:
    """Another one publishes the next attempt's job; once more is swallowed (I2)."""
    await put_two_models(rig.broker, monkeypatch)
    worker = await rig.start_worker()
    async with victim(rig, moment, JOB) as router:
        job, client = await rig.submit(
            ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source="/penstock/router/victim"
        )
        await killed(router)
    assert await stored(rig.broker, JOBS) == jobs
    async with successor(rig):
        final = await client.final()
        requests = await wait_until_ended(rig.broker)
    assert_once(requests, {job.request_id})
    assert (final.text, final.usage.output_tokens) == (ASKED, 3)
    assert await rig.facts(job) == 3
    assert await stored(rig.broker, JOBS) == 2
    assert worker.problems() == []


@pytest.mark.long
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_router_dies_over_the_end_of_a_request_whose_next_model_is_gone(
    rig: WorkerRig, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before the terminal another one writes it; after it only the frame is missing (I2)."""
    await put_two_models(rig.broker, monkeypatch)
    await kv.purge(rig.broker, Bucket.MODELS, "careful")
    await rig.start_worker()
    async with victim(rig, moment, FAILED) as router:
        job, _ = await rig.submit(
            ASKED, model="clumsy", output_schema=SCHEMA, plan=PLAN, source="/penstock/router/victim"
        )
        await killed(router)
    async with successor(rig):
        requests = await wait_until_ended(rig.broker)
        await asyncio.sleep(2.5)
    assert_once(requests, {job.request_id})
    (ended,) = requests.ended[job.request_id]
    assert ended.error is not None
    assert (ended.attempt, ended.error.code) == (2, "model_not_found")
    assert await rig.facts(job) == 3
