"""How good the decisions were, as far as anybody tells: for operators, and for nobody's decisions.

Over all tenants together, from what this router has read of the log since it started. Only answers
that clients judged count, and those are no random sample of all. Checks are left out: they find
wrong answers and no right ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from penstock_router.domain.outcome import Outcome
from penstock_shared.contracts.requests import FIRST_ATTEMPT, Decision
from penstock_shared.contracts.routing import Candidate

BINS: Final = 15
_KEEP: Final = 1 - 1 / 2_000
"""Of what is remembered, with each judged answer: about the last two thousand count."""


@dataclass(slots=True)
class _Bin:
    """Judged answers whose expected P(correct) was about the same."""

    answers: float = 0.0
    expected: float = 0.0
    correct: float = 0.0

    def fade(self) -> None:
        self.answers *= _KEEP
        self.expected *= _KEEP
        self.correct *= _KEEP


@dataclass(slots=True)
class Quality:
    """Sums over first attempts whose model `auto` chose, and over the costs of all of them."""

    expected_microusd: float = 0.0
    """Of the requests that have ended, as their decisions expected it, escalations included."""
    actual_microusd: float = 0.0
    """Of the same requests, all attempts."""
    _bins: list[_Bin] = field(default_factory=lambda: [_Bin() for _ in range(BINS)])
    _judged: float = 0.0
    _misrouted: float = 0.0

    def attempted(self, outcome: Outcome, decision: Decision) -> None:
        """An attempt ended."""
        if decision.expected_cost_microusd is not None:
            self.actual_microusd += outcome.cost_microusd
            if outcome.attempt == FIRST_ATTEMPT:
                self.expected_microusd += decision.expected_cost_microusd

    def judged(self, outcome: Outcome, decision: Decision) -> None:
        """A client said how right an answer was."""
        chosen = _candidate(decision, outcome.model)
        if outcome.correct is None or outcome.attempt != FIRST_ATTEMPT or chosen is None:
            return
        for each in self._bins:
            each.fade()
        into = self._bins[min(int(chosen.p_correct * BINS), BINS - 1)]
        into.answers += 1
        into.expected += chosen.p_correct
        into.correct += outcome.correct
        others = (other.p_correct for other in decision.candidates if other is not chosen)
        self._judged = _KEEP * self._judged + 1
        self._misrouted = _KEEP * self._misrouted + (1 - outcome.correct) * max(others, default=0.0)

    @property
    def cost_ratio(self) -> float:
        """Actual over expected cost; 1 before anything ended."""
        return self.actual_microusd / self.expected_microusd if self.expected_microusd else 1.0

    @property
    def misroute_rate(self) -> float:
        """The share of judged answers that were wrong where another model's would have been right.

        The latter is not known, and counted with the probability that the decision expected of the
        best other candidate. That a cheaper model would have done is not counted.
        """
        return self._misrouted / self._judged if self._judged else 0.0

    @property
    def calibration_error(self) -> float:
        """Between the expected P(correct) and the share of right answers, over bins of equal width.

        Expected calibration error: M. Naeini et al., "Obtaining Well Calibrated Probabilities
        Using Bayesian Binning" (AAAI 2015); 0 before anything was judged.
        """
        answers = sum(each.answers for each in self._bins)
        apart = sum(abs(each.expected - each.correct) for each in self._bins)
        return apart / answers if answers else 0.0


def _candidate(decision: Decision, model: str) -> Candidate | None:
    return next((each for each in decision.candidates if each.model == model), None)
