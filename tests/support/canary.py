"""A canary's life in numbers: requests of two sides, whose outcomes come late, or never."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from penstock_router.domain.betting import Tally
from penstock_router.domain.experiments import Trial, verdict
from penstock_router.domain.outcome import Arm
from penstock_shared.contracts.routing import Experiment, PolicyRules

_FEEDBACK_AFTER: Final = 200
_AT_ONCE: Final = 4_096


@dataclass(frozen=True, slots=True)
class Canary:
    """What is simulated. Rates are of requests."""

    share: float
    baseline_fails: float
    candidate_fails: float
    requests: int
    """Of the candidate, at most."""
    delay: int = 0
    """By how many requests an outcome is late, on average."""
    judged: float = 0.0
    """Of the failures, the part that only a client's feedback tells."""
    lost: float = 0.0
    """Of the outcomes, the part that never comes."""
    latency: float = 1.0
    """The candidate's, as a multiple of the baseline's."""
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How one simulated canary ended; None: it had not."""

    reason: Literal["promoted", "rolled-back"] | None
    requests: int
    """Of the candidate that had been routed by then."""


def live(canary: Canary, seed: int) -> Ending:
    """Route, fold the outcomes as they come, and ask whenever something was settled."""
    experiment = Experiment(id="canary", candidate=PolicyRules(), share=canary.share)
    trial, routed = Trial(experiment.id), 0
    due: list[tuple[int, int, bool, Outcome]] = []
    for number, outcome in enumerate(_outcomes(canary, np.random.default_rng(seed))):
        routed += outcome.arm == "candidate"
        if outcome.late is not None:
            heapq.heappush(due, (number + outcome.late, number, False, outcome))
        while due and due[0][0] <= number:
            _, asked, told, ended = heapq.heappop(due)
            if told:
                trial.judged(ended.arm, wrong=True)
            else:
                ended.fold(trial)
                if ended.told_after is not None:
                    heapq.heappush(due, (number + ended.told_after, asked, True, ended))
            if trial.block == Tally():
                found = verdict(trial, experiment)
                if found is not None:
                    return Ending(found.reason, routed)
        if routed >= canary.requests:
            break
    return Ending(None, routed)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What will become of one request, and when."""

    arm: Arm
    failed: bool
    latency_ms: float
    cost: float
    late: int | None
    """By so many requests; None: it never comes."""
    told_after: int | None
    """A client says only so much later that the answer was wrong."""

    def fold(self, trial: Trial) -> None:
        """It is here."""
        trial.ended(
            self.arm,
            failed=self.failed,
            cost_microusd=int(self.cost),
            latency_ms=self.latency_ms,
        )


def _outcomes(canary: Canary, rng: np.random.Generator) -> Iterator[Outcome]:
    while True:
        candidate = rng.random(_AT_ONCE) < canary.share
        fails = rng.random(_AT_ONCE) < np.where(
            candidate, canary.candidate_fails, canary.baseline_fails
        )
        told = fails & (rng.random(_AT_ONCE) < canary.judged)
        late = rng.geometric(1 / (canary.delay + 1), _AT_ONCE) - 1
        lost = rng.random(_AT_ONCE) < canary.lost
        told_after = rng.geometric(1 / _FEEDBACK_AFTER, _AT_ONCE)
        latency = rng.lognormal(6, 0.7, _AT_ONCE) * np.where(candidate, canary.latency, 1.0)
        cost = rng.exponential(300, _AT_ONCE) * np.where(candidate, canary.cost, 1.0)
        for n in range(_AT_ONCE):
            yield Outcome(
                arm="candidate" if candidate[n] else "baseline",
                failed=bool(fails[n] and not told[n]),
                latency_ms=float(latency[n]),
                cost=float(cost[n]),
                late=None if lost[n] else int(late[n]),
                told_after=int(told_after[n]) if told[n] else None,
            )


def replayed(trial: Trial) -> Trial:
    """The trial after it was written down and read again."""
    return Trial.load(json.loads(json.dumps(trial.dump())))
