"""A replica learns from what it wrote as it would from the log."""

from __future__ import annotations

import random

import pytest
from tests.support.learning import decision, ended_fact, routed_fact
from tests.support.router import IDS

from penstock_router.adapters.own_facts import OwnFacts
from penstock_router.domain.learned import Learned
from penstock_shared.contracts import subjects
from penstock_shared.contracts.requests import RequestFact, RequestRouted, Status, terminal_type
from penstock_shared.runtime.broker import StoredMessage
from penstock_shared.runtime.request_log import UnreadableFactError


def message(fact: RequestFact, event_type: str = RequestRouted.TYPE) -> StoredMessage:
    return StoredMessage(
        subject=subjects.request_event(fact.tenant, fact.request_id),
        sequence=1,
        headers={"ce-type": event_type},
        data=fact.model_dump_json().encode(),
    )


def test_own_and_parsed_facts_teach_the_same() -> None:
    """The one replica that wrote them all, and the one that wrote none, have learned the same."""
    rng = random.Random(5)
    own, other = OwnFacts(), OwnFacts()
    learned = {own: Learned(), other: Learned()}
    for seq in range(1, 200):
        fact = routed_fact("acme", IDS.new(), decision=decision(rng))
        stored = message(fact)
        own.add(stored.data, fact)
        for facts, state in learned.items():
            read = facts.read(stored)
            assert read == fact
            assert (read is fact) == (facts is own)
            assert isinstance(read, RequestRouted)
            state.fold_routed(read, seq)
    assert learned[own].dump("acme") == learned[other].dump("acme")


def test_another_replicas_fact_is_the_one_that_counts() -> None:
    """Both decided the same request, the other one won: what this one had written is not used."""
    facts = OwnFacts()
    request_id = IDS.new()
    lost, won = (routed_fact("acme", request_id, model=model) for model in ("small", "large"))
    facts.add(message(lost).data, lost)
    assert facts.read(message(won)) == won


def test_a_repeated_reading_parses() -> None:
    """Facts are kept until they are read, and the latest ones only: memory is bounded."""
    facts = OwnFacts()
    fact = routed_fact("acme", IDS.new())
    facts.add(message(fact).data, fact)
    assert facts.read(message(fact)) is fact
    again = facts.read(message(fact))
    assert again == fact
    assert again is not fact
    facts.add(message(fact).data, fact)
    for number in range(1_024):
        facts.add(str(number).encode(), fact)
    assert facts.read(message(fact)) is not fact


def test_the_kind_is_what_the_log_says() -> None:
    """A terminal is parsed; the bytes of an own fact under another kind are none."""
    facts = OwnFacts()
    fact = routed_fact("acme", IDS.new())
    facts.add(message(fact).data, fact)
    ended = ended_fact(fact)
    assert facts.read(message(ended, terminal_type(Status.COMPLETED))) == ended
    with pytest.raises(UnreadableFactError):
        facts.read(message(fact, terminal_type(Status.COMPLETED)))
