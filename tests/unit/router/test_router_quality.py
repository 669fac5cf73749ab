"""What operators are told of the decisions: costs, misroutes, calibration."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from prometheus_client import REGISTRY

from penstock_router.adapters.quality_gauges import expose
from penstock_router.domain.outcome import Outcome
from penstock_router.domain.quality import Quality
from penstock_shared.contracts.requests import Decision
from penstock_shared.contracts.routing import Candidate


def outcome(*, correct: float | None, attempt: int = 1, cost: int = 0) -> Outcome:
    return Outcome(
        tenant="acme",
        request_id="r1",
        model="small" if attempt == 1 else "large",
        attempt=attempt,
        shape="",
        context="",
        correct=correct,
        failed=False,
        cost_microusd=cost,
        latency_ms=1.0,
        output_tokens=1,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def decision(*, small: float, large: float, expected: float | None = 100.0) -> Decision:
    return Decision(
        policy="test",
        model="small",
        probability=1.0,
        reason="",
        features={},
        candidates=tuple(
            Candidate(model=model, p_correct=p, cost_microusd=1.0, probability=0.5)
            for model, p in (("small", small), ("large", large))
        ),
        expected_cost_microusd=expected,
    )


def test_costs_are_those_of_all_attempts_against_one_expectation() -> None:
    """An escalation adds to what was paid, not to what was expected; unknown ones count nowhere."""
    quality, decided = Quality(), decision(small=0.5, large=0.9)
    assert quality.cost_ratio == 1
    quality.attempted(outcome(correct=0, cost=30), decided)
    quality.attempted(outcome(correct=1, attempt=2, cost=120), decided)
    quality.attempted(outcome(correct=1, cost=7), decision(small=0.5, large=0.9, expected=None))
    assert (quality.expected_microusd, quality.actual_microusd) == (100, 150)
    assert quality.cost_ratio == 1.5


def test_a_misroute_is_a_wrong_answer_that_another_model_was_expected_to_give_right() -> None:
    """Weighted by that expectation; right answers and later attempts are none."""
    quality = Quality()
    quality.judged(outcome(correct=0), decision(small=0.5, large=0.8))
    assert quality.misroute_rate == pytest.approx(0.8)
    quality.judged(outcome(correct=1), decision(small=0.5, large=0.8))
    quality.judged(outcome(correct=None), decision(small=0.5, large=0.8))
    quality.judged(outcome(correct=0, attempt=2), decision(small=0.5, large=0.8))
    assert quality.misroute_rate == pytest.approx(0.4, rel=1e-3)


@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_calibration_error_is_how_far_expectation_and_truth_are_apart(offset: float) -> None:
    """In simulation: near 0 where P(correct) is true, near the offset where it is not."""
    quality, random = Quality(), Random(7)
    for _ in range(20_000):
        p = random.uniform(0, 0.8)
        right = float(random.random() < p + offset)
        quality.judged(outcome(correct=right), decision(small=p, large=0.9))
    assert quality.calibration_error == pytest.approx(offset, abs=0.04)


def test_the_metrics_tell_what_it_knows() -> None:
    """Read when scraped, without a label that names a tenant (I8)."""
    quality = Quality()
    expose(quality)
    decided = decision(small=0.25, large=0.5)
    quality.attempted(outcome(correct=None, cost=50), decided)
    quality.judged(outcome(correct=0), decided)
    told = {
        (sample.name, *sample.labels.values()): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith(("router_misroute", "router_calibration", "router_expected"))
    }
    assert told == {
        ("router_misroute_rate",): 0.5,
        ("router_calibration_error",): 0.25,
        ("router_expected_vs_actual_cost_microusd", "expected"): 100,
        ("router_expected_vs_actual_cost_microusd", "actual"): 50,
        ("router_expected_vs_actual_cost_ratio",): 0.5,
    }
