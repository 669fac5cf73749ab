"""`kill -9` of a router between any two of its side effects; what is left, another one finishes.

The process kills itself at the chosen write (tests/support/fatal_router.py); the successor runs in
the test's own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel
from tests.support.learning import forget_snapshots, learning, tell
from tests.support.ledger import assert_once, wait_until_ended
from tests.support.quotas import quota_rig, tenant
from tests.support.router import admit, put_tenant
from tests.support.service_process import ServiceProcess
from tests.support.two_models import ASKED, PLAN, SCHEMA, put_two_models
from tests.support.worker_rig import TENANT, WorkerRig, until

from penstock_router.app import create_app
from penstock_router.domain.learned import Learned
from penstock_router.handlers import orphans
from penstock_router.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    Accepted,
    RequestEnded,
    RequestRouted,
    Status,
)
from penstock_shared.contracts.routing import (
    PolicyRules,
    PolicySet,
    PolicyState,
    SetPolicy,
    ShowPolicy,
)
from penstock_shared.contracts.streams import EVENTS, JOBS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

ROUTED, JOB = RequestRouted.TYPE, "penstock.job.run.v1"
FAILED = "penstock.request.failed.v1"
COPY, SNAPSHOTS = "$KV.router.policy.", "$KV.router."


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


async def ended_fact(rig: WorkerRig, request_id: str) -> RequestEnded:
    subject = subjects.request_event(TENANT, request_id)
    async with asyncio.timeout(20):
        while True:
            message = await rig.broker.last_message(EVENTS, subject)
            if message is not None and message.event_type in TERMINAL_TYPES:
                return RequestEnded.model_validate_json(message.data)
            await asyncio.sleep(0.05)


async def ask_until_it_dies(
    rig: WorkerRig, router: ServiceProcess, request_id: str, **changes: Any
) -> None:
    """Submit until the router is there; it does not live to answer."""

    async def keep_asking() -> None:
        while True:
            with contextlib.suppress(PenstockError):
                pytest.fail(f"it answered: {await ask(rig, request_id, **changes)}")
            await asyncio.sleep(0.1)

    dying, asking = asyncio.create_task(killed(router)), asyncio.create_task(keep_asking())
    await asyncio.wait([dying, asking], return_when=asyncio.FIRST_COMPLETED)
    if asking.done():
        await asking
    asking.cancel()
    await dying


async def ask(rig: WorkerRig, request_id: str, **changes: Any) -> Any:
    changes = {"model": "echo", "deadline_s": 20.0, **changes}
    return await admit(rig.broker, request_id, keyring=rig.keyring, **changes)


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


@pytest.mark.long
@pytest.mark.parametrize("repeated", [True, False])
async def test_a_router_dies_between_a_reservation_and_its_request(
    rig: WorkerRig,
    postgres_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    repeated: bool,  # noqa: FBT001  parametrised
) -> None:
    """The repetition takes it over; without one it ends by a fact, with nothing used (I2, I4)."""
    monkeypatch.setattr(orphans, "_LOOK_EVERY_S", 0.2)
    await rig.start_worker()
    request_id = rig.ids.new()
    async with quota_rig(postgres_dsn) as quotas:
        record = await quotas.set_quotas(tenant(TENANT, "tokens/day=1000000000"))
        data = record.model_dump_json().encode()
        await kv.put(rig.broker, Bucket.TENANTS, TENANT, data)
        async with victim(rig, "before", ROUTED, postgres_dsn=postgres_dsn) as router:
            await ask_until_it_dies(rig, router, request_id, deadline_s=20.0 if repeated else 1.0)
        assert await quotas.open_rows() == 1
        async with successor(rig, postgres_dsn=postgres_dsn):
            if repeated:
                assert isinstance(await ask(rig, request_id), Accepted)
            ended = await ended_fact(rig, request_id)
        assert (ended.reason, ended.run is None) == (
            ("stop", False) if repeated else ("expired", True)
        )
        await quotas.end(ended)
        assert await quotas.open_rows() == 0
        await quotas.check_sums()


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


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        pytest.param("before", PolicySet.TYPE, marks=pytest.mark.long),
        ("after", PolicySet.TYPE),
        pytest.param("after", COPY, marks=pytest.mark.long),
    ],
    ids=["before the fact", "fact, copy", "after the copy"],
)
async def test_a_router_dies_over_a_policy(rig: WorkerRig, moment: str, kind: str) -> None:
    """The policy holds if its fact stands, whatever its operator heard; a copy follows (I9)."""
    await put_tenant(rig.broker, TENANT)
    rules = PolicyRules(error_penalty_microusd=7)
    setting = SetPolicy(tenant=TENANT, rules=rules)
    async with victim(rig, moment, kind) as router:
        dying = asyncio.create_task(killed(router))
        while not dying.done():
            with contextlib.suppress(PenstockError):
                await command(rig.broker, "set-policy", setting)
            await asyncio.sleep(0.1)
        await dying
    written = kind != PolicySet.TYPE or moment == "after"
    async with successor(rig):
        state = await command(rig.broker, "show-policy", ShowPolicy(tenant=TENANT))
        assert (state.sequence > 0, state.rules == rules) == (written, written)
        again = await command(rig.broker, "set-policy", setting)
        assert again.rules == rules
        assert not written or again.sequence == state.sequence
        await until(lambda: _copied(rig.broker, again.sequence))


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        pytest.param("before", 1, marks=pytest.mark.long),
        ("after", 2),
        pytest.param("after", 3, marks=pytest.mark.long),
        pytest.param("after", 4, marks=pytest.mark.long),
        pytest.param("after", 6, marks=pytest.mark.long),
    ],
)
async def test_a_router_dies_over_its_snapshots(rig: WorkerRig, moment: str, count: int) -> None:
    """Between any two of its writes: what is there and the log's tail are the whole log (I9).

    Three tenants' states and a manifest are four writes; the sixth is in the next round.
    """
    await tell(rig.broker, random.Random(count), 12)
    async with victim(rig, moment, SNAPSHOTS, count, snapshot_every_s=0.2) as router:
        dying = asyncio.create_task(killed(router))
        while not dying.done():
            await tell(rig.broker, random.Random(count), 2)
            await asyncio.sleep(0.1)
        await dying
    restored, anew = Learned(), Learned()
    async with learning(rig.broker, restored):
        pass
    await forget_snapshots(rig.broker)
    async with learning(rig.broker, anew):
        pass
    assert {tenant: restored.dump(tenant) for tenant in restored.tenants()} == {
        tenant: anew.dump(tenant) for tenant in anew.tenants()
    }


async def command(broker: Broker, verb: str, payload: BaseModel) -> PolicyState:
    reply = await broker.request(
        subjects.router_command(verb), payload.model_dump_json().encode(), timeout_s=2
    )
    return PolicyState.model_validate_json(reply.data)


async def _copied(broker: Broker, sequence: int) -> bool:
    entry = await kv.last_entry(broker, Bucket.ROUTER, f"policy.{TENANT}")
    return entry is not None and json.loads(entry.data)["sequence"] == sequence
