"""Between the decision and the answer of the log, here one that takes its time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.breaking import BROKEN, ended
from tests.support.router import model_record

from penstock_router.domain.breakers import Breakers
from penstock_router.domain.classifier import Classifier
from penstock_router.domain.confidence import Confidences
from penstock_router.domain.learned import Learned
from penstock_router.domain.lexicon import Lexicon
from penstock_router.domain.modes import Modes
from penstock_router.domain.open_requests import OpenRequests
from penstock_router.domain.queue_load import QueueLoad
from penstock_router.handlers.admissions import Admissions
from penstock_router.handlers.routes import AdmissionLimits, Knowledge, Routes
from penstock_router.ports import QuotaGate, RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.plans import TenantPrices
from penstock_shared.contracts.requests import Accepted, Admission, RequestRouted
from penstock_shared.contracts.submissions import conversation
from penstock_shared.runtime.broker import SequenceConflictError
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.kv import BucketMirror

CLOCK = SystemClock()
IDS = IdSource(CLOCK)


class SlowLog:
    """Confirms nothing before it is let go; knows no request, or has every one already."""

    def __init__(self, known: RequestRouted | None = None) -> None:
        self.go = asyncio.Event()
        self._known = known

    async def write_routed(self, *_: object, **__: object) -> int:
        await self.go.wait()
        if self._known is not None:
            raise SequenceConflictError("It stands already.")
        return 1

    async def last_fact(self, *_: object) -> tuple[int, RequestRouted | None]:
        return 1, self._known

    async def publish_job(self, *_: object, **__: object) -> None:
        pass


class Mirror:
    """One model; no tenant has a record, or prices."""

    def values(self) -> list[ModelRecord]:
        return [model_record("tiny", queue=2)]

    def get(self, _: str) -> None:
        return None


def admissions_on(
    log: SlowLog, loads: defaultdict[str, QueueLoad], breakers: Breakers | None = None
) -> Admissions:
    mirror: Any = Mirror()
    knowledge = Knowledge(
        models=cast("BucketMirror[ModelRecord]", mirror),
        prices=cast("BucketMirror[TenantPrices]", mirror),
        learned=Learned(),
        lexicon=Lexicon(),
        classifier=Classifier(),
        confidences=Confidences({}),
        breakers=breakers or Breakers(),
        modes=Modes(batch_wait_limit_s=60),
        open_requests=OpenRequests(grace_s=30),
        loads=loads,
    )
    limits = AdmissionLimits(default_deadline_s=60, fair_in_flight=64, queue_limit=100)
    return Admissions(
        log=cast("RequestLog", log),
        routes=Routes(knowledge, limits, CLOCK),
        knowledge=knowledge,
        tenants=cast("BucketMirror[TenantRecord]", mirror),
        quotas=cast("QuotaGate", None),  # nobody has one
        source="/test",
    )


async def admit(admissions: Admissions, request_id: str | None = None) -> Accepted:
    admission = Admission(
        request_id=request_id or IDS.new(),
        key_id="k1",
        data_subject="u1",
        model="tiny",
        content="sealed",
    )
    return await admissions.admit("acme", admission, conversation("hi"), None)


async def test_a_burst_does_not_overtake_the_count_of_the_queue() -> None:
    """Of five that come before the log confirms the first, a queue of two takes two."""
    log = SlowLog()
    admissions = admissions_on(log, defaultdict(QueueLoad))
    burst = [asyncio.create_task(admit(admissions)) for _ in range(5)]
    await asyncio.sleep(0)
    log.go.set()
    answers = await asyncio.gather(*burst, return_exceptions=True)
    assert [isinstance(answer, Accepted) for answer in answers] == [True] * 2 + [False] * 3
    assert all(isinstance(answer, UnavailableError) for answer in answers[2:])


async def test_repetitions_do_not_fill_the_queue() -> None:
    """What the log has already brings no job, so it takes nobody's place (I8)."""
    golden = Path(__file__).parents[2] / "contracts/golden/request.routed.v1.json"
    log = SlowLog(RequestRouted.model_validate_json(golden.read_bytes()))
    log.go.set()
    loads: defaultdict[str, QueueLoad] = defaultdict(QueueLoad)
    admissions = admissions_on(log, loads)
    for _ in range(5):
        await admit(admissions)
    assert loads["tiny"].depth == 0


async def test_what_is_open_is_not_refused_for_a_model_that_fails_by_now() -> None:
    """Told "rejected", its client would send another one, and both would run (I2)."""
    golden = Path(__file__).parents[2] / "contracts/golden/request.routed.v1.json"
    log, breakers = SlowLog(RequestRouted.model_validate_json(golden.read_bytes())), Breakers()
    log.go.set()
    admissions = admissions_on(log, defaultdict(QueueLoad), breakers)
    request_id = IDS.new()
    admissions._open.fold_open(subjects.request_event("acme", request_id), 1, 2e9)
    for number in range(8):
        breakers.observe(ended(number, model="tiny", error=BROKEN), CLOCK.now())
    with pytest.raises(UnavailableError):
        await admit(admissions)
    assert await admit(admissions, request_id)
