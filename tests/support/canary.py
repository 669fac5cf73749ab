"""A canary's life in numbers: requests of two sides, whose outcomes come late, or never."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.experiments import Trial, verdict
from penstock_router.domain.outcome import Arm
from penstock_shared.contracts.routing import Experiment, PolicyRules

_FEEDBACK_AFTER: Final = 200


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
    """Fold the outcomes in the order in which they come, and ask after each of the candidate's."""
    experiment = Experiment(id="canary", candidate=PolicyRules(), share=canary.share)
    trial = Trial(experiment.id)
    sides, events = _drawn(canary, np.random.default_rng(seed))
    routed = sides.cumsum()
    for when, number, told, failed, latency_ms, cost in events:
        arm: Arm = "candidate" if sides[number] else "baseline"
        if told:
            trial.judged(arm, wrong=True)
        else:
            trial.ended(arm, failed=failed, cost_microusd=int(cost), latency_ms=latency_ms)
        if arm == "candidate":
            found = verdict(trial, experiment)
            so_far = int(routed[min(when, len(routed) - 1)])
            if so_far > canary.requests:
                break
            if found is not None:
                return Ending(found.reason, so_far)
    return Ending(None, canary.requests)


def _drawn(
    canary: Canary, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Iterator[tuple[int, int, bool, bool, float, float]]]:
    """Who is the candidate's, and what comes: when, of which request, and whether as feedback."""
    many = int(canary.requests / canary.share * 1.2) + 500
    sides = rng.random(many) < canary.share
    fails = rng.random(many) < np.where(sides, canary.candidate_fails, canary.baseline_fails)
    judged = fails & (rng.random(many) < canary.judged)
    here = rng.random(many) >= canary.lost
    when = np.arange(many) + rng.geometric(1 / (canary.delay + 1), many) - 1
    told = np.flatnonzero(judged & here)
    numbers = np.concatenate([np.flatnonzero(here), told])
    whens = np.concatenate([when[here], when[told] + rng.geometric(1 / _FEEDBACK_AFTER, len(told))])
    feedback = np.arange(len(numbers)) >= here.sum()
    order = np.argsort(whens, kind="stable")
    numbers = numbers[order]
    latency = rng.lognormal(6, 0.7, many) * np.where(sides, canary.latency, 1.0)
    cost = rng.exponential(300, many) * np.where(sides, canary.cost, 1.0)
    columns = (
        whens[order],
        numbers,
        feedback[order],
        (fails & ~judged)[numbers],
        latency[numbers],
        cost[numbers],
    )
    return sides, zip(*(column.tolist() for column in columns), strict=True)


def replayed(trial: Trial) -> Trial:
    """The trial after it was written down and read again."""
    return Trial.load(json.loads(json.dumps(trial.dump())))
