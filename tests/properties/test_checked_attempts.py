"""Whatever attempts, holders, deaths and cancellations there are: clients see what was checked."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_realtime.domain.continuation import Continuation
from penstock_realtime.domain.renderer import Piece
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import (
    AttemptFailed,
    Decision,
    NextAttempt,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
    routed_id,
)
from penstock_shared.contracts.responses import DELTA_START, FinalFrame
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import NOTHING_USED, Price
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.request_log import read_fact
from penstock_worker.adapters.json_schema import RustAnswerSchema
from penstock_worker.adapters.nats_responses import NatsResponses
from penstock_worker.domain.byte_level import ByteLevelDetokenizer
from penstock_worker.domain.ending import Run
from penstock_worker.domain.functions import Functions
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.handlers.answers import Answers
from penstock_worker.handlers.preparation import Prepared
from penstock_worker.handlers.terminals import Terminals
from penstock_worker.ports import SamplingOptions

REQUEST_ID = "01890000-0000-7000-8000-000000000000"
NOW = datetime.now(UTC)
SCHEMA = {"type": "object", "required": ["name"]}
GOOD = ('{"name": 1}', '{"name": "Ada"}')
BAD = ("", "Sure!", '{"title": 1}', '{"name": 1')
PRICE = Price(input_microusd_per_1k=1, output_microusd_per_1k=2)
BYTES = [bytes([number]) for number in range(256)]
LEAST = 0.5


class Log:
    """EVENTS and RESPONSES of one request: expected-last-sequence, and frames in their order."""

    def __init__(self) -> None:
        self.facts: list[StoredMessage] = []
        self.frames: list[bytes] = []

    async def publish(
        self,
        subject: str,
        payload: bytes,
        envelope: Envelope,
        *,
        expected_last_seq: int,
        **_: object,
    ) -> int:
        if expected_last_seq != len(self.facts):
            raise SequenceConflictError("Somebody else was first.")
        sequence = len(self.facts) + 1
        self.facts.append(StoredMessage(subject, sequence, envelope.headers(), payload))
        return sequence

    async def publish_core(self, _: str, payload: bytes) -> None:
        self.frames.append(payload)

    async def last_message(self, *_: str) -> StoredMessage | None:
        return self.facts[-1]


class OpenKeyring:
    """Seals nothing: what lies sealed is no client's either way."""

    async def seal(self, *given: str) -> str:
        return given[-1]


@dataclass(frozen=True)
class Holder:
    """One pickup of a job: what it generates, how sure it is, and how it goes."""

    text: str
    sure: bool
    stop: Stop | None
    shows: bool
    """False: it dies between its fact and the final frame."""


@dataclass
class World:
    """A request, the jobs of its attempts, and whoever holds one."""

    log: Log = field(default_factory=Log)
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        broker = cast("Broker", self.log)
        clock = SystemClock()
        self.answers = Answers(cast("Keyring", OpenKeyring()), clock)
        sink = NatsResponses(broker)
        self.shown = Terminals(broker, sink, clock, random.Random(1), "/t")
        dying = NatsResponses(cast("Broker", Log()))
        self.unshown = Terminals(broker, dying, clock, random.Random(1), "/t")

    async def route(self, attempts: int, min_confidence: float | None) -> RequestRouted:
        following = NextAttempt(model="strong", price=PRICE, min_confidence=min_confidence)
        routed = RequestRouted(
            request_id=REQUEST_ID,
            tenant="acme",
            key_id="k",
            data_subject="u",
            lane=Lane.STANDARD,
            attempt=1,
            decision=Decision(policy="t", model="cheap", probability=1, reason="t", features={}),
            price=PRICE,
            sampling=Sampling(),
            content="sealed",
            accepted_at=NOW,
            deadline=NOW + timedelta(hours=1),
            final_attempt=attempts == 1,
            min_confidence=min_confidence,
            plan=(following,) * (attempts - 1),
        )
        envelope = Envelope(id=routed_id(REQUEST_ID), source="/t", type=RequestRouted.TYPE)
        payload = routed.model_dump_json().encode()
        sequence = await self.log.publish("", payload, envelope, expected_last_seq=0)
        self.jobs.append(Job.from_routed(routed, sequence))
        return routed

    async def hold(self, job: Job, holder: Holder, number: int) -> None:
        """What a worker does with a job, from its last token on."""
        work = Generation(
            prompt=["a"],
            options=SamplingOptions(),
            limit=1000,
            stop_at_s=1e9,
            detokenizer=ByteLevelDetokenizer(BYTES),
            withheld=True,
        )
        for byte in holder.text.encode():
            work.accept(byte, -0.1 if holder.sure else -2.0, 0.0)
        work.stop, work.ended = holder.stop, True
        work.take()
        run_id = f"01890000-0000-7000-8000-{number:012d}"
        run = Run(job, run_id, "frames", ModelKind.TEXT, work, started_at=NOW)
        prepared = Prepared(run, RustAnswerSchema(SCHEMA), Functions())
        fact, text = await self.answers.conclude(prepared)
        terminals = self.shown if holder.shows else self.unshown
        if isinstance(fact, AttemptFailed):
            await terminals.write_failed_attempt(job, fact, None)
        else:
            await terminals.write(job, fact, text, None)


HOLDERS = st.builds(
    Holder,
    text=st.sampled_from(GOOD + BAD),
    sure=st.booleans(),
    stop=st.sampled_from([None, None, None, *Stop][:-1]),  # who abandons a run writes nothing
    shows=st.booleans(),
)


@settings(deadline=None)
@given(
    attempts=st.integers(1, 3),
    min_confidence=st.sampled_from([None, LEAST]),
    held=st.lists(st.tuples(st.integers(0, 2), HOLDERS), max_size=8),
)
def test_clients_see_checked_answers_only(
    attempts: int, min_confidence: float | None, held: list[tuple[int, Holder]]
) -> None:
    """Of any holders, late ones among them, one answer that passed is shown, whole (I2, I6).

    What it tells to have used is what the request's facts bill (I3).
    """
    world = World()
    asyncio.run(live(world, attempts, min_confidence, held))
    facts = [read_fact(message) for message in world.log.facts]
    ended = [fact for fact in facts if isinstance(fact, RequestEnded)]
    assert ended in ([], facts[-1:])
    assert not any(frame.startswith(DELTA_START) for frame in world.log.frames)
    finals = [FinalFrame.model_validate_json(frame) for frame in world.log.frames]
    assert len(finals) <= len(ended)
    billed = NOTHING_USED
    for fact in facts:
        billed = billed if isinstance(fact, RequestRouted) else billed + fact.usage
    for final in finals:
        told = [one for one in Continuation().finish(final) if isinstance(one, Piece)]
        text = "".join(json.loads(piece.literal) for piece in told)
        assert text in {"", *GOOD}
        assert text == final.text
        assert (text != "") == (final.status in (Status.COMPLETED, Status.INCOMPLETE))
        assert final.usage == billed


async def live(
    world: World, attempts: int, min_confidence: float | None, held: list[tuple[int, Holder]]
) -> None:
    """Each holder takes one of the jobs that were published; the router follows every failure."""
    routed = await world.route(attempts, min_confidence)
    for number, (which, holder) in enumerate(held):
        await world.hold(world.jobs[which % len(world.jobs)], holder, number)
        last: Any = read_fact(world.log.facts[-1])
        if isinstance(last, AttemptFailed) and last.attempt == len(world.jobs):
            following = Job.after(routed, last, len(world.log.facts))
            assert following is not None
            world.jobs.append(following)
