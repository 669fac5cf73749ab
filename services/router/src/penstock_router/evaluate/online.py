"""The online bandit started from nothing: every prompt once, and only its own choices are judged.

Its total cost, exploring included, is the money and a penalty for each wrong answer; beside it what
one would have paid who always takes the same model, draws one, or knows every outcome (the oracle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_router.domain.beliefs import Beliefs
from penstock_router.domain.choice import Choice, Option, choose
from penstock_router.domain.exploration import ExplorationAccount
from penstock_router.domain.features import Features, unpack_context
from penstock_router.evaluate.outcomes import Outcomes
from penstock_router.evaluate.routing_measures import Numbers
from penstock_shared.contracts.routing import PolicyRules

USD_PER_MILLION_TOKENS: Final = (0.24, 24.7)
"""Mixtral-8x7B and GPT-4 in RouteLLM's cost analysis (https://arxiv.org/abs/2406.18665, section
5.3): what an answer of either costs, where the outcomes tell no cost."""
RATES: Final = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 50.0)
"""Exchange rates: what a wrong answer costs, in units of how much a strong one costs more."""
ORACLE_AHEAD: Final = 0.1
"""Where knowing everything saves less than this there is nothing to learn."""
SHARE: Final = PolicyRules().exploration_share
"""A tenant's default."""
_CHECKPOINTS: Final = 10
_COST_SCALE: Final = 1_000.0
"""Micro-dollars of a strong answer, about: only ratios count."""


@dataclass(frozen=True, slots=True)
class Table:
    """What the bandit runs through; the columns are models, the cheapest first."""

    contexts: Numbers
    right: Numbers
    """(prompts, models), 0 or 1."""
    cost: Numbers
    """(prompts, models), in micro-dollars or another unit."""


@dataclass(frozen=True, slots=True)
class OnlineRun:
    """One order of the prompts."""

    total: float
    """Mean cost and penalty of a prompt."""
    accuracy: float
    shares: tuple[float, ...]
    """How often each model was chosen."""
    explored: float
    """What exploring was expected to cost, relative to the rest."""
    regret: tuple[float, ...]
    """Cumulative, against the oracle, at ten points of the way; in costs of a strong answer."""


@dataclass(frozen=True, slots=True)
class OnlineReport:
    """One exchange rate, all orders; totals are means over the prompts."""

    rate: float
    penalty: float
    always: tuple[float, ...]
    """By model."""
    random: float
    best_single: float
    oracle: float
    oracle_ahead: float
    """Of the best of the four, relative."""
    bandit: float
    bandit_deviation: float
    """Between orders."""
    gain: float
    """Against the best of the four, relative: below 0 it costs more."""
    orders_won: float
    """The share of orders in which the bandit costs less than each of the four."""
    accuracy: float
    shares: tuple[float, ...]
    explored: float
    regret: tuple[float, ...]
    """Mean over the orders."""


def table_of(rows: Outcomes, features: Sequence[Features]) -> Table:
    """Measured processor time is the cost where every row has it, else RouteLLM's prices."""
    cost: Numbers = np.tile(USD_PER_MILLION_TOKENS, (len(rows), 1))
    runs = [(row.weak_run, row.strong_run) for row in rows]
    if all(weak is not None and strong is not None for weak, strong in runs):
        cost = np.array([[run.cpu_us for run in pair if run is not None] for pair in runs])
    return Table(
        contexts=np.stack([unpack_context(each.context()) for each in features]),
        right=np.array([[row.weak, row.strong] for row in rows], dtype=np.float64),
        cost=cost * (_COST_SCALE / float(cost[:, -1].mean())),
    )


def judge_online(
    table: Table, *, seeds: int, share: float = SHARE, rates: Sequence[float] = RATES
) -> tuple[OnlineReport, ...]:
    """Report every exchange rate at which there is something to learn, over `seeds` orders."""
    dearer = float((table.cost[:, -1] - table.cost[:, 0]).mean())
    reports = (_judge(table, rate, rate * dearer, seeds, share) for rate in rates)
    return tuple(report for report in reports if report is not None)


def run_online(table: Table, penalty: float, rng: np.random.Generator, share: float) -> OnlineRun:
    """Let the bandit answer every prompt, in an order of `rng`'s."""
    count, models = table.right.shape
    losses = table.cost + penalty * (1 - table.right)
    beliefs, account = Beliefs(), ExplorationAccount()
    order, draws = rng.permutation(count), rng.random((count,))
    chosen = np.zeros(count, dtype=np.intp)
    explored = expected = 0.0
    for at, draw in zip(order.tolist(), draws.tolist(), strict=True):
        x = table.contexts[at]
        choice = _choice(table.cost[at], beliefs, x, penalty, account, draw)
        chosen[at] = choice.index
        account.decided(
            loss_microusd=choice.loss_microusd,
            share=share,
            spent_microusd=choice.exploration_microusd,
        )
        account.judged()
        beliefs.learn(str(choice.index), x, None, float(table.right[at, choice.index]))
        explored += choice.exploration_microusd
        expected += choice.loss_microusd
    every = np.arange(count)
    loss = losses[every, chosen]
    regret = np.cumsum((loss - losses.min(axis=1))[order]) / float(table.cost[:, -1].mean())
    points = np.linspace(0, count - 1, _CHECKPOINTS + 1).astype(int)[1:]
    return OnlineRun(
        total=float(loss.mean()),
        accuracy=float(table.right[every, chosen].mean()),
        shares=tuple(np.bincount(chosen, minlength=models) / count),
        explored=explored / expected if expected else 0.0,
        regret=tuple(regret[points]),
    )


def _choice(
    cost: Numbers,
    beliefs: Beliefs,
    x: Numbers,
    penalty: float,
    account: ExplorationAccount,
    u: float,
) -> Choice:
    estimates = [beliefs.estimate(str(k), x, None) for k in range(len(cost))]
    options = [
        Option(str(k), each.p_correct, each.deviation, float(cost[k]), each.observations)
        for k, each in enumerate(estimates)
    ]
    return choose(
        options,
        penalty_microusd=penalty,
        exploration_budget_microusd=account.budget_microusd,
        u=u,
    )


def _judge(
    table: Table, rate: float, penalty: float, seeds: int, share: float
) -> OnlineReport | None:
    losses = table.cost + penalty * (1 - table.right)
    always = losses.mean(axis=0)
    oracle, best = float(losses.min(axis=1).mean()), float(always.min())
    ahead = 1 - oracle / best
    if ahead < ORACLE_AHEAD:
        return None
    runs = [run_online(table, penalty, np.random.default_rng(seed), share) for seed in range(seeds)]
    totals = np.array([run.total for run in runs])
    return OnlineReport(
        rate=rate,
        penalty=penalty,
        always=tuple(always),
        random=float(always.mean()),
        best_single=best,
        oracle=oracle,
        oracle_ahead=ahead,
        bandit=float(totals.mean()),
        bandit_deviation=float(totals.std()),
        gain=1 - float(totals.mean()) / best,
        orders_won=float((totals < best).mean()),
        accuracy=float(np.mean([run.accuracy for run in runs])),
        shares=tuple(np.mean([run.shares for run in runs], axis=0)),
        explored=float(np.mean([run.explored for run in runs])),
        regret=tuple(np.mean([run.regret for run in runs], axis=0)),
    )
