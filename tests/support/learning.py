"""Facts to learn from, and a `Learned` that only notes what it was told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.router import IDS, fail_attempt

from penstock_router.adapters.learner import Learner
from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.domain.features import CONTEXT_DIMS
from penstock_router.domain.learned import CorruptSnapshotError, Learned
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.feedback import ResponseFeedback, feedback_id
from penstock_shared.contracts.requests import (
    AttemptFailed,
    Decision,
    NextAttempt,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
    Timings,
    routed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.routing import Candidate, PolicySet
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price, Usage
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.request_log import DEADLINE_HEADER

_PRICE = Price(input_microusd_per_1k=10, output_microusd_per_1k=20)


@dataclass
class Noted:
    """What was told of one tenant, in order."""

    seq: int = 0
    told: list[list[Any]] = field(default_factory=list)


class NotingLearned(Learned):
    """Notes every fact with its sequence and the model that the decision had chosen."""

    def __init__(self) -> None:
        self.noted: dict[str, Noted] = {}
        self.adopted: list[tuple[str, int]] = []
        self.foreseen: list[tuple[str, int]] = []

    def of(self, tenant: str) -> Any:
        return self.noted.get(tenant, Noted())

    def tenants(self) -> Collection[str]:
        return list(self.noted)

    def adopt_policy(self, fact: PolicySet, seq: int) -> None:
        self.adopted.append((fact.tenant, seq))

    def foresee_policy(self, fact: PolicySet, seq: int) -> None:
        self.foreseen.append((fact.tenant, seq))

    def fold_policy(self, fact: PolicySet, seq: int) -> None:
        self._note(fact.tenant, seq, "policy", fact.reason)

    def fold_routed(self, fact: RequestRouted, seq: int) -> None:
        self._note(fact.tenant, seq, "routed", fact.request_id)

    def fold_attempt_failed(self, fact: AttemptFailed, decision: Decision, seq: int) -> None:
        self._note(fact.tenant, seq, "failed", fact.request_id, decision.model)

    def fold_ended(self, fact: RequestEnded, decision: Decision, seq: int) -> None:
        self._note(fact.tenant, seq, "ended", fact.request_id, decision.model)

    def fold_feedback(self, fact: ResponseFeedback, decision: Decision, seq: int) -> None:
        self._note(fact.tenant, seq, "judged", fact.request_id, decision.model)

    def dump(self, tenant: str) -> bytes:
        noted = self.noted[tenant]
        return json.dumps([noted.seq, noted.told]).encode()

    def load(self, tenant: str, data: bytes) -> None:
        try:
            self.noted[tenant] = Noted(*json.loads(data))
        except (ValueError, TypeError) as error:
            raise CorruptSnapshotError from error

    def _note(self, tenant: str, seq: int, *what: str) -> None:
        noted = self.noted.setdefault(tenant, Noted())
        assert seq > noted.seq, "folded twice, or out of order"
        noted.seq = seq
        noted.told.append([seq, *what])


def decision(rng: random.Random) -> Decision:
    """A choice between two models, as the router logs it."""
    numbers = [127, *(rng.randrange(-127, 128) for _ in range(CONTEXT_DIMS - 1))]
    packed = b"".join(number.to_bytes(1, "big", signed=True) for number in numbers)
    candidates = tuple(
        Candidate(model=model, p_correct=0.7, prior=0.6, cost_microusd=cost, probability=0.5)
        for model, cost in (("small", 3.0), ("large", 9.0))
    )
    return Decision(
        policy="t",
        model=rng.choice(("small", "large")),
        probability=0.5,
        reason="t",
        features={"json_schema_strictness": rng.choice((0.0, 0.5))},
        context=base64.b64encode(packed).decode(),
        shape=rng.choice(("free-short-plain", "strict-short-list")),
        candidates=candidates,
        exploration_microusd=rng.random(),
    )


def routed_fact(
    tenant: str, request_id: str, *, model: str = "small", **changes: Any
) -> RequestRouted:
    """Of a request that the router has decided."""
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "request_id": request_id,
        "tenant": tenant,
        "key_id": "k1",
        "data_subject": "u1",
        "lane": Lane.STANDARD,
        "attempt": 1,
        "decision": Decision(policy="t", model=model, probability=1, reason="t", features={}),
        "price": _PRICE,
        "sampling": Sampling(),
        "content": "sealed",
        "accepted_at": now,
        "deadline": now + timedelta(seconds=600),
    }
    return RequestRouted(**fields | changes)


async def write_routed(broker: Broker, fact: RequestRouted) -> int:
    """As the router does."""
    return await broker.publish(
        subjects.request_event(fact.tenant, fact.request_id),
        fact.model_dump_json().encode(),
        Envelope(id=routed_id(fact.request_id), source="/t", type=RequestRouted.TYPE),
        expected_last_seq=0,
        extra_headers={DEADLINE_HEADER: str(fact.deadline.timestamp())},
    )


def ended_fact(
    routed: RequestRouted, *, attempt: int = 1, status: Status = Status.COMPLETED
) -> RequestEnded:
    """Of a request that a worker ran."""
    return RequestEnded(
        request_id=routed.request_id,
        tenant=routed.tenant,
        key_id=routed.key_id,
        data_subject=routed.data_subject,
        model=routed.model if attempt == 1 else routed.plan[attempt - 2].model,
        attempt=attempt,
        run=IDS.new(),
        status=status,
        reason="stop" if status is Status.COMPLETED else "error",
        usage=Usage(input_tokens=5, output_tokens=9),
        price=routed.price,
        output="sealed",
        timings=Timings(queued_ms=1, first_token_ms=2, total_ms=30),
        routed_at=routed.accepted_at,
        ended_at=routed.accepted_at + timedelta(milliseconds=30),
    )


async def write_ended(broker: Broker, fact: RequestEnded) -> int:
    """As the worker that ran it."""
    return await broker.publish(
        subjects.request_event(fact.tenant, fact.request_id),
        fact.model_dump_json().encode(),
        Envelope(
            id=terminal_id(fact.request_id, fact.attempt, fact.run),
            source="/t",
            type=terminal_type(fact.status),
        ),
    )


async def write_feedback(broker: Broker, routed: RequestRouted, score: float = 1.0) -> int:
    """As realtime."""
    fact = ResponseFeedback(
        request_id=routed.request_id,
        tenant=routed.tenant,
        key_id=routed.key_id,
        model=routed.model,
        attempt=1,
        score=score,
        given_at=routed.accepted_at,
    )
    return await broker.publish(
        subjects.feedback_event(fact.tenant, fact.request_id),
        fact.model_dump_json().encode(),
        Envelope(id=feedback_id(fact.request_id), source="/t", type=ResponseFeedback.TYPE),
        expected_last_seq=0,
    )


async def tell(
    broker: Broker,
    rng: random.Random,
    count: int,
    tenants: Sequence[str] = ("acme", "globex", "initech"),
) -> None:
    """Write the facts of `count` requests, those of each in their order and mixed up otherwise."""
    running: list[list[Any]] = []
    for _ in range(count):
        routed = routed_fact(
            rng.choice(tenants),
            IDS.new(),
            decision=decision(rng),
            plan=(NextAttempt(model="large", price=_PRICE),),
        )
        steps: list[Any] = [write_routed(broker, routed)]
        if rng.random() < 0.3:
            steps.append(fail_attempt(broker, routed.request_id, routed.tenant))
            steps.append(write_ended(broker, ended_fact(routed, attempt=2)))
        else:
            steps.append(write_ended(broker, ended_fact(routed)))
        if rng.random() < 0.4:
            steps.append(write_feedback(broker, routed, rng.random()))
        running.append(steps)
    while running:
        steps = rng.choice(running)
        await steps.pop(0)
        if not steps:
            running.remove(steps)


@contextlib.asynccontextmanager
async def learning(
    broker: Broker, learned: Learned, log: RequestLog | None = None, **options: Any
) -> AsyncIterator[Learner]:
    """A learner that saves when it stops, and otherwise only if told to."""
    options = {"save_every_s": 600, **options}
    learner = Learner(broker, log or NatsRequestLog(broker), learned, **options)
    await learner.start()
    try:
        yield learner
    finally:
        await learner.stop()


async def follow_to_the_end(broker: Broker, learner: Learner) -> None:
    last_seq = (await broker.jetstream.stream_info(EVENTS)).state.last_seq
    async with asyncio.timeout(15):
        while learner.events_seq < last_seq:
            await asyncio.sleep(0.01)


async def forget_snapshots(broker: Broker) -> None:
    """The next start reads the whole log."""
    for key in await kv.read_bucket(broker, Bucket.ROUTER):
        await kv.purge(broker, Bucket.ROUTER, key)


async def rebuilt(broker: Broker) -> dict[str, Any]:
    """What somebody notes who never stopped: the whole log, without any snapshot."""
    await forget_snapshots(broker)
    learned = NotingLearned()
    async with learning(broker, learned):
        return learned.noted
