"""Laws of the choice: its probabilities are exact, and exploring stays inside its budget."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.domain.choice import Choice, Option, choose, draw_of
from penstock_router.domain.exploration import ExplorationAccount

AMOUNTS = st.one_of(st.just(0.0), st.just(math.inf), st.floats(0, 1e6), st.floats(0, 1e300))
SHARES = st.floats(0, 1)


@st.composite
def options(draw: st.DrawFn, amounts: st.SearchStrategy[float] = AMOUNTS) -> list[Option]:
    count = draw(st.integers(1, 6))
    return [
        Option(
            model=f"m{n}",
            p_correct=draw(SHARES),
            deviation=draw(st.floats(0, 0.5)),
            cost_microusd=draw(amounts),
            observations=draw(st.floats(0, 1e4)),
        )
        for n in range(count)
    ]


@given(options(), AMOUNTS, AMOUNTS, st.floats(0, 1, exclude_max=True))
def test_any_options_have_probabilities_that_sum_to_one(
    every: list[Option], penalty: float, budget: float, u: float
) -> None:
    """Zero costs, equal options, infinite penalties and budgets: a choice is always made."""
    choice = choose(every, penalty_microusd=penalty, exploration_budget_microusd=budget, u=u)
    assert math.fsum(choice.probabilities) == pytest.approx(1, abs=1e-9)
    assert all(0 <= p <= 1 for p in choice.probabilities)
    assert choice.probabilities[choice.index] > 0
    assert 0 <= choice.exploration_microusd <= budget * (1 + 1e-9)
    assert math.isfinite(choice.loss_microusd)


@given(options(st.floats(0, 1e4)), st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_expected_extra_loss_is_the_one_that_is_charged(
    every: list[Option], penalty: float, budget: float
) -> None:
    """What the account is charged is the mean loss of the draw above that of the best option."""
    choice = choose(every, penalty_microusd=penalty, exploration_budget_microusd=budget, u=0.5)
    losses = [each.cost_microusd + penalty * (1 - each.p_correct) for each in every]
    mean = math.fsum(p * loss for p, loss in zip(choice.probabilities, losses, strict=True))
    assert choice.loss_microusd == pytest.approx(min(losses))
    assert mean - min(losses) == pytest.approx(choice.exploration_microusd, abs=1e-6, rel=1e-6)


@given(options(st.floats(0, 100)), st.floats(0, 1e3), st.floats(0, 1e3))
def test_the_probability_that_is_told_is_the_one_that_is_used(
    every: list[Option], penalty: float, budget: float
) -> None:
    """Over an even grid of draws each option comes up as often as its probability says."""
    draws = 400
    chosen = [0] * len(every)
    for n in range(draws):
        choice = choose(
            every,
            penalty_microusd=penalty,
            exploration_budget_microusd=budget,
            u=(n + 0.5) / draws,
        )
        chosen[choice.index] += 1
    for count, p in zip(chosen, choice.probabilities, strict=True):
        assert abs(count / draws - p) <= 1 / draws + 1e-9


@given(options(), AMOUNTS, AMOUNTS, st.floats(0, 1, exclude_max=True), st.randoms())
def test_the_order_of_the_options_does_not_matter(
    every: list[Option], penalty: float, budget: float, u: float, rng: random.Random
) -> None:
    """Two replicas that hold the same models in another order choose the same one."""

    def by_model(some: list[Option]) -> tuple[str, dict[str, float]]:
        choice = choose(some, penalty_microusd=penalty, exploration_budget_microusd=budget, u=u)
        names = [each.model for each in some]
        return names[choice.index], dict(zip(names, choice.probabilities, strict=True))

    mixed = list(every)
    rng.shuffle(mixed)
    assert by_model(every) == by_model(mixed)


@given(
    st.lists(st.tuples(options(st.floats(0, 1e3)), st.integers(1, 32)), min_size=1, max_size=40),
    st.floats(0, 1e4),
    st.floats(0, 0.2),
)
def test_exploration_never_exceeds_its_share(
    rounds: list[tuple[list[Option], int]], penalty: float, share: float
) -> None:
    """At every point what exploring has cost is within the share of what was spent without it.

    Also when up to 32 decisions at once do not know of one another.
    """
    account = ExplorationAccount()
    spent = without = 0.0
    for every, at_once in rounds:
        choices = [decided(every, penalty, account.budget_microusd) for _ in range(at_once)]
        for choice in choices:
            account.decided(
                loss_microusd=choice.loss_microusd,
                share=share,
                spent_microusd=choice.exploration_microusd,
            )
            account.judged()
            spent += choice.exploration_microusd
            without += choice.loss_microusd
        assert spent <= share * without * (1 + 1e-6) + 1e-6
        assert account.balance_microusd >= -1e-6


def decided(every: list[Option], penalty: float, budget: float) -> Choice:
    return choose(every, penalty_microusd=penalty, exploration_budget_microusd=budget, u=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_off_policy_estimates_are_unbiased(seed: int) -> None:
    """From the log of one policy what always choosing one model would have been worth.

    By inverse propensity scoring with the logged probabilities, for each of three models.
    """
    rng = random.Random(seed)
    rounds, models = 8_000, 3
    weighted = [0.0] * models
    squares = [0.0] * models
    truth = [0.0] * models
    for n in range(rounds):
        p_right = [rng.uniform(0.2, 0.9) for _ in range(models)]
        every = [
            Option(f"m{k}", min(1, max(0, p + rng.gauss(0, 0.05))), 0.4, 10.0 * k, 0.0)
            for k, p in enumerate(p_right)
        ]
        choice = choose(
            every,
            penalty_microusd=100,
            exploration_budget_microusd=math.inf,
            u=draw_of(f"{seed}/{n}"),
        )
        right = rng.random() < p_right[choice.index]
        for k in range(models):
            truth[k] += p_right[k] / rounds
            if k == choice.index and right:
                weighted[k] += 1 / choice.probabilities[k] / rounds
                squares[k] += choice.probabilities[k] ** -2 / rounds
    for k in range(models):
        error = math.sqrt((squares[k] - weighted[k] ** 2) / rounds)
        assert abs(weighted[k] - truth[k]) < 4 * error
        assert error < 0.03, "the estimate says something"


@given(st.text(max_size=40))
def test_a_request_s_draw_is_its_own(request_id: str) -> None:
    """The same id gives the same draw, in the half-open unit interval."""
    assert draw_of(request_id) == draw_of(request_id)
    assert 0 <= draw_of(request_id) < 1
