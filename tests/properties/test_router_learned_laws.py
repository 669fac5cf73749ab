"""Laws of what is learned: a fold over the log, alike in every replica, each tenant's its own."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_router.domain.choice import Option, choose, draw_of
from penstock_router.domain.features import CONTEXT_DIMS, unpack_context
from penstock_router.domain.learned import CorruptSnapshotError, Learned
from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import (
    AttemptFailed,
    Decision,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
    Timings,
)
from penstock_shared.contracts.routing import Candidate, Experiment, PolicyRules, PolicySet
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price, Usage

TENANTS = ("acme", "globex")
MODELS = ("small", "medium", "large")
START = datetime(2026, 11, 20, tzinfo=UTC)
PRICE = Price(input_microusd_per_1k=50, output_microusd_per_1k=200)
SEEDS = st.integers(0, 2**32)


@dataclass(frozen=True)
class Entry:
    """A fact of EVENTS, where it stands, and the decision that it belongs to."""

    seq: int
    fact: PolicySet | RequestRouted | AttemptFailed | RequestEnded | ResponseFeedback
    decision: Decision


def packed(rng: random.Random) -> str:
    numbers = [127, *(rng.randrange(-127, 128) for _ in range(CONTEXT_DIMS - 1))]
    return base64.b64encode(bytes(number % 256 for number in numbers)).decode()


def decision_of(rng: random.Random) -> Decision:
    return Decision(
        policy="t",
        model=rng.choice(MODELS),
        probability=1 / 3,
        reason="t",
        features={"json_schema_strictness": rng.choice((0.0, 0.5))},
        context=packed(rng),
        shape=rng.choice(("free-short-plain", "strict-long-code")),
        candidates=tuple(
            Candidate(
                model=model,
                p_correct=rng.random(),
                prior=rng.choice((None, rng.random())),
                cost_microusd=rng.uniform(1, 500),
                probability=1 / 3,
            )
            for model in MODELS
        ),
        experiment=rng.choice((None, "e1")),
        arm=rng.choice(("baseline", "candidate")),
        exploration_microusd=rng.random(),
    )


def history(seed: int, count: int = 60) -> list[Entry]:
    """A log of some tenants: policies, and requests with all that can become of them."""
    rng = random.Random(seed)
    entries: list[Entry] = []
    later: list[tuple[str, Decision, str]] = []
    for n in range(count):
        seq = 1 + 3 * n
        if n % 20 == 0:
            tenant = rng.choice(TENANTS)
            entries.append(Entry(seq, policy_of(tenant, rng), Decision(**EMPTY)))
        elif later and rng.random() < 0.6:
            tenant, decision, request_id = later.pop(rng.randrange(len(later)))
            entries.append(Entry(seq, sequel(rng, tenant, decision, request_id, n), decision))
        else:
            tenant, decision = rng.choice(TENANTS), decision_of(rng)
            request_id = f"0193e7a0-0000-7000-8000-{n:012d}"
            entries.append(Entry(seq, routed(tenant, decision, request_id), decision))
            later.extend([(tenant, decision, request_id)] * 2)
    return entries


EMPTY: dict[str, Any] = {
    "policy": "t",
    "model": "small",
    "probability": 1,
    "reason": "t",
    "features": {},
}


def policy_of(tenant: str, rng: random.Random) -> PolicySet:
    rules = PolicyRules(error_penalty_microusd=rng.randrange(10_000))
    return PolicySet(
        tenant=tenant,
        rules=rules,
        experiment=rng.choice((None, Experiment(id="e1", candidate=rules))),
        reason="operator",
        set_at=START,
    )


def routed(tenant: str, decision: Decision, request_id: str) -> RequestRouted:
    return RequestRouted(
        **attempt_of(tenant, request_id),
        lane=Lane.STANDARD,
        attempt=1,
        decision=decision,
        sampling=Sampling(),
        content="sealed",
        accepted_at=START,
        deadline=START + timedelta(seconds=60),
    )


def attempt_of(tenant: str, request_id: str) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "request_id": request_id,
        "key_id": "k1",
        "data_subject": "u1",
        "price": PRICE,
    }


def sequel(
    rng: random.Random, tenant: str, decision: Decision, request_id: str, n: int
) -> AttemptFailed | RequestEnded | ResponseFeedback:
    common: dict[str, Any] = attempt_of(tenant, request_id) | {
        "model": rng.choice((*MODELS, "unheard-of")),
        "attempt": rng.choice((1, 2)),
        "run": f"0193e7a0-0000-7000-9000-{n:012d}",
        "usage": Usage(input_tokens=20, output_tokens=rng.randrange(200)),
        "output": "sealed",
        "timings": Timings(queued_ms=1, first_token_ms=2, total_ms=rng.random() * 1000),
        "routed_at": START,
    }
    match rng.randrange(4):
        case 0:
            return AttemptFailed(**common, reason="schema", detail="sealed", failed_at=START)
        case 1:
            return RequestEnded(**common, status=Status.COMPLETED, reason="stop", ended_at=START)
        case 2:
            error = ErrorBody(
                message="t", type="server_error", code=rng.choice(("output_invalid", "x"))
            )
            return RequestEnded(
                **common, status=Status.FAILED, reason="error", error=error, ended_at=START
            )
        case _:
            return ResponseFeedback(
                request_id=request_id,
                tenant=tenant,
                key_id="k1",
                model=common["model"],
                attempt=1,
                score=rng.random(),
                given_at=START,
            )


def fold(learned: Learned, entries: Sequence[Entry]) -> None:
    for entry in entries:
        match entry.fact:
            case PolicySet() as fact:
                learned.fold_policy(fact, entry.seq)
            case RequestRouted() as fact:
                learned.fold_routed(fact, entry.seq)
            case AttemptFailed() as fact:
                learned.fold_attempt_failed(fact, entry.decision, entry.seq)
            case RequestEnded() as fact:
                learned.fold_ended(fact, entry.decision, entry.seq)
            case ResponseFeedback() as fact:
                learned.fold_feedback(fact, entry.decision, entry.seq)


def folded(entries: Sequence[Entry]) -> Learned:
    learned = Learned()
    fold(learned, entries)
    return learned


def restarted(learned: Learned) -> Learned:
    """Another process with the snapshots of this one."""
    other = Learned()
    for tenant in learned.tenants():
        other.load(tenant, learned.dump(tenant))
    return other


def dumps(learned: Learned) -> dict[str, bytes]:
    return {tenant: learned.dump(tenant) for tenant in TENANTS}


def chosen(learned: Learned, tenant: str, rng: random.Random) -> tuple[int, tuple[float, ...]]:
    """What a replica with this state decides, with the exact probabilities."""
    state, x = learned.of(tenant), unpack_context(packed(rng))
    options = []
    for model in MODELS:
        estimate = state.estimate(model, x, rng.random())
        options.append(
            Option(model, estimate.p_correct, estimate.deviation, 100.0, estimate.observations)
        )
    choice = choose(
        options,
        penalty_microusd=state.rules.error_penalty_microusd,
        exploration_budget_microusd=state.exploration_budget_microusd,
        u=draw_of(str(rng.random())),
    )
    return choice.index, choice.probabilities


@given(SEEDS, st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_replicas_that_read_the_same_log_decide_alike(seed: int, first: int, second: int) -> None:
    """One was never restarted, the other twice, anywhere in the log: same state, same choices."""
    entries = history(seed)
    steady = folded(entries)
    other = folded(entries[:first])
    other = restarted(other)
    fold(other, entries[first:second])
    other = restarted(other)
    fold(other, entries[max(first, second) :])
    assert dumps(other) == dumps(steady)
    for tenant in TENANTS:
        for n in range(5):
            same = f"{seed}/{n}"
            assert chosen(steady, tenant, random.Random(same)) == chosen(
                other, tenant, random.Random(same)
            )


@given(SEEDS, st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_a_policy_known_before_its_fact_rules_and_teaches_nothing(seed: int, place: int) -> None:
    """A replica that starts slowly decides by the last rules, and learns what the others do."""
    entries = history(seed)
    slow = folded(entries[:place])
    last = {e.fact.tenant: e for e in entries if isinstance(e.fact, PolicySet)}
    for tenant, entry in last.items():
        assert isinstance(entry.fact, PolicySet)
        slow.foresee_policy(entry.fact, entry.seq)
        assert slow.of(tenant).in_force == entry.fact
    fold(slow, entries[place:])
    assert dumps(slow) == dumps(folded(entries))
    for tenant, entry in last.items():
        assert slow.of(tenant).in_force == slow.of(tenant).policy == entry.fact


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_folding_again_changes_nothing(seed: int) -> None:
    """Facts that come twice, or old ones that come late, teach nothing new (I2)."""
    entries = history(seed)
    rng = random.Random(seed)
    learned = Learned()
    for place, entry in enumerate(entries):
        fold(learned, [entry])
        before = dumps(learned)
        fold(learned, rng.choices(entries[: place + 1], k=3))
        if place % 7 == 0:
            assert dumps(learned) == before
    assert dumps(learned) == dumps(folded(entries))


@given(SEEDS, st.sampled_from(TENANTS))
@settings(max_examples=15, deadline=None)
def test_a_tenant_s_history_never_influences_another(seed: int, tenant: str) -> None:
    """With or without the facts of all other tenants, the state is the same to the bit (I8)."""
    entries = history(seed)
    own = [entry for entry in entries if entry.fact.tenant == tenant]
    assert folded(own).dump(tenant) == folded(entries).dump(tenant)
    assert set(folded(own).tenants()) <= {tenant}


@given(SEEDS, st.data())
@settings(max_examples=40, deadline=None)
def test_a_damaged_snapshot_is_refused(seed: int, data: st.DataObject) -> None:
    """A flipped byte, a missing end, another tenant's: typed, and the state stays as it was."""
    entries = history(seed, count=25)
    learned = folded(entries)
    whole = learned.dump("acme")
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes((whole[place] ^ data.draw(st.integers(1, 255)),))
    for damaged in (whole[:place], whole[:place] + flipped + whole[place + 1 :], whole + b" "):
        with pytest.raises(CorruptSnapshotError):
            learned.load("acme", damaged)
    with pytest.raises(CorruptSnapshotError, match="another tenant"):
        learned.load("globex", whole)
    assert dumps(learned) == dumps(folded(entries))
