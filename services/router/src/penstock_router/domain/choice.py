"""Which model: the least expected loss, and bounded exploration with exact probabilities.

The loss of a choice is what it is expected to cost: money, and the tenant's penalty for a wrong
answer times its probability. The option with the least is chosen, and another one with the
probability that it is the better one after all, as far as the beliefs about the two tell and as
far as the exploration budget reaches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

_CAUTION_AT_FIRST: Final = 1.0
_CAUTION: Final = 3.0
"""Deviations are divided by it: one more answer teaches only part of what is not known, and the
less the more there were before. It grows from the one to the other,"""
_CAUTION_AFTER: Final = 200.0
"""halfway when so many answers of the model were judged."""
_MOST: Final = 1e15
"""Micro-dollars; above it everything is equally dear, and sums stay exact enough."""
_DRAW_BITS: Final = 53


@dataclass(frozen=True, slots=True)
class Option:
    """One model that could serve, with what may follow it."""

    model: str
    p_correct: float
    deviation: float
    """Standard deviation of `p_correct`."""
    cost_microusd: float
    observations: float
    """How many judged answers stand behind `p_correct`, decayed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which option was drawn, and how."""

    index: int
    probabilities: tuple[float, ...]
    """Of the options, in their order; they sum to one."""
    exploration_microusd: float
    """What exploring is expected to cost here, more than the best known choice."""
    loss_microusd: float
    """What the best known choice is expected to cost: money and error penalty."""


def choose(
    options: Sequence[Option],
    *,
    penalty_microusd: float,
    exploration_budget_microusd: float,
    u: float,
) -> Choice:
    """Choose one of `options` (at least one, of different models); `u` in [0, 1) is the draw.

    What comes out depends on the options and not on their order: replicas that hold the same
    models in another order agree.
    """
    penalty = _amount(penalty_microusd)
    loss = [_loss(option, penalty) for option in options]
    order = sorted(range(len(options)), key=lambda i: (loss[i], options[i].model))
    best, *others = order
    wanted = {
        i: _chance_to_be_better(loss[i] - loss[best], penalty, options[i], options[best])
        / len(options)
        for i in others
    }
    extra = math.fsum(wanted[i] * (loss[i] - loss[best]) for i in others)
    budget = _amount(exploration_budget_microusd)
    scale = 1.0 if extra <= budget else budget / extra
    probabilities = [0.0] * len(options)
    for i in others:
        probabilities[i] = wanted[i] * scale
    probabilities[best] = 1 - math.fsum(probabilities)
    return Choice(_drawn(order, probabilities, u), tuple(probabilities), extra * scale, loss[best])


def draw_of(request_id: str) -> float:
    """The `u` of a request, in [0, 1): the same in every replica."""
    digest = blake2b(request_id.encode(), digest_size=8, person=b"model choice").digest()
    return (int.from_bytes(digest) >> (64 - _DRAW_BITS)) / (1 << _DRAW_BITS)


def _loss(option: Option, penalty: float) -> float:
    return _amount(option.cost_microusd) + penalty * (1 - option.p_correct)


def _chance_to_be_better(gap: float, penalty: float, option: Option, best: Option) -> float:
    """Twice P(the loss of `option` is below that of `best`), so that equal ones are shared alike.

    The beliefs are taken for normal and independent.
    """
    learned = option.observations / (option.observations + _CAUTION_AFTER)
    caution = _CAUTION_AT_FIRST + learned * (_CAUTION - _CAUTION_AT_FIRST)
    deviation = penalty * math.hypot(option.deviation, best.deviation) / caution
    if deviation <= 0:
        return 0.0
    return math.erfc(gap / deviation / math.sqrt(2))


def _drawn(order: Sequence[int], probabilities: Sequence[float], u: float) -> int:
    reached = 0.0
    for i in order:
        reached += probabilities[i]
        if u < reached:
            return i
    return order[0]  # the sum is 1 but for rounding


def _amount(microusd: float) -> float:
    return min(max(microusd, 0.0), _MOST)
