"""The learner on a real log: what it folds, in which order, and what a restart costs it."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from tests.support.learning import (
    NotingLearned,
    ended_fact,
    follow_to_the_end,
    learning,
    rebuilt,
    routed_fact,
    tell,
    write_ended,
    write_feedback,
    write_routed,
)
from tests.support.router import IDS, fail_attempt

from penstock_router.adapters import learner as learner_module
from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.metrics import FACTS_REJECTED
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.routing import PolicyRules, PolicySet
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker


async def test_every_fact_is_folded_once_and_in_order(broker: Broker) -> None:
    """Each with the decision of its request; `start` returns when all that was there is in."""
    await tell(broker, random.Random(1), 20)
    heard: list[int] = []
    learned = NotingLearned()
    async with learning(
        broker, learned, on_request=lambda fact, _: heard.append(fact.attempt)
    ) as learner:
        at_start = learner.events_seq
        assert at_start == (await broker.jetstream.stream_info(EVENTS)).state.last_seq
        assert learner.behind == 0
        await tell(broker, random.Random(2), 20)
        await follow_to_the_end(broker, learner)
        routed = [note for noted in learned.noted.values() for note in noted.told]
        assert sorted(note[0] for note in routed) == list(range(1, learner.events_seq + 1))
        assert len(heard) == sum(note[1] in ("routed", "failed", "ended") for note in routed)
        assert learner.problems() == []


async def test_a_restart_reads_the_tail_alone_and_forgets_nothing(broker: Broker) -> None:
    """Snapshot and tail give what the whole log gives; open requests' decisions are fetched."""
    half = routed_fact("acme", IDS.new(), model="large")
    await write_routed(broker, half)
    await tell(broker, random.Random(3), 15)
    async with learning(broker, NotingLearned()):
        pass
    await fail_attempt(broker, half.request_id)
    await tell(broker, random.Random(4), 5)
    learned, read = NotingLearned(), []
    async with learning(broker, learned, on_request=lambda fact, _: read.append(fact)):
        assert len(read) < 30
    assert [note[1:] for note in learned.noted["acme"].told if note[2] == half.request_id] == [
        ["routed", half.request_id],
        ["failed", half.request_id, "large"],
    ]
    assert learned.noted == await rebuilt(broker)


@pytest.mark.parametrize(
    "payload",
    [b"not JSON", b"{}", b'{"request_id": 7}', b"\xff\xfe", b"[" * 5000],
)
async def test_malformed_facts_are_counted_and_passed_over(broker: Broker, payload: bytes) -> None:
    """Of every kind that teaches; what comes after them is learned."""
    before = FACTS_REJECTED._value.get()
    request_id = IDS.new()
    places = {
        RequestRouted.TYPE: subjects.request_event("acme", request_id),
        "penstock.request.completed.v1": subjects.request_event("acme", request_id),
        "penstock.attempt.failed.v1": subjects.request_event("acme", request_id),
        ResponseFeedback.TYPE: subjects.feedback_event("acme", request_id),
        PolicySet.TYPE: subjects.topic_event("acme", "router", "policy"),
    }
    learned = NotingLearned()
    async with learning(broker, learned) as learner:
        for kind, subject in places.items():
            await broker.publish(subject, payload, Envelope(id="x", source="/t", type=kind))
        await broker.jetstream.publish(subjects.request_event("acme", request_id), b"no headers")
        await tell(broker, random.Random(5), 2, ["acme"])
        await follow_to_the_end(broker, learner)
        assert learner.problems() == []
    assert FACTS_REJECTED._value.get() == before + len(places)
    assert {note[1] for note in learned.noted["acme"].told} >= {"routed", "ended"}


async def test_a_fact_on_anothers_subject_teaches_nothing(broker: Broker) -> None:
    """Neither its own tenant nor the one on whose subject it lies (I8)."""
    before = FACTS_REJECTED._value.get()
    stray = routed_fact("acme", IDS.new())
    await broker.publish(
        subjects.request_event("globex", stray.request_id),
        stray.model_dump_json().encode(),
        Envelope(id="x", source="/t", type=RequestRouted.TYPE),
    )
    learned = NotingLearned()
    async with learning(broker, learned):
        assert learned.noted == {}
    assert FACTS_REJECTED._value.get() == before + 1


async def test_what_learning_stumbles_over_is_passed_over(broker: Broker) -> None:
    """A fault of the fold itself costs one fact, not the learning."""

    class Stumbling(NotingLearned):
        def fold_routed(self, fact: RequestRouted, seq: int) -> None:
            if seq == 1:
                raise ZeroDivisionError
            super().fold_routed(fact, seq)

    for _ in range(2):
        await write_routed(broker, routed_fact("acme", IDS.new()))
    learned = Stumbling()
    async with learning(broker, learned) as learner:
        assert learner.events_seq == 2
    assert [note[0] for note in learned.noted["acme"].told] == [2]


async def test_feedback_on_an_unknown_request_teaches_nothing(broker: Broker) -> None:
    """Nor does the end of a reservation that never became a request."""
    unknown = routed_fact("acme", IDS.new())
    await write_feedback(broker, unknown)
    await write_ended(broker, ended_fact(unknown))
    learned = NotingLearned()
    async with learning(broker, learned) as learner:
        assert learner.events_seq == 2
    assert learned.noted == {}


async def test_the_fold_waits_for_the_log_rather_than_skip_a_fact(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision that cannot be fetched now is fetched later: replicas learn the same."""
    monkeypatch.setattr(learner_module, "_RETRY_S", 0.01)
    monkeypatch.setattr(learner_module, "_DECISIONS_KEPT", 1)

    class Flaky(NatsRequestLog):
        refusals = 3

        async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
            if self.refusals:
                self.refusals -= 1
                raise UnavailableError("Not now.")
            return await super().routed(tenant, request_id)

    first, second = (routed_fact("acme", IDS.new(), model=name) for name in ("small", "large"))
    for routed in (first, second):
        await write_routed(broker, routed)
    for routed in (first, second):
        await write_ended(broker, ended_fact(routed))
    learned = NotingLearned()
    async with learning(broker, learned, Flaky(broker)):
        assert [note[1:] for note in learned.noted["acme"].told[2:]] == [
            ["ended", first.request_id, "small"],
            ["ended", second.request_id, "large"],
        ]


async def write_policy(broker: Broker) -> tuple[PolicySet, int]:
    now = datetime.now(UTC)
    policy = PolicySet(tenant="acme", rules=PolicyRules(), reason="operator", set_at=now)
    sequence = await broker.publish(
        subjects.topic_event("acme", "router", "policy"),
        policy.model_dump_json().encode(),
        Envelope(id="p", source="/t", type=PolicySet.TYPE),
    )
    return policy, sequence


async def test_policies_are_folded_in_their_place(broker: Broker) -> None:
    """Their copies are left alone then: an experiment must not begin before its fact."""
    copy = await write_policy(broker)
    learned = NotingLearned()
    async with learning(broker, learned, policy_copies=lambda: [copy]):
        assert learned.noted["acme"].told == [[1, "policy", "operator"]]
    assert learned.adopted == []


async def test_a_policy_that_was_purged_is_adopted_from_its_copy(broker: Broker) -> None:
    """What EVENTS has lost, the bucket has kept (I9)."""
    copy = await write_policy(broker)
    await write_routed(broker, routed_fact("acme", IDS.new()))
    await broker.jetstream.purge_stream(EVENTS, seq=2)
    learned = NotingLearned()
    async with learning(broker, learned, policy_copies=lambda: [copy]):
        assert [note[1] for note in learned.noted["acme"].told] == ["routed"]
    assert learned.adopted == [("acme", 1)]


async def test_a_start_does_not_wait_for_ever(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with the rules that hold now, and learns the rest while it serves."""
    monkeypatch.setattr(learner_module, "_CATCH_UP_S", 0.1)
    monkeypatch.setattr(learner_module, "_RETRY_S", 0.01)

    class Away(NatsRequestLog):
        away = True

        async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
            if self.away:
                raise UnavailableError("Not now.")
            return await super().routed(tenant, request_id)

    log = Away(broker)
    await write_ended(broker, ended_fact(routed_fact("acme", IDS.new())))
    copy = await write_policy(broker)
    learned = NotingLearned()
    async with learning(broker, learned, log, policy_copies=lambda: [copy]) as learner:
        assert (learner.events_seq, learner.behind) == (0, 1)
        assert learned.foreseen == [("acme", 2)]
        log.away = False
        await follow_to_the_end(broker, learner)
        assert learned.noted["acme"].told == [[2, "policy", "operator"]]
