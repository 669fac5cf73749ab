"""Laws of experiments: who is on which side, what is counted, and how often the tests are wrong."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.canary import Canary, Ending, live, replayed

from penstock_router.domain.betting import Belief, Bet, Tally, fisher_tail
from penstock_router.domain.experiments import Trial, arm_of
from penstock_shared.contracts.routing import Experiment, PolicyRules

users = st.text(min_size=1, max_size=40).filter(lambda user: not user.startswith("k1"))
rates = st.floats(0.001, 0.97)
outcomes = st.lists(
    st.tuples(
        st.sampled_from(["baseline", "candidate"]),
        st.booleans(),
        st.integers(0, 10**6),
        st.floats(0, 10**6),
        st.booleans(),
    ),
    max_size=60,
)


def experiment(share: float = 0.1, name: str = "e1") -> Experiment:
    return Experiment(id=name, candidate=PolicyRules(), share=share)


def chance_of(successes: int, trials: int, rate: float) -> float:
    """Of the binomial distribution."""
    ways = math.comb(trials, successes)
    return float(ways * rate**successes * (1 - rate) ** (trials - successes))


def fold(trial: Trial, events: list[Any]) -> Trial:
    for arm, failed, cost, latency, told in events:
        if told:
            trial.judged(arm, wrong=failed)
        else:
            trial.ended(arm, failed=failed, cost_microusd=cost, latency_ms=latency)
    return trial


@given(users, st.uuids(), st.uuids(), st.floats(0.01, 0.5))
def test_a_user_stays_on_its_side(user: str, one: object, other: object, share: float) -> None:
    """Whatever it asks, and when the share grows nobody leaves the candidate's side."""
    first = arm_of(experiment(share), user, key_id="k1", request_id=str(one))
    assert arm_of(experiment(share), user, key_id="k2", request_id=str(other)) == first
    if first == "candidate":
        assert arm_of(experiment(0.5), user, key_id="k1", request_id=str(one)) == "candidate"


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("subject", ["u{}", "k1", "k1:acme"])
def test_sides_are_proportional(share: float, subject: str) -> None:
    """Of users, and of the requests of clients that name none: a key is no user."""
    drawn = [
        arm_of(experiment(share), subject.format(n), key_id="k1", request_id=f"r{n}")
        for n in range(20_000)
    ]
    deviation = math.sqrt(20_000 * share * (1 - share))
    assert abs(drawn.count("candidate") - 20_000 * share) < 5 * deviation


def test_experiments_are_drawn_independently() -> None:
    """Who tried the last candidate is no more likely to try the next."""
    both = sum(
        all(
            arm_of(experiment(0.5, name), f"u{n}", key_id="k1", request_id="r") == "candidate"
            for name in ("e1", "e2")
        )
        for n in range(20_000)
    )
    assert abs(both - 5_000) < 5 * math.sqrt(20_000 * 0.25 * 0.75)


@settings(max_examples=50)
@given(outcomes, st.randoms())
def test_what_is_counted_does_not_depend_on_the_order(
    events: list[Any], shuffler: random.Random
) -> None:
    """Outcomes of either side come as they come."""
    shuffled = list(events)
    shuffler.shuffle(shuffled)
    one, other = fold(Trial("e1"), events), fold(Trial("e1"), shuffled)
    assert (one.baseline, one.candidate) == (other.baseline, other.candidate)


@settings(max_examples=50)
@given(outcomes, outcomes)
def test_a_trial_goes_on_from_where_it_was_written_down(
    before: list[Any], after: list[Any]
) -> None:
    """A restart changes not a bit of it (I9)."""
    whole = fold(Trial("e1"), before + after)
    assert fold(replayed(fold(Trial("e1"), before)), after) == whole


@settings(max_examples=60)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    rates,
    rates,
    st.floats(0, 1),
    st.sampled_from([0.0, 0.02, 0.1]),
    st.sampled_from([0.5, 1.0, 1.8, 6.0]),
)
def test_no_bet_is_expected_to_win_while_its_null_hypothesis_holds(
    n: int, m: int, b: float, truth: float, below: float, margin: float, odds: float
) -> None:
    """Exactly, over all outcomes of a block: what Ville's inequality asks for.

    The null hypothesis of the bet on worse is "no more often", that of the bet on not worse
    "more often by the margin or more".
    """
    belief = Belief(odds=odds, stake=1.0)
    if (belief.of(b) > b) is not (margin == 0):
        return  # bets lie on the other side of the null hypothesis
    truth *= 1 - margin
    candidate = truth * below if margin == 0 else truth + margin + below * (1 - truth - margin)
    expected = 0.0
    for k in range(n + 1):
        for j in range(m + 1):
            bet = Bet(margin, [belief])
            bet.settle(Tally(n, k, m, j), b)
            chance = chance_of(k, n, truth) * chance_of(j, m, candidate)
            expected += chance * math.exp(bet.log_wealth)
    assert expected <= 1 + 1e-6


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 30), st.integers(0, 30))
def test_the_look_is_fishers_exact_test(n: int, m: int, k: int, j: int) -> None:
    """Against its definition, in whole numbers: of all ways to deal out the failures."""
    k, j = min(k, n), min(j, m)
    ways = sum(math.comb(m, i) * math.comb(n, k + j - i) for i in range(j, min(m, k + j) + 1))
    exact = ways / math.comb(n + m, k + j)
    assert fisher_tail(Tally(n, k, m, j)) == pytest.approx(exact, abs=1e-9)


def endings(canary: Canary, seeds: int) -> list[Ending]:
    return [live(canary, seed) for seed in range(seeds)]


def part(found: list[Ending], reason: str) -> float:
    return sum(ending.reason == reason for ending in found) / len(found)


LATE: dict[str, Any] = {"delay": 30, "judged": 0.3, "lost": 0.1}


def test_a_doubled_failure_rate_is_rolled_back_in_time() -> None:
    """From 5 to 10 %, within 500 requests of the candidate, outcomes late and some missing."""
    found = endings(Canary(0.05, 0.05, 0.10, 500, **LATE), 30)
    assert part(found, "rolled-back") >= 0.75
    assert part(found, "promoted") == 0


def test_equals_are_hardly_ever_rolled_back() -> None:
    """And are promoted in the end."""
    found = endings(Canary(0.2, 0.05, 0.05, 2_500, **LATE), 25)
    assert part(found, "rolled-back") <= 0.04
    assert part(found, "promoted") >= 0.8


@pytest.mark.parametrize("worse", [{"latency": 1.6}, {"cost": 1.6}])
def test_what_answers_as_well_but_slower_or_dearer_is_not_promoted(worse: dict[str, Any]) -> None:
    """It is not rolled back either: that is for people to decide."""
    found = endings(Canary(0.5, 0.05, 0.05, 1_500, **worse), 10)
    assert [ending.reason for ending in found if ending.reason == "promoted"] == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("late", [{}, LATE])
def test_error_rates_over_two_thousand_seeds(share: float, late: dict[str, Any]) -> None:
    """False rollbacks below 1 %, false promotions at most 5 %, doubled failures left by 500."""
    doubled = endings(Canary(share, 0.05, 0.10, 500, **late), 2_000)
    assert part(doubled, "rolled-back") >= (0.7 if late else 0.85)  # fewer at a share of 20 %
    assert part(doubled, "promoted") <= 0.001
    equal = endings(Canary(share, 0.05, 0.05, 3_000, **late), 2_000)
    assert part(equal, "rolled-back") < 0.01
    worse_by_margin = endings(Canary(share, 0.05, 0.07, 3_000, **late), 500)
    chance = 3 * math.sqrt(0.05 * 0.95 / 500)
    assert part(worse_by_margin, "promoted") <= 0.05 + chance
