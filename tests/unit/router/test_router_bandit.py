"""Beliefs: the prior before the first answer, what answers teach, and how they fade."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_router.domain.bandit import MEMORY, Belief, Vector

DIMS = 8


def contexts(rng: np.random.Generator, count: int) -> Vector:
    drawn = rng.uniform(-1, 1, (count, DIMS))
    drawn[:, 0] = 1
    return drawn


@pytest.mark.parametrize("prior_p", [0.02, 0.3, 0.75, 0.98])
def test_before_the_first_answer_the_prior_holds(prior_p: float) -> None:
    """Nothing was judged: P(correct) is the classifier's, and nothing stands behind it."""
    x = contexts(np.random.default_rng(1), 1)[0]
    estimate = Belief.unknown(DIMS).estimate(x, prior_p, tick=0)
    assert estimate.p_correct == pytest.approx(prior_p, abs=1e-9)
    assert estimate.deviation > 0
    assert estimate.observations == 0


def test_answers_teach_what_depends_on_the_context() -> None:
    """After 4,000 answers P(correct) is near the truth, as far apart as it is, and surer."""
    rng = np.random.default_rng(2)
    weights = np.array([0.5, 1.5, -1.0, 0, 0, 0, 0, 0])
    belief, before = Belief.unknown(DIMS), Belief.unknown(DIMS)
    for tick, x in enumerate(contexts(rng, 4_000), 1):
        belief.update(x, None, float(rng.random() < truth(weights, x)), tick)
    errors, deviations = [], []
    for x in contexts(rng, 200):
        estimate = belief.estimate(x, None, 4_000)
        errors.append(abs(estimate.p_correct - truth(weights, x)))
        deviations.append(estimate.deviation)
        assert estimate.deviation < before.estimate(x, None, 0).deviation / 2
    assert np.mean(errors) < 0.04
    assert np.mean(errors) < 2 * np.mean(deviations), "it is as sure as it may be"


def truth(weights: Vector, x: Vector) -> float:
    return float(1 / (1 + np.exp(-weights @ x)))


def test_what_was_learned_fades_while_others_are_judged() -> None:
    """A model that is not asked any more becomes unknown again: as the tenant's answers go on."""
    belief = Belief.unknown(DIMS)
    x = contexts(np.random.default_rng(3), 1)[0]
    for tick in range(1, 300):
        belief.update(x, 0.8, 0.0, tick)
    at_once = belief.estimate(x, 0.8, 300)
    later = belief.estimate(x, 0.8, 300 + MEMORY)
    at_last = belief.estimate(x, 0.8, 300 + 20 * MEMORY)
    assert at_once.p_correct < 0.1 < later.p_correct < at_last.p_correct
    assert at_last.p_correct == pytest.approx(0.8, abs=0.01)
    assert at_once.observations > 2 * later.observations > 0


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.1), (0.1, 0.9)])
def test_a_level_that_changes_is_learned_anew(before: float, after: float) -> None:
    """However firm the belief was, 40 answers after the change it is on the other side."""
    rng = np.random.default_rng(4)
    belief = Belief.unknown(DIMS)
    xs = contexts(rng, 5_040)
    for tick, x in enumerate(xs, 1):
        p = before if tick <= 5_000 else after
        belief.update(x, None, float(rng.random() < p), tick)
    mean = np.mean([belief.estimate(x, None, 5_040).p_correct for x in xs[:50]])
    assert abs(mean - after) < 0.25


def test_the_covariance_stays_one() -> None:
    """Symmetric to the bit, as it is stored by half, and positive, however much was learned."""
    rng = np.random.default_rng(5)
    belief = Belief.unknown(DIMS)
    for tick, x in enumerate(contexts(rng, 20_000), 1):
        belief.update(x, 0.99, float(rng.random() < 0.01), tick)
    assert (belief.covariance == belief.covariance.T).all()
    assert np.linalg.eigvalsh(belief.covariance).min() > 0
