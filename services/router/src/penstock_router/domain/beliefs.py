"""What one tenant's judged answers have taught: of each model, and of requests whoever answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from penstock_router.domain.bandit import Belief, Vector
from penstock_router.domain.features import CONTEXT_DIMS
from penstock_router.domain.outcome import Estimate

MODELS: Final = 48
"""Beliefs are kept of the models that were judged last."""
_UNKNOWN: Final = Belief.unknown(CONTEXT_DIMS)
"""Of every model that was not judged yet: it is read, and never taught."""


@dataclass(slots=True, eq=False)
class Beliefs:
    """A belief for each model, and one that they share.

    What makes a request hard is hard for every model, and a model that is asked only what suits it
    would never show it: so the slopes are learned of all answers together, and each model's own
    belief is about how it differs. Levels are not shared: one model's break is not another's.
    """

    common: Belief = field(default_factory=lambda: Belief.unknown(CONTEXT_DIMS))
    by_model: dict[str, Belief] = field(default_factory=dict)
    """The one that was judged least recently first."""
    tick: int = 0
    """How many answers were judged."""

    def estimate(self, model: str, x: Vector, prior_p: float | None) -> Estimate:
        """What is expected of the model's answer to a request with the context `x`."""
        belief = self.by_model.get(model, _UNKNOWN)
        return belief.estimate(x, prior_p, self.tick, self.common.slopes(x, self.tick))

    def learn(self, model: str, x: Vector, prior_p: float | None, correct: float) -> None:
        """Take in how right an answer was, 0 to 1; each part learns beside what the other says."""
        self.tick += 1
        belief = self.by_model.pop(model, None) or Belief.unknown(CONTEXT_DIMS)
        slopes, own = self.common.slopes(x, self.tick), belief.logit(x, self.tick)
        belief.update(x, prior_p, correct, self.tick, slopes)
        self.common.update(x, prior_p, correct, self.tick, own)
        self.by_model[model] = belief
        if len(self.by_model) > MODELS:
            del self.by_model[next(iter(self.by_model))]
