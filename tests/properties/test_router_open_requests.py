"""Laws of the fold over open requests: the router's counts are those of the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from penstock_router.domain.open_requests import OpenRequests

DEADLINE_UNIX_S = 1e9
TENANTS = ("acme", "globex", "initech")


@dataclass(frozen=True)
class Fact:
    """One message of EVENTS, as far as the fold looks at it."""

    subject: str
    sequence: int
    ends: bool


@st.composite
def logs(draw: st.DrawFn) -> list[Fact]:
    """Requests that are routed, perhaps fail an attempt, and perhaps end, interleaved."""
    facts: list[Fact] = []
    lives = {
        f"v1.{draw(st.sampled_from(TENANTS))}.events.request.{n}": draw(
            st.sampled_from(("o", "oo", "oe", "ooe"))
        )
        for n in range(draw(st.integers(1, 12)))
    }
    while lives:
        subject = draw(st.sampled_from(sorted(lives)))
        facts.append(Fact(subject, 1 + 2 * len(facts), ends=lives[subject][0] == "e"))
        lives[subject] = lives[subject][1:]
        if not lives[subject]:
            del lives[subject]
    return facts


def fold(counts: OpenRequests, facts: list[Fact]) -> None:
    for fact in facts:
        if fact.ends:
            counts.fold_ended(fact.subject, fact.sequence)
        else:
            counts.fold_open(fact.subject, fact.sequence, DEADLINE_UNIX_S)


def counted(counts: OpenRequests) -> dict[str, int]:
    return {tenant: n for tenant in TENANTS if (n := counts.of_tenant(tenant))}


def expected(facts: list[Fact]) -> dict[str, int]:
    last = {fact.subject: fact for fact in facts}
    return dict(Counter(f.subject.split(".")[1] for f in last.values() if not f.ends))


@given(log=logs())
def test_counts_are_those_of_the_log(log: list[Fact]) -> None:
    """After any prefix each tenant counts what is routed and not ended, a failed attempt too."""
    counts = OpenRequests(0)
    for end in range(len(log)):
        fold(counts, log[end : end + 1])
        assert counted(counts) == expected(log[: end + 1])


@given(log=logs(), again=st.data())
def test_repetitions_change_nothing(log: list[Fact], again: st.DataObject) -> None:
    """What is delivered again, from anywhere before, neither counts twice nor reopens (I2)."""
    counts = OpenRequests(0)
    for end in range(1, len(log) + 1):
        fold(counts, log[end - 1 : end])
        start = again.draw(st.integers(0, end))
        fold(counts, log[start : again.draw(st.integers(start, end))])
        assert counted(counts) == expected(log[:end])


@given(log=logs())
def test_a_restart_rebuilds_the_same_counts(log: list[Fact]) -> None:
    """The last fact of each request is all that a new replica reads (I9)."""
    grown, rebuilt = OpenRequests(0), OpenRequests(0)
    fold(grown, log)
    last = {fact.subject: fact for fact in log}
    fold(rebuilt, sorted(last.values(), key=lambda fact: fact.sequence))
    assert counted(rebuilt) == counted(grown)
    assert len(rebuilt) == len(grown)


@given(log=logs(), data=st.data())
def test_own_admissions_count_once_however_they_meet_the_fold(
    log: list[Fact], data: st.DataObject
) -> None:
    """A replica counts what it decides at once; the fold before or after adds nothing to it."""
    counts = OpenRequests(0)
    mine = {f.subject for f in log if data.draw(st.booleans())}
    late: list[Fact] = []
    routed: set[str] = set()
    for fact in log:
        first = fact.subject not in routed
        routed.add(fact.subject)
        if first and fact.subject in mine:
            before = counts.of_tenant(fact.subject.split(".")[1])
            counts.begin(fact.subject)
            assert counts.of_tenant(fact.subject.split(".")[1]) == before + 1
            if data.draw(st.booleans()):  # the acknowledgement overtakes the fold
                counts.admitted(fact.subject, fact.sequence, DEADLINE_UNIX_S)
                counts.finish(fact.subject)
            else:
                late.append(fact)
        fold(counts, [fact])
    for fact in late:
        counts.admitted(fact.subject, fact.sequence, DEADLINE_UNIX_S)
        counts.finish(fact.subject)
    assert counted(counts) == expected(log)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_what_is_refused_leaves_no_count(steps: list[tuple[str, bool]]) -> None:
    """Decisions that come to nothing, several at once for one id too, end at zero."""
    counts = OpenRequests(0)
    running: list[str] = []
    for name, begins in steps:
        subject = f"v1.acme.events.request.{name}"
        if begins:
            counts.begin(subject)
            running.append(subject)
        elif subject in running:
            counts.finish(subject)
            running.remove(subject)
        assert counts.of_tenant("acme") == len(set(running))
    for subject in running:
        counts.finish(subject)
    assert counts.of_tenant("acme") == 0
    assert not counts._by_tenant
