"""What single facts teach: failures, tokens, time, novelty, the account, the experiment."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import numpy as np
import pytest
from tests.support.learning import decision, ended_fact, routed_fact

from penstock_router.domain.exploration import ExplorationAccount
from penstock_router.domain.features import CONTEXT_TEXT_DIMS, unpack_context
from penstock_router.domain.learned import Learned
from penstock_router.domain.novelty import Novelty
from penstock_router.domain.outcome_facts import outcome_of_end
from penstock_router.domain.tallies import Tallies
from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.requests import RequestEnded, RequestRouted, Status
from penstock_shared.contracts.routing import Experiment, PolicyRules, PolicySet

REQUEST = "0193e7a0-0000-7000-8000-000000000001"


def routed(seed: int = 1, **changes: object) -> RequestRouted:
    chosen = decision(random.Random(seed)).model_copy(update={"model": "small", **changes})
    return routed_fact("acme", REQUEST, decision=chosen)


def failed(routed: RequestRouted, error_type: str, code: str) -> RequestEnded:
    error = ErrorBody(message="", type=error_type, code=code)
    return ended_fact(routed, status=Status.FAILED).model_copy(update={"error": error})


def policy(*, experiment: str | None) -> PolicySet:
    return PolicySet(
        tenant="acme",
        rules=PolicyRules(),
        experiment=None
        if experiment is None
        else Experiment(id=experiment, candidate=PolicyRules()),
        reason="operator",
        set_at=datetime(2026, 11, 20, tzinfo=UTC),
    )


def test_a_model_s_own_error_lowers_what_is_expected_of_it_for_every_task() -> None:
    """Not through the belief, which only judged answers teach: nobody judged the good ones."""
    learned, fact = Learned(), routed()
    x = unpack_context(fact.decision.context)
    for seq in range(1, 30):
        learned.fold_ended(failed(fact, "server_error", "internal_error"), fact.decision, seq)
    state = learned.of("acme")
    assert state.estimate("small", x, 0.9).p_correct < 0.25
    assert state.estimate("large", x, 0.9).p_correct == pytest.approx(0.9)
    assert state.failure_rate("another-shape", "small") > 0.7
    assert state.beliefs.tick == 0


def test_answers_that_keep_a_form_move_no_belief() -> None:
    """A thousand of them that nobody judged: a form is easy to keep, and the price must not win.

    Where some break the form, what is expected is no more than the share that keeps it.
    """
    learned = Learned()
    fact = routed(features={"checked": 1.0})
    x = unpack_context(fact.decision.context)
    candidate = next(each for each in fact.decision.candidates if each.model == "small")
    for seq in range(1, 1_001):
        learned.fold_ended(ended_fact(fact), fact.decision, seq)
    estimate = learned.of("acme").estimate("small", x, candidate.prior)
    assert estimate.p_correct == pytest.approx(candidate.p_correct, abs=0.05)
    broken = failed(fact, "server_error", "output_invalid")
    for seq in range(1_001, 1_501):
        learned.fold_ended(broken if seq % 2 else ended_fact(fact), fact.decision, seq)
    assert learned.of("acme").estimate("small", x, candidate.prior).p_correct < 0.6


@pytest.mark.parametrize("error_type", ["invalid_request_error", "not_found_error"])
def test_what_the_client_sent_is_no_fault_of_the_model(error_type: str) -> None:
    """A request that was refused for what it says teaches nothing, nor does a cancelled one."""
    fact = routed()
    ended = failed(fact, error_type, "context_length_exceeded")
    assert outcome_of_end(ended, fact.decision) is None
    cancelled = ended_fact(fact, status=Status.CANCELLED)
    assert outcome_of_end(cancelled, fact.decision) is None


def test_a_check_finds_wrong_answers_and_no_right_ones() -> None:
    """What has the form that was asked for may be wrong all the same: only a client knows."""
    checked = routed(features={"checked": 1.0})
    free = routed(features={"checked": 0.0})
    passed = outcome_of_end(ended_fact(checked), checked.decision)
    unknown = outcome_of_end(ended_fact(free), free.decision)
    refused = outcome_of_end(failed(checked, "server_error", "output_invalid"), checked.decision)
    expired = failed(free, "server_error", "expired").model_copy(update={"reason": "expired"})
    late = outcome_of_end(expired, free.decision)
    outcomes = [passed, unknown, refused, late]
    assert [each and (each.correct, each.failed, each.passed) for each in outcomes] == [
        (None, False, True),
        (None, False, False),
        (0.0, True, False),
        (None, True, False),
    ]


def test_a_belief_is_taught_only_relative_to_a_logged_prior() -> None:
    """A model that the decision did not weigh has no prior in the log."""
    learned = Learned()
    fact = routed(candidates=(), features={"json_schema_strictness": 0.4})
    learned.fold_ended(ended_fact(fact), fact.decision, 1)
    assert learned.of("acme").beliefs.tick == 0
    assert learned.of("acme").output_tokens(fact.decision.shape, "small") == 9


def test_an_old_context_teaches_no_belief_and_breaks_nothing() -> None:
    """A release with other features reads the log of the one before."""
    learned = Learned()
    fact = routed(context="AH8B", features={"json_schema_strictness": 0.4})
    learned.fold_routed(fact, 1)
    learned.fold_ended(ended_fact(fact), fact.decision, 2)
    assert learned.of("acme").beliefs.tick == 0
    assert learned.of("acme").seq == 2


def test_an_experiment_counts_its_own_outcomes_with_all_attempts() -> None:
    """Outcomes of another experiment are none of its; one with another id begins at nothing."""
    learned = Learned()
    learned.fold_policy(policy(experiment="e1"), 1)
    mine, other = routed(experiment="e1", arm="candidate"), routed(experiment="e0", arm="candidate")
    learned.fold_ended(ended_fact(mine), mine.decision, 2)
    learned.fold_ended(ended_fact(other), other.decision, 3)
    trial = learned.of("acme").trial
    assert trial is not None
    assert (trial.candidate.requests, trial.baseline.requests) == (1, 0)
    learned.fold_policy(policy(experiment="e2"), 4)
    begun = learned.of("acme").trial
    assert begun is not None
    assert (begun.experiment, begun.candidate.requests) == ("e2", 0)


def test_a_policy_s_copy_never_replaces_a_newer_one() -> None:
    """Copies come in any order, also after the state that a snapshot holds (I9)."""
    learned = Learned()
    learned.adopt_policy(policy(experiment="new"), 9)
    learned.adopt_policy(policy(experiment="old"), 4)
    snapshot = Learned()
    snapshot.fold_policy(policy(experiment="old"), 4)
    learned.load("acme", snapshot.dump("acme"))
    state = learned.of("acme")
    assert state.policy_seq == 9
    assert state.policy is not None
    assert state.policy.experiment is not None
    assert state.policy.experiment.id == "new"
    assert state.seq == 4


def test_answers_that_only_pass_their_check_pay_for_no_exploration() -> None:
    """They say nothing of what is right: what exploring finds would never be known."""
    learned, fact = Learned(), routed(features={"checked": 1.0}, exploration_microusd=0.0)
    for n in range(2_000):
        learned.fold_routed(fact, 2 * n + 1)
        learned.fold_ended(ended_fact(fact), fact.decision, 2 * n + 2)
    idle = learned.of("acme").exploration_budget_microusd
    learned.fold_ended(failed(fact, "server_error", "output_invalid"), fact.decision, 5_000)
    for n in range(100):
        learned.fold_routed(fact, 5_001 + n)
    assert idle < learned.of("acme").exploration_budget_microusd / 2


def test_a_tenant_that_judges_nothing_stops_paying_for_exploration() -> None:
    """What nobody judges teaches nothing: after 200 decisions no more is put aside."""
    account = ExplorationAccount()
    for _ in range(200):
        account.decided(loss_microusd=100, share=0.02, spent_microusd=0)
    most = account.balance_microusd
    for _ in range(2_000):
        account.decided(loss_microusd=100, share=0.02, spent_microusd=0)
    assert account.balance_microusd < most / 5
    account.judged()
    account.decided(loss_microusd=100, share=0.02, spent_microusd=0)
    assert account.balance_microusd > most / 1000


def test_failures_of_few_attempts_are_drawn_to_the_models_own() -> None:
    """One failure of a new task is no rate of 1; the rate follows within some tens of attempts."""
    tallies = Tallies()
    for _ in range(100):
        tallies.add("a", "m", failed=False, broken=False, output_tokens=10, latency_ms=5)
    tallies.add("b", "m", failed=True, broken=False, output_tokens=30, latency_ms=None)
    assert 0.1 < tallies.failure_rate("b", "m") < 0.3
    assert tallies.failure_rate("a", "m") < 0.02
    assert tallies.output_tokens("b", "m") == 30
    assert tallies.latency_ms("b", "m") == pytest.approx(5), "of its other tasks: the only ones"
    assert tallies.output_tokens("a", "unknown") is None


def test_novelty_is_the_distance_to_what_was_asked() -> None:
    """What comes again is near, another direction is far, a text without one is neither."""
    asked = Novelty()
    first, second = np.eye(CONTEXT_TEXT_DIMS)[:2]
    assert asked.distance(first) == 1
    for _ in range(10):
        asked.add(first)
    assert asked.distance(first * 0.3) == pytest.approx(0)
    assert asked.distance(second) == pytest.approx(1)
    assert asked.distance(first + second) == pytest.approx(1 - 2**-0.5)
    assert asked.distance(np.zeros(CONTEXT_TEXT_DIMS)) == 0


def test_a_state_stays_below_a_megabyte() -> None:
    """With every bound reached: models, kinds of tasks, topics, open escalations."""
    rng = np.random.default_rng(1)
    learned = Learned()
    state_of = routed()
    learned.fold_routed(state_of, 1)
    state = learned.of("acme")
    x = unpack_context(state_of.decision.context)
    for n in range(200):
        state.beliefs.learn(f"model-{n}", x, None, 1.0)
    for n in range(1_000):
        state.tallies.add(
            f"shape-{n}",
            f"model-{n % 48}",
            failed=True,
            broken=False,
            output_tokens=n,
            latency_ms=1 / 3,
        )
        state.asked.add(rng.normal(size=CONTEXT_TEXT_DIMS))
        state.spent_microusd[f"0193e7a0-0000-7000-8000-{n:012d}"] = 10**9
    assert len(learned.dump("acme")) < 900_000
    other = Learned()
    other.load("acme", learned.dump("acme"))
    assert other.dump("acme") == learned.dump("acme")
