"""A tenant's experiment: who is on which side, what is counted of each, and when that is enough.

A canary ends by sequential tests on failures (`betting.py`), so that it may be looked at after
every outcome:

- rolled back, when that the candidate fails no more often than the baseline is refuted: wrongly
  with a probability of at most `FALSE_ROLLBACK`. Most of it goes to planned looks, exact tests at
  `LOOKS_AT` observations of the candidate, the rest to a bet that is settled all the time;
- promoted, when that it fails more often by `MARGIN` or more is refuted, and its latency and its
  cost are within `LATENCY_MARGIN` and `COST_MARGIN` of the baseline's by confidence bounds that
  hold at any time: each wrongly with a probability of at most `FALSE_PROMOTION`.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal

from penstock_router.domain.arm_stats import (
    ArmStats,
    cost_ratio_bound,
    latency_ratio_bound,
)
from penstock_router.domain.betting import Belief, Bet, Tally, fisher_tail
from penstock_router.domain.outcome import Arm
from penstock_shared.contracts.routing import Experiment

FALSE_ROLLBACK: Final = 0.0095
_BY_LOOK: Final = 0.0035
"""Of that, for each look."""
LOOKS_AT: Final = (425, 500)
"""The first is what has come of 500 requests when 15 % of the outcomes are late or missing."""
_BY_BET: Final = FALSE_ROLLBACK - len(LOOKS_AT) * _BY_LOOK
FALSE_PROMOTION: Final = 0.05
MARGIN: Final = 0.02
"""A failure rate that is higher by less than this is taken for not worse."""
LATENCY_MARGIN: Final = 1.25
"""Of the geometric means: most answers take about as long, a few take for ever."""
COST_MARGIN: Final = 1.2
"""Of the means: what is paid is the sum."""

_WORSE: Final = (Belief(odds=2.0, stake=0.9), Belief(odds=6.0, stake=0.1))
_NOT_WORSE: Final = (Belief(odds=1.0, stake=0.7), Belief(odds=0.5, stake=0.3))
_HASH_BYTES: Final = 8


def arm_of(experiment: Experiment, data_subject: str, *, key_id: str, request_id: str) -> Arm:
    """On which side a request is: all of a user's are on the same for as long as it runs.

    Where the client names no user its data subject is made of the key, and the request is taken
    for a user of its own: else all that comes by one key would be on one side.
    """
    named = data_subject.partition(":")[0] != key_id
    unit = f"{experiment.id}\0{data_subject if named else request_id}".encode()
    drawn = int.from_bytes(blake2b(unit, digest_size=_HASH_BYTES).digest()) / 2 ** (8 * _HASH_BYTES)
    return "candidate" if drawn < experiment.share else "baseline"


@dataclass(slots=True)
class Trial:
    """The outcomes of one experiment, folded in the order of the log; bounded in size."""

    experiment: str
    """Its id: outcomes of others are none of its."""
    baseline: ArmStats = field(default_factory=ArmStats)
    candidate: ArmStats = field(default_factory=ArmStats)
    block: Tally = field(default_factory=Tally)
    """What came since the bets were last settled."""
    settled: Tally = field(default_factory=Tally)
    worse: Bet = field(default_factory=lambda: Bet(0.0, _WORSE))
    """Against: the candidate fails no more often."""
    not_worse: Bet = field(default_factory=lambda: Bet(MARGIN, _NOT_WORSE))
    """Against: it fails more often by `MARGIN` or more."""
    look_ps: list[float] = field(default_factory=list)
    """The p-values at the planned looks that have been."""

    def ended(self, arm: Arm, *, failed: bool, cost_microusd: int, latency_ms: float) -> None:
        """A request came to its end, with all its attempts; one that was cancelled tells nothing.

        Args:
            arm: On which side it was.
            failed: It gave no usable answer.
            cost_microusd: Of all its attempts.
            latency_ms: From `routed` to the terminal.
        """
        self._of(arm).ended(failed=failed, cost_microusd=cost_microusd, latency_ms=latency_ms)
        self._observe(arm, failed=failed)

    def judged(self, arm: Arm, *, wrong: bool) -> None:
        """A client said of an answer, which `ended` has counted, whether it was right.

        That it was right is what was assumed; that it was wrong is one more observation.
        """
        if wrong:
            self._observe(arm, failed=True)

    def _of(self, arm: Arm) -> ArmStats:
        return self.candidate if arm == "candidate" else self.baseline

    def _observe(self, arm: Arm, *, failed: bool) -> None:
        self._of(arm).failures += failed
        block = self.block
        if arm == "candidate":
            block.candidate += 1
            block.candidate_failures += failed
        else:
            block.baseline += 1
            block.baseline_failures += failed
        if block.is_block:
            self._settle()
        if self.settled.candidate + self.block.candidate in LOOKS_AT[len(self.look_ps) :]:
            self.look_ps.append(fisher_tail(self.settled + self.block))

    def _settle(self) -> None:
        rate = self.settled.baseline_rate
        self.worse.settle(self.block, rate)
        self.not_worse.settle(self.block, rate)
        self.settled = self.settled + self.block
        self.block = Tally()

    def dump(self) -> list[Any]:
        """All of it, as JSON can hold it without loss."""
        parts = (self.baseline, self.candidate, self.block, self.settled)
        wealths = (list(self.worse.wealths), list(self.not_worse.wealths))
        return [
            self.experiment,
            *(list(astuple(part)) for part in parts),
            *wealths,
            list(self.look_ps),
        ]

    @classmethod
    def load(cls, data: list[Any]) -> Trial:
        """What `dump` gave.

        Raises:
            ValueError: it is something else, or of a release that counted something else.
        """
        try:
            experiment, baseline, candidate, block, settled, worse, not_worse, look_ps = data
            trial = cls(
                experiment,
                ArmStats(*baseline),
                ArmStats(*candidate),
                Tally(*block),
                Tally(*settled),
                look_ps=list(look_ps),
            )
            trial.worse.resume(worse)
            trial.not_worse.resume(not_worse)
        except TypeError as error:
            msg = "This is no experiment's state."
            raise ValueError(msg) from error
        return trial


@dataclass(frozen=True, slots=True)
class Verdict:
    """An experiment's end."""

    reason: Literal["promoted", "rolled-back"]
    evidence: dict[str, float]
    """The numbers behind it."""


def verdict(trial: Trial, experiment: Experiment) -> Verdict | None:
    """What the outcomes so far say; None: not enough, or a split that is only compared."""
    if experiment.kind != "canary" or trial.experiment != experiment.id:
        return None
    if _is_worse(trial):
        return Verdict("rolled-back", _evidence(trial))
    if trial.not_worse.log_wealth < -math.log(FALSE_PROMOTION):
        return None
    sides = (trial.candidate, trial.baseline)
    latency = latency_ratio_bound(*sides, FALSE_PROMOTION)
    cost = cost_ratio_bound(*sides, FALSE_PROMOTION)
    if latency > LATENCY_MARGIN or cost > COST_MARGIN:
        return None
    bounds = {"latency_ratio_at_most": latency, "cost_ratio_at_most": cost}
    return Verdict("promoted", _evidence(trial) | bounds)


def _is_worse(trial: Trial) -> bool:
    seen = min(trial.look_ps, default=1.0) <= _BY_LOOK
    return seen or trial.worse.log_wealth >= -math.log(_BY_BET)


def _evidence(trial: Trial) -> dict[str, float]:
    evidence = {
        "baseline_requests": trial.baseline.requests,
        "baseline_failures": trial.baseline.failures,
        "candidate_requests": trial.candidate.requests,
        "candidate_failures": trial.candidate.failures,
        "log_wealth_against_no_worse": round(trial.worse.log_wealth, 3),
        "log_wealth_against_worse_by_margin": round(trial.not_worse.log_wealth, 3),
    }
    looks = zip(LOOKS_AT, trial.look_ps, strict=False)
    return evidence | {f"p_at_{requests}": p for requests, p in looks}
