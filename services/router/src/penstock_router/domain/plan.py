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
from typing import Final

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
    raise NotImplementedError


def schema_check(*, failure_rate: float, observations: float, p_correct: float) -> Check:
    """What a check of the form finds, from how often answers fail it.

    Only wrong answers fail it, so that it finds failure rate / P(wrong) of them.
    """
    raise NotImplementedError
