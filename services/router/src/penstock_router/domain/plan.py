"""Who answers, and who tries next: one model at once, or cheaper ones whose answers are checked.

Of a plan m1 → m2 → … the expected loss is

    loss = a(m1) + f(m1)·(a(m2) + f(m2)·(… + b(last)))
    a(m) = cost + penalty·P(wrong and passes its check)
    f(m) = P(its answer fails its check)
    b(m) = cost + penalty·P(wrong)

given that, with the features known, one model's mistakes tell nothing of another's. That flatters
cascades where models fail on the same requests: what they bring is learned from what they did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from penstock_router.domain.outcome import Estimate
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.routing import PolicyRules

_CATCHES_AT_FIRST: Final = 0.5
_CATCHES_WEIGHT: Final = 4.0
"""Before anything is known a check is taken to find every second wrong answer; that belief has
the weight of so many observations."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check of one model's answers finds."""

    catches: float = 0.0
    """P(fails | wrong)."""
    false_alarms: float = 0.0
    """P(fails | right): a schema has none, a confidence has."""

    def and_also(self, other: Check) -> Check:
        """Both checks: an answer fails if it fails either; taken for independent."""
        return Check(
            1 - (1 - self.catches) * (1 - other.catches),
            1 - (1 - self.false_alarms) * (1 - other.false_alarms),
        )


NO_CHECK: Final = Check()


@dataclass(frozen=True, slots=True)
class PlanOption:
    """One model as the plans see it."""

    model: ModelRecord
    estimate: Estimate
    cost_microusd: float
    """Expected, of one answer."""
    check: Check = NO_CHECK
    """Of its answer, while another attempt may follow."""
    latency_ms: float | None = None
    """Expected, of one answer; None while not known."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The models that try one after the other, until an answer passes its check."""

    models: tuple[ModelRecord, ...]
    expected_cost_microusd: float
    """Escalations included."""
    p_correct: float
    """Of the answer that the client gets."""
    deviation: float
    """Of `p_correct`: the first model's, as far as it decides the result."""
    observations: float
    """Behind the first model's estimate."""
    min_confidence: float | None = None
    """Of all but the last model."""

    def loss_microusd(self, penalty_microusd: float) -> float:
        """Expected cost, and the price of being wrong."""
        return self.expected_cost_microusd + penalty_microusd * (1 - self.p_correct)


def plans_for(
    options: Sequence[PlanOption],
    rules: PolicyRules,
    *,
    checked: bool,
    deadline_ms: float = math.inf,
) -> tuple[Plan, ...]:
    """The best plan that begins with each option, in their order: what is chosen among.

    `checked`: whether the client asked for an output of a given form. A model is part of an
    escalation only if its answer is expected within an equal share of the deadline.
    """
    steps = [_step(option, rules.error_penalty_microusd) for option in options]
    if rules.max_attempts == 1 or not (checked or rules.min_confidence is not None):
        return tuple(_plan((step,), None) for step in steps)
    able = sorted((step for step in steps if _in_time(step, deadline_ms, rules)), key=_order)
    tails = [_cheapest_to(last, able, rules.max_attempts - 1) for last in able]
    return tuple(
        _plan(_cheapest_from(step, able, tails, rules.max_attempts), rules.min_confidence)
        for step in steps
    )


def schema_check(*, failure_rate: float, observations: float, p_correct: float) -> Check:
    """What a check of the form finds, from how often answers fail it.

    Only wrong answers fail it, so that it finds failure rate / P(wrong) of them.
    """
    p_wrong = 1 - p_correct
    if p_wrong <= 0:
        return Check(_CATCHES_AT_FIRST)
    found = observations * min(1.0, failure_rate / p_wrong)
    return Check((found + _CATCHES_WEIGHT * _CATCHES_AT_FIRST) / (observations + _CATCHES_WEIGHT))


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """An option with the numbers of the formula above."""

    option: PlanOption
    fails: float
    """f: that its answer fails its check."""
    loss_before: float
    """a: what it costs where another one may follow."""
    loss_last: float
    """b: what it costs as the last one, or alone."""

    @property
    def name(self) -> str:
        return self.option.model.name


_Chain: TypeAlias = tuple[float, tuple[_Step, ...]]
"""The loss of some models one after the other, and the models."""


def _step(option: PlanOption, penalty_microusd: float) -> _Step:
    p, check, cost = option.estimate.p_correct, option.check, option.cost_microusd
    return _Step(
        option,
        fails=check.catches * (1 - p) + check.false_alarms * p,
        loss_before=cost + penalty_microusd * (1 - p) * (1 - check.catches),
        loss_last=cost + penalty_microusd * (1 - p),
    )


def _in_time(step: _Step, deadline_ms: float, rules: PolicyRules) -> bool:
    latency_ms = step.option.latency_ms
    return latency_ms is None or latency_ms <= deadline_ms / rules.max_attempts


def _order(step: _Step) -> tuple[float, str]:
    """The best order of any given models before a given last one: ascending a / (1 - f).

    Two neighbours i, j are in order when a(i) + f(i)·a(j) <= a(j) + f(j)·a(i), whatever follows.
    """
    passes = 1 - step.fails
    return (step.loss_before / passes if passes > 0 else math.inf, step.name)


def _cheapest_from(
    first: _Step, able: Sequence[_Step], tails: Sequence[_Chain], attempts: int
) -> tuple[_Step, ...]:
    """The chain of the least loss that begins with `first`: it alone, or others after it.

    `tails` are the best ones of all of `able`, one for each that may be the last.
    """
    best: _Chain = first.loss_last, (first,)
    if first not in able:  # it would not answer in time for another one to follow
        return best[1]
    others = [step for step in able if step is not first]
    for last, best_tail in zip(able, tails, strict=True):
        if last is first:
            continue
        tail_loss, tail = (
            best_tail if first not in best_tail[1] else _cheapest_to(last, others, attempts - 1)
        )
        loss = first.loss_before + first.fails * tail_loss
        if loss < best[0]:
            best = loss, (first, *tail)
    return best[1]


def _cheapest_to(last: _Step, able: Sequence[_Step], attempts: int) -> _Chain:
    """The chain of the least loss that ends with `last`: it alone, or others before it."""
    # tails[r]: the best of at most r of the models looked at so far, then `last`.
    tails: list[_Chain] = [(last.loss_last, (last,))] * attempts
    for step in reversed(able):
        for room in range(attempts - 1, 0, -1) if step is not last else ():
            after_loss, after = tails[room - 1]
            loss = step.loss_before + step.fails * after_loss
            if loss < tails[room][0]:
                tails[room] = loss, (step, *after)
    return tails[-1]


def _plan(chain: tuple[_Step, ...], min_confidence: float | None) -> Plan:
    last = chain[-1].option
    cost, p_correct, sway = last.cost_microusd, last.estimate.p_correct, 1.0
    for step in reversed(chain[:-1]):
        p, check = step.option.estimate.p_correct, step.option.check
        # The derivative of the next line by p: how far the result follows this model's estimate.
        sway = 1 - check.false_alarms - (check.catches - check.false_alarms) * p_correct
        p_correct = p * (1 - check.false_alarms) + step.fails * p_correct
        cost = step.option.cost_microusd + step.fails * cost
    first = chain[0].option.estimate
    return Plan(
        models=tuple(step.option.model for step in chain),
        expected_cost_microusd=cost,
        p_correct=min(1.0, p_correct),
        deviation=abs(sway) * first.deviation,
        observations=first.observations,
        min_confidence=min_confidence if len(chain) > 1 else None,
    )
