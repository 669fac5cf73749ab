"""Ways to route the reference models' tasks, replayed on what both models did with each message.

An answer's cost is its measured processor time. A failed check has cost its attempt, and the next
one is added. Every way has knobs; they are tuned on one half of the messages, and the other half
says what they reach. "Plans" are the router's own: `domain.plan` chooses among the small model
alone, the small one with the large one behind a check of its confidence, and the large one alone.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock_router.domain.classifier import Classifier
from penstock_router.domain.features import Features
from penstock_router.domain.lexicon import Lexicon
from penstock_router.domain.outcome import Estimate
from penstock_router.domain.plan import Check, PlanOption, plans_for
from penstock_router.evaluate.outcomes import features_of_prompts, read_outcomes
from penstock_router.evaluate.training import train
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.routing import PolicyRules
from penstock_shared.contracts.usage import Price

REFERENCE: Final = Path(__file__).parents[2] / "models" / "outcomes" / "reference.jsonl.gz"
QUALITY_AIM: Final = 0.98
COST_AIM: Final = 0.60
_BUDGET: Final = 0.95 * COST_AIM
"""What a way may cost on the half that its knobs are tuned on: the other half is another."""
_RESAMPLES: Final = 400
_WEAK, _STRONG = 0, 1
_THRESHOLDS: Final = (0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
_PENALTIES_OF_COST: Final = (4.0, 6.0, 9.0, 11.0, 13.0, 16.0)
"""What a wrong answer costs, in mean costs of the large model."""

Numbers: TypeAlias = NDArray[np.float64]
Chances: TypeAlias = Numbers
"""(messages, 2): P(right) of the small and of the large model, as the classifier says."""
Knobs: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What both models did; columns are the small and the large one."""

    features: tuple[Features, ...]
    right: Numbers
    cost_us: Numbers
    confidence: Numbers
    """Of the small model's answer."""
    schema_ok: NDArray[np.bool_]
    """Of the small model's answer."""

    @classmethod
    def read(cls, lexicon: Lexicon, path: Path = REFERENCE, cost: str = "cpu_us") -> Self:
        """Read a file that `penstock_models.outcomes` wrote; `cost` is one of its times."""
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return cls(
            features=features_of_prompts(read_outcomes(path), lexicon),
            right=np.array([(row["weak"], row["strong"]) for row in rows], float),
            cost_us=np.array(
                [(row["weak_run"][cost], row["strong_run"][cost]) for row in rows], float
            ),
            confidence=np.array([row["weak_run"]["confidence"] or 0.0 for row in rows]),
            schema_ok=np.array([row["weak_run"]["schema_ok"] for row in rows]),
        )

    def take(self, index: NDArray[np.intp]) -> Self:
        """Some of them."""
        return type(self)(
            tuple(self.features[place] for place in index),
            self.right[index],
            self.cost_us[index],
            self.confidence[index],
            self.schema_ok[index],
        )

    @property
    def tokens(self) -> Numbers:
        """How long each message is, as the router counts."""
        return np.array([each.token_count for each in self.features], float)


@dataclass(frozen=True, slots=True)
class Routes:
    """Who answers each message first, and when the large model follows the small one."""

    strong_first: NDArray[np.bool_]
    escalated: NDArray[np.bool_]

    def result(self, seen: Outcomes) -> tuple[Numbers, Numbers]:
        """Whether each answer that the client got was right, and what all attempts cost."""
        by_strong = self.strong_first | self.escalated
        right = np.where(by_strong, seen.right[:, _STRONG], seen.right[:, _WEAK])
        weak_us = np.where(self.strong_first, 0.0, seen.cost_us[:, _WEAK])
        return right, weak_us + np.where(by_strong, seen.cost_us[:, _STRONG], 0.0)


@dataclass(frozen=True, slots=True)
class Scenery:
    """What a way may know: the messages, the estimates, and what the tuning half has taught."""

    seen: Outcomes
    p: Chances
    taught: Outcomes
    """The tuning half: costs by length and the checks' error rates come from here alone."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to route."""

    name: str
    knobs: tuple[Knobs, ...]
    route: Callable[[Scenery, Knobs], Routes]


@dataclass(frozen=True, slots=True)
class Reached:
    """Relative to the large model alone, with 95 % bootstrap intervals."""

    quality: float
    quality_interval: tuple[float, float]
    cost: float
    cost_interval: tuple[float, float]
    strong_first: float
    """Share of the messages that the large model answered at once."""
    escalated: float
    knobs: Knobs

    @property
    def aim_met(self) -> bool:
        """At least the quality, at most the cost."""
        return self.quality >= QUALITY_AIM and self.cost <= COST_AIM


def _always(*, strong: bool) -> Callable[[Scenery, Knobs], Routes]:
    def route(at: Scenery, _: Knobs) -> Routes:
        size = len(at.seen.right)
        return Routes(np.full(size, strong), np.zeros(size, bool))

    return route


def _up_front(at: Scenery, knobs: Knobs) -> Routes:
    weak_us, strong_us = _expected_us(at)
    gain = knobs[0] * strong_us.mean() * (at.p[:, _STRONG] - at.p[:, _WEAK])
    return Routes(gain > strong_us - weak_us, np.zeros(len(gain), bool))


def _by_schema(at: Scenery, _: Knobs) -> Routes:
    return Routes(np.zeros(len(at.seen.right), bool), ~at.seen.schema_ok)


def _by_confidence(at: Scenery, knobs: Knobs) -> Routes:
    low = at.seen.confidence < knobs[0]
    return Routes(np.zeros(len(low), bool), low | ~at.seen.schema_ok)


def _by_plan(at: Scenery, knobs: Knobs) -> Routes:
    """The router's own plans, at prices that are the measured time."""
    penalty, threshold = knobs
    weak_us, strong_us = _expected_us(at)
    check = _check(at.taught, threshold)
    rules = PolicyRules(
        error_penalty_microusd=round(penalty * float(strong_us.mean())),
        min_confidence=threshold,
        max_attempts=2,
    )
    strong_first, escalates = [], []
    for p, *costs in zip(at.p.tolist(), weak_us.tolist(), strong_us.tolist(), strict=True):
        options = [
            PlanOption(model, Estimate(chance, 0.0, 1.0), cost, check)
            for model, chance, cost in zip(_MODELS, p, costs, strict=True)
        ]
        plan = min(
            plans_for(options, rules, checked=False),
            key=lambda one: one.loss_microusd(rules.error_penalty_microusd),
        )
        strong_first.append(plan.models[0] is _MODELS[_STRONG])
        escalates.append(len(plan.models) > 1 and plan.models[0] is _MODELS[_WEAK])
    failed = at.seen.confidence < threshold
    return Routes(np.array(strong_first), np.array(escalates) & failed)


def _check(taught: Outcomes, threshold: float) -> Check:
    """How the check of the small model's confidence errs, on the tuning half."""
    failed, right = taught.confidence < threshold, taught.right[:, _WEAK] > 0
    return Check(catches=float(failed[~right].mean()), false_alarms=float(failed[right].mean()))


def _expected_us(at: Scenery) -> tuple[Numbers, Numbers]:
    """What either model will take, from the message's length alone: linear on the tuning half."""
    weak, strong = (
        np.polynomial.Polynomial.fit(at.taught.tokens, at.taught.cost_us[:, model], 1)(
            at.seen.tokens
        )
        for model in (_WEAK, _STRONG)
    )
    least = at.taught.cost_us.min(axis=0)
    return np.maximum(weak, least[_WEAK]), np.maximum(strong, least[_STRONG])


def _model(name: str) -> ModelRecord:
    price = Price(input_microusd_per_1k=0, output_microusd_per_1k=0)  # costs are measured
    return ModelRecord(name=name, version="1", parameters=0, context_tokens=1024, price=price)


_MODELS: Final = (_model("penstock-small"), _model("penstock-large"))
_NO_KNOBS: Final[tuple[Knobs, ...]] = ((),)
WAYS: Final = (
    Way("always small", _NO_KNOBS, _always(strong=False)),
    Way("always large", _NO_KNOBS, _always(strong=True)),
    Way("classifier, up front", tuple((p,) for p in _PENALTIES_OF_COST), _up_front),
    Way("cascade by schema", _NO_KNOBS, _by_schema),
    Way("cascade by confidence", tuple((t,) for t in _THRESHOLDS), _by_confidence),
    Way("plans", tuple(itertools.product(_PENALTIES_OF_COST, _THRESHOLDS)), _by_plan),
)


def compare(seen: Outcomes, seed: int, ways: Iterable[Way] = WAYS) -> Mapping[str, Reached]:
    """Tune each way on a random half, and say what it reaches on the other.

    The estimates that the knobs are tuned with are those for messages that are left out.
    """
    rng = np.random.default_rng(seed)
    halves = np.array_split(rng.permutation(len(seen.right)), 2)
    tuning, judging = (seen.take(half) for half in halves)
    trained = train(tuning.features, tuning.right, {model.name: "1" for model in _MODELS})
    left_out = np.array(
        [
            [curve(score) for curve, score in zip(trained.weights.curves, row, strict=True)]
            for row in trained.scores.tolist()
        ]
    )
    known = Scenery(tuning, left_out, tuning)
    unknown = Scenery(judging, _estimates(Classifier(trained.weights), judging, tuning), tuning)
    return {way.name: _reached(way, known, unknown, rng) for way in ways}


def _estimates(classifier: Classifier, new: Outcomes, taught: Outcomes) -> Chances:
    """As the router's classifier says; the tuning half's share where it says nothing."""
    usual = taught.right.mean(axis=0).tolist()
    found = [
        [classifier.p_correct(features, model) for model in _MODELS] for features in new.features
    ]
    return np.array(
        [[base if p is None else p for p, base in zip(row, usual, strict=True)] for row in found]
    )


def _reached(way: Way, known: Scenery, unknown: Scenery, rng: np.random.Generator) -> Reached:
    knobs = min(way.knobs, key=lambda knobs: _rank(known, way, knobs))
    routes = way.route(unknown, knobs)
    right, cost_us = routes.result(unknown.seen)
    columns = np.column_stack(
        (right, unknown.seen.right[:, _STRONG], cost_us, unknown.seen.cost_us[:, _STRONG])
    )
    size = len(columns)
    drawn = np.array([columns[rng.integers(0, size, size)].mean(axis=0) for _ in range(_RESAMPLES)])
    mean = columns.mean(axis=0)
    return Reached(
        quality=float(mean[0] / mean[1]),
        quality_interval=_interval(drawn[:, 0] / drawn[:, 1]),
        cost=float(mean[2] / mean[3]),
        cost_interval=_interval(drawn[:, 2] / drawn[:, 3]),
        strong_first=float(routes.strong_first.mean()),
        escalated=float(routes.escalated.mean()),
        knobs=knobs,
    )


def _rank(known: Scenery, way: Way, knobs: Knobs) -> tuple[bool, float]:
    """The best quality first among those within the budget; the cheapest where none is."""
    right, cost_us = way.route(known, knobs).result(known.seen)
    cost = float(cost_us.mean() / known.seen.cost_us[:, _STRONG].mean())
    return (cost > _BUDGET, cost if cost > _BUDGET else -float(right.mean()))


def _interval(values: Numbers) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
