"""The formulas behind the benchmarks' figures."""

from __future__ import annotations

import os

import pytest
from benchmarks.end_to_end import compare
from benchmarks.harness.arithmetic import median_of, per_request_ms, percentile
from benchmarks.harness.processes import cpu_seconds, pss_bytes
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_percentile_is_the_nearest_rank(values: list[float], share: float) -> None:
    """It is one of the values, and the smallest with enough of them at or below it."""
    found = percentile(values, share)
    assert found in values
    assert sum(v <= found for v in values) >= share * len(values) - 1e-9
    assert sum(v < found for v in values) < share * len(values)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_percentile_refuses_what_has_no_answer(values: list[float], share: float) -> None:
    """No figure is made up for an empty run."""
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)


def test_per_request_leaves_out_processes_that_were_not_there_throughout() -> None:
    """A process that was restarted between would show nonsense."""
    spent = per_request_ms({"a": 1.0, "b": 2.0, "gone": 1.0}, {"a": 1.5, "b": 4.0, "new": 9.0}, 100)
    assert list(spent.items()) == [("b", 20.0), ("a", 5.0)]


def test_median_of_rounds_is_taken_column_by_column() -> None:
    """One slow round changes nothing."""
    rows = [{"rps": 10.0, "p50": 3.0}, {"rps": 12.0, "p50": 1.0}, {"rps": 2.0, "p50": 99.0}]
    assert median_of(rows) == {"rps": 10.0, "p50": 3.0}


def test_our_default_is_compared_with_litellms_best_on_each_count() -> None:
    """The best throughput may be one worker count's and the best latency another's."""
    aims = compare(
        {
            "penstock": {"requests_per_s": 900.0, "p50_ms": 15.0, "p99_ms": 30.0},
            "penstock, 3 NATS servers": {"requests_per_s": 9e9, "p50_ms": 0.0, "p99_ms": 0.0},
            "litellm, 1 worker": {"requests_per_s": 100.0, "p50_ms": 14.0, "p99_ms": 200.0},
            "litellm, 2 workers": {"requests_per_s": 200.0, "p50_ms": 80.0, "p99_ms": 100.0},
        }
    )
    assert [aim.met for aim in aims] == [True, False, False, True]
    assert aims[0].measured == "9.0 times"


def test_a_process_is_counted_with_its_descendants() -> None:
    """This very process has used time and memory; a parent's figure holds its child's."""
    own = {"own": os.getpid()}
    assert cpu_seconds(own)["own"] > 0
    assert pss_bytes(own)["own"] > 1_000_000
    assert cpu_seconds({"nobody": 2**22})["nobody"] == 0.0
