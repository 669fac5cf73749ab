"""How good the offline classifier is on outcomes that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.classifier import Classifier, Weights, scores_of
from penstock_router.domain.features import Features, features_of
from penstock_router.domain.lexicon import Lexicon
from penstock_router.evaluate.outcomes import Outcomes, features_of_prompts, text_content
from penstock_router.evaluate.routing_measures import (
    Numbers,
    apgr,
    calibration_error,
    call_performance_threshold,
)
from penstock_router.evaluate.training import train
from penstock_shared.contracts.models import ModelManifest

EVERY: Final = "all"
COST_RATIO: Final = 100.0
"""Strong to weak where no cost was measured: RouteLLM's prices, 24.7 and 0.24 $ per million."""
_RESAMPLES: Final = 200
_TIMED: Final = 500
_TIMED_TOKENS: Final = 500
_RECORDS: Final = tuple(
    ModelManifest(
        name=name,
        version="1",
        parameters=1,
        context_tokens=1,
        price_input_microusd_per_1k=0,
        price_output_microusd_per_1k=0,
    ).record()
    for name in ("weak", "strong")
)
Measures: TypeAlias = Mapping[str, float]
Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and where 95 % of the bootstrap's resamples lie."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Policy:
    """What one way of choosing reaches: share of right answers, cost per prompt."""

    accuracy: float
    cost: float


@dataclass(frozen=True, slots=True)
class OfflineReport:
    """All of it; costs are in processor microseconds, or in answers of the strong model."""

    trained_on: int
    judged_on: int
    splits: int
    measures: Mapping[str, Interval]
    """`<group>.apgr`, `.cpt50`, `.cpt80`; `<model>.ece_before`, `.ece_after`; `out_of_depth`."""
    policies: Mapping[str, Policy]
    decision_us: Mapping[str, float]
    """Features, packed context and both estimates, of prompts of about 500 tokens."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the classifier says of prompts, and what came true; columns: weak, strong."""

    groups: Sequence[str]
    scores: Numbers
    p: Numbers
    right: Numbers
    cost: Numbers
    known: Numbers
    """1 where the classifier did not pass."""

    def take(self, rows: NDArray[np.intp]) -> Predicted:
        """Some of the prompts, with repetitions."""
        groups = [self.groups[at] for at in rows]
        parts = (self.scores, self.p, self.right, self.cost, self.known)
        return Predicted(groups, *(part[rows] for part in parts))


def offline(train_rows: Outcomes, test_rows: Outcomes, lexicon: Lexicon) -> OfflineReport:
    """Train on some outcomes, judge on others."""
    weights, predicted = _judge(
        train_rows,
        test_rows,
        features_of_prompts(train_rows, lexicon),
        features_of_prompts(test_rows, lexicon),
    )
    return _report([predicted], len(train_rows), weights, test_rows, lexicon)


def offline_over_splits(rows: Outcomes, splits: int, lexicon: Lexicon, say: Say) -> OfflineReport:
    """Train on random halves of the outcomes, judge on the other halves; the means."""
    features = features_of_prompts(rows, lexicon)
    judged = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(rows))
        known, new = order[: len(rows) // 2], order[len(rows) // 2 :]
        weights, predicted = _judge(
            tuple(rows[at] for at in known),
            tuple(rows[at] for at in new),
            [features[at] for at in known],
            [features[at] for at in new],
        )
        judged.append(predicted)
        say(f"split {seed + 1} of {splits}")
    return _report(judged, len(rows) // 2, weights, rows, lexicon)


def measures_of(predicted: Predicted) -> dict[str, float]:
    """Everything that is a number for a set of prompts."""
    groups = np.asarray(predicted.groups)
    found: dict[str, float] = {"out_of_depth": float(1 - predicted.known.mean())}
    for group in (*sorted(set(predicted.groups)), EVERY):
        here = np.full(len(groups), fill_value=True) if group == EVERY else groups == group
        weak, strong = predicted.right[here].T
        uplift = predicted.p[here, 1] - predicted.p[here, 0]
        found[f"{group}.apgr"] = apgr(uplift, weak, strong)
        found[f"{group}.cpt50"] = call_performance_threshold(uplift, weak, strong, 0.5)
        found[f"{group}.cpt80"] = call_performance_threshold(uplift, weak, strong, 0.8)
    for at, model in enumerate(("weak", "strong")):
        right = predicted.right[:, at]
        before = np.clip(predicted.scores[:, at], 0, 1)
        found[f"{model}.ece_before"] = calibration_error(before, right)
        found[f"{model}.ece_after"] = calibration_error(predicted.p[:, at], right)
    return found


def _judge(
    train_rows: Outcomes,
    test_rows: Outcomes,
    known: Sequence[Features],
    new: Sequence[Features],
) -> tuple[Weights, Predicted]:
    weights = train(known, _right(train_rows), {"weak": "1", "strong": "1"}).weights
    found = [scores_of(weights, each) for each in new]
    scores = np.array([weights.base if each is None else each for each in found], np.float64)
    p = np.stack([curve(scores[:, at]) for at, curve in enumerate(weights.curves)], 1)
    predicted = Predicted(
        groups=[row.group for row in test_rows],
        scores=scores,
        p=p,
        right=_right(test_rows),
        cost=_cost(test_rows),
        known=np.array([each is not None for each in found], np.float64),
    )
    return weights, predicted


def _right(rows: Outcomes) -> Numbers:
    return np.array([(row.weak, row.strong) for row in rows], np.float64)


def _cost(rows: Outcomes) -> Numbers:
    return np.array(
        [
            (row.weak_run.cpu_us, row.strong_run.cpu_us)
            if row.weak_run and row.strong_run
            else (1 / COST_RATIO, 1.0)
            for row in rows
        ],
        np.float64,
    )


def _report(
    judged: Sequence[Predicted],
    trained_on: int,
    weights: Weights,
    timed: Outcomes,
    lexicon: Lexicon,
) -> OfflineReport:
    rng = np.random.default_rng(0)
    exact = _mean([measures_of(each) for each in judged])
    resamples = max(1, _RESAMPLES // len(judged))
    drawn = [
        _mean(
            [measures_of(each.take(rng.integers(0, len(each.p), len(each.p)))) for each in judged]
        )
        for _ in range(resamples)
    ]
    measures = {
        name: _interval(mean, np.array([each.get(name, np.nan) for each in drawn]))
        for name, mean in exact.items()
    }
    policies = [policies_of(each) for each in judged]
    return OfflineReport(
        trained_on=trained_on,
        judged_on=len(judged[0].p),
        splits=len(judged),
        measures=measures,
        policies={
            name: Policy(
                float(np.mean([each[name].accuracy for each in policies])),
                float(np.mean([each[name].cost for each in policies])),
            )
            for name in policies[0]
        },
        decision_us=decision_time(Classifier(weights), timed, lexicon),
    )


def _interval(mean: float, drawn: Numbers) -> Interval:
    """NaN where there is no gap; resamples without one, or without the group, say nothing."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return Interval(mean, float(low), float(high))


def policies_of(predicted: Predicted) -> dict[str, Policy]:
    """What the plain ways of choosing reach, the classifier at half the calls, and the oracle."""
    right, cost = predicted.right, predicted.cost
    best = int(right.mean(0).argmax())
    uplift = predicted.p[:, 1] - predicted.p[:, 0]
    half = uplift > np.median(uplift)
    needed = (right[:, 0] < right[:, 1]).astype(int)
    every = np.arange(len(right))
    return {
        "random": Policy(float(right.mean()), float(cost.mean())),
        "always cheap": Policy(float(right[:, 0].mean()), float(cost[:, 0].mean())),
        "always strong": Policy(float(right[:, 1].mean()), float(cost[:, 1].mean())),
        "best single": Policy(float(right[:, best].mean()), float(cost[:, best].mean())),
        "classifier, half the calls strong": Policy(
            float(np.where(half, right[:, 1], right[:, 0]).mean()),
            float(np.where(half, cost[:, 1], cost[:, 0]).mean()),
        ),
        "oracle": Policy(float(right[every, needed].mean()), float(cost[every, needed].mean())),
    }


def decision_time(classifier: Classifier, rows: Outcomes, lexicon: Lexicon) -> dict[str, float]:
    """Microseconds from the text to both estimates, for prompts of about 500 tokens."""
    taken_us = []
    for start in range(min(_TIMED, len(rows))):
        text, at = "", start
        while lexicon.read(text).token_count < _TIMED_TOKENS and at < start + _TIMED_TOKENS:
            text = f"{text} {rows[at % len(rows)].prompt}"
            at += 1
        content = text_content(text)
        began = perf_counter()
        features = features_of(content, lexicon)
        features.context()
        for record in _RECORDS:
            classifier.p_correct(features, record)
        taken_us.append((perf_counter() - began) * 1e6)
    return {
        name: float(np.quantile(taken_us, share)) for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def _mean(found: Sequence[Measures]) -> dict[str, float]:
    return {name: float(np.mean([each.get(name, np.nan) for each in found])) for name in found[0]}
