"""The plain rule: the cheapest model unless the message looks hard. It needs to learn nothing."""

from __future__ import annotations

from typing import Final

from penstock_router.domain.features import Features

HARD_AT: Final = 1.0
_WEIGHTS: Final = {"words": 0.012, "sentences": 0.08, "listed": 0.1, "revisions": 0.35}
_P_STRONGEST: Final = 0.85
_P_CHEAPEST: Final = {False: 0.8, True: 0.5}
"""By whether the message is hard. Guesses: what an answer is worth before any was judged."""


def difficulty(features: Features) -> float:
    """A weighted count: at `HARD_AT` and above a message is taken for hard."""
    numbers = features.as_numbers()
    return sum(weight * numbers[name] for name, weight in _WEIGHTS.items())


def presumed_p_correct(features: Features, rank: int, count: int) -> float:
    """P(correct) of the model with this rank by price (0: the cheapest of `count`)."""
    if count == 1:
        return _P_STRONGEST
    lowest = _P_CHEAPEST[difficulty(features) >= HARD_AT]
    return lowest + (_P_STRONGEST - lowest) * rank / (count - 1)
