"""Laws of the plans: of all that are allowed none is cheaper, and their figures are exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.domain.outcome import Estimate
from penstock_router.domain.plan import Check, Plan, PlanOption, plans_for, schema_check
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.routing import PolicyRules
from penstock_shared.contracts.usage import Price

PROBABILITIES = st.floats(0, 1)
COSTS = st.floats(0, 5_000)


@st.composite
def options(draw: st.DrawFn) -> tuple[PlanOption, ...]:
    """One to five models of any quality, cost, speed and check."""
    return tuple(
        PlanOption(
            model=ModelRecord(
                name=f"m{number}",
                version="1",
                parameters=1,
                context_tokens=64,
                price=Price(input_microusd_per_1k=1, output_microusd_per_1k=1),
            ),
            estimate=Estimate(draw(PROBABILITIES), deviation=0.1, observations=1),
            cost_microusd=draw(COSTS),
            check=Check(draw(PROBABILITIES), draw(PROBABILITIES)),
            latency_ms=draw(st.none() | st.sampled_from((100.0, 400.0, 900.0))),
        )
        for number in range(draw(st.integers(1, 5)))
    )


@st.composite
def policies(draw: st.DrawFn) -> PolicyRules:
    """Any penalty and number of attempts, with and without a check for confidence."""
    return PolicyRules(
        error_penalty_microusd=draw(st.integers(0, 20_000)),
        max_attempts=draw(st.integers(1, 4)),
        min_confidence=draw(st.none() | st.just(0.8)),
    )


def outcomes(chain: Sequence[PlanOption]) -> tuple[float, float]:
    """Expected cost and P(correct) of a chain, from every way in which it can go."""
    cost = p_correct = 0.0
    for rights in itertools.product((True, False), repeat=len(chain)):
        for fails in itertools.product((True, False), repeat=len(chain) - 1):
            weight, spent = 1.0, 0.0
            for option, right in zip(chain, rights, strict=True):
                p = option.estimate.p_correct
                weight *= p if right else 1 - p
            for option, right, fail in zip(chain, rights, fails, strict=False):
                p_fail = option.check.false_alarms if right else option.check.catches
                weight *= p_fail if fail else 1 - p_fail
            last = fails.index(False) if False in fails else len(chain) - 1
            spent = sum(option.cost_microusd for option in chain[: last + 1])
            cost += weight * spent
            p_correct += weight * rights[last]
    return cost, p_correct


def allowed(
    every: tuple[PlanOption, ...], rules: PolicyRules, *, checked: bool, deadline_ms: float
) -> list[tuple[PlanOption, ...]]:
    """Every plan that the rules allow."""
    most = rules.max_attempts if checked or rules.min_confidence is not None else 1
    share_ms = deadline_ms / rules.max_attempts
    in_time = [each for each in every if each.latency_ms is None or each.latency_ms <= share_ms]
    chains = [chain for n in range(2, most + 1) for chain in itertools.permutations(in_time, n)]
    return [*((each,) for each in every), *chains]


@given(
    every=options(),
    rules=policies(),
    checked=st.booleans(),
    deadline_ms=st.sampled_from((500.0, 1_000.0, math.inf)),
)
def test_no_allowed_plan_is_cheaper(
    *, every: tuple[PlanOption, ...], rules: PolicyRules, checked: bool, deadline_ms: float
) -> None:
    """Of all orders of all models the best that begins with each is offered, none twice in it."""
    plans = plans_for(every, rules, checked=checked, deadline_ms=deadline_ms)
    penalty = rules.error_penalty_microusd
    chains = allowed(every, rules, checked=checked, deadline_ms=deadline_ms)

    def loss(chain: tuple[PlanOption, ...]) -> float:
        cost, p_correct = outcomes(chain)
        return cost + penalty * (1 - p_correct)

    assert [plan.models[0] for plan in plans] == [option.model for option in every]
    names = {tuple(option.model.name for option in chain) for chain in chains}
    for option, plan in zip(every, plans, strict=True):
        best = min(loss(chain) for chain in chains if chain[0] is option)
        assert plan.loss_microusd(penalty) == pytest.approx(best, abs=1e-6, rel=1e-9)
        assert tuple(model.name for model in plan.models) in names
        assert len({model.name for model in plan.models}) == len(plan.models)


@given(options(), policies())
def test_a_plan_says_what_it_is_worth(every: tuple[PlanOption, ...], rules: PolicyRules) -> None:
    """Cost and P(correct) hold over all ways in which it can go."""
    by_name = {option.model.name: option for option in every}

    def chain_of(plan: Plan) -> list[PlanOption]:
        return [by_name[model.name] for model in plan.models]

    for plan in plans_for(every, rules, checked=True):
        first, *rest = chain_of(plan)
        cost, p_correct = outcomes((first, *rest))
        assert plan.expected_cost_microusd == pytest.approx(cost, abs=1e-6)
        assert plan.p_correct == pytest.approx(p_correct, abs=1e-9)
        ends = (replace(first, estimate=replace(first.estimate, p_correct=p)) for p in (0, 1))
        at_0, at_1 = (outcomes((end, *rest))[1] for end in ends)
        slope = abs(at_1 - at_0)
        assert plan.deviation == pytest.approx(slope * first.estimate.deviation, abs=1e-9)
        assert plan.min_confidence == (rules.min_confidence if rest else None)


@given(PROBABILITIES, PROBABILITIES, st.floats(0, 1e6))
def test_a_check_of_the_form_finds_a_share(
    failure_rate: float, p_correct: float, observations: float
) -> None:
    """Whatever the counts say, what a check finds is a probability, and never alarms falsely."""
    check = schema_check(failure_rate=failure_rate, observations=observations, p_correct=p_correct)
    assert 0 <= check.catches <= 1
    assert check.false_alarms == 0
