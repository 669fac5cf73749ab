"""What the worker's benchmarks make of the frames that they heard."""

from __future__ import annotations

import random

import pytest
from benchmarks.fairness import FLOODING, QUIET, seen_of
from benchmarks.harness.heard import Fed, FeedError, between_tokens_s, deliveries
from benchmarks.harness.worker_runs import steady_rate
from benchmarks.latency_under_load import arrivals_s

from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.usage import Usage


def _fed(
    sent_s: float,
    frames_s: list[float],
    ends: tuple[int, ...],
    *,
    limit: int = 10,
    status: Status = Status.INCOMPLETE,
    tenant: str = QUIET,
) -> Fed:
    ended_s = max([*frames_s, sent_s]) + 1
    final = FinalFrame(
        request_id="r",
        status=status,
        reason="max_output_tokens",
        model="m",
        attempt=1,
        run="run",
        deltas=len(ends),
        delta_ends=ends,
        text="x" * (ends[-1] if ends else 0),
        usage=Usage(input_tokens=1, output_tokens=10),
    )
    return Fed(
        request_id="r",
        tenant=tenant,
        limit=limit,
        subject="s",
        payload=b"",
        headers={},
        routed_unix_s=0.0,
        sent_s=sent_s,
        frames_s=frames_s,
        ended_s=ended_s,
        final=final.model_dump_json().encode(),
    )


def test_a_delta_has_the_share_of_the_tokens_that_it_has_of_the_text() -> None:
    """Ten tokens over twenty characters: two characters each."""
    job = _fed(0.0, [1.0, 2.0, 4.0], (4, 10, 20))
    assert [came.tokens for came in deliveries(job)] == [2.0, 3.0, 5.0]
    assert (job.first_s, job.total_s) == (1.0, 5.0)
    gaps = between_tokens_s(job)
    assert len(gaps) == 8
    assert sum(gaps) == pytest.approx(4.0 - 1.0)  # the first delta's wait is no gap


def test_a_lost_frame_moves_its_tokens_to_the_end() -> None:
    """Nothing is attributed to a moment that was not seen."""
    job = _fed(0.0, [1.0, 4.0], (4, 10, 20))
    assert [(came.at_s, came.tokens) for came in deliveries(job)] == [(5.0, 10)]
    assert not between_tokens_s(job)


@pytest.mark.parametrize("job", [_fed(0, [], (), status=Status.FAILED), _fed(0, [], (), limit=11)])
def test_work_that_was_not_done_is_no_measurement(job: Fed) -> None:
    """A failed or shortened answer would make the worker look fast."""
    with pytest.raises(FeedError):
        deliveries(job)


def test_the_rate_of_a_closed_loop_leaves_ramp_and_tail_out() -> None:
    """One job a second, ten tokens each: what came until the last one was sent counts."""
    jobs = [_fed(float(n), [n + 0.5], (1,)) for n in range(21)]
    # From 3.5 (the third of 21 ended) to 20: the deltas at 3.5, 4.5 … 19.5.
    assert steady_rate(jobs) == pytest.approx(17 * 10 / 16.5)


def test_arrivals_fill_their_time_at_their_rate() -> None:
    """In order, seeded, and as many per second as was asked for."""
    times_s = arrivals_s(random.Random(1), 1000, 50.0)
    assert times_s == sorted(times_s)
    assert times_s == arrivals_s(random.Random(1), 1000, 50.0)
    assert times_s[0] >= 0
    assert 19.0 < times_s[-1] <= 20.0


def test_only_what_ran_beside_the_flood_counts() -> None:
    """The quiet tenant's jobs after the flood had an idle worker."""
    flooding = [_fed(0.0, [n], (1,), tenant=FLOODING) for n in (1.0, 9.0)]  # over at 10
    quiet = [_fed(4.0, [5.0], (1,)), _fed(9.5, [9.8], (1,)), _fed(11.0, [11.5], (1,))]
    seen = seen_of(flooding, quiet)
    assert seen.waits_s == pytest.approx((1.0, 0.3))
    assert seen.fifo_s == pytest.approx((6.0, 0.5))
    assert seen.tokens == {FLOODING: 20, QUIET: 10}
    assert seen.lasted_s == 10.0
    assert seen_of([], quiet).fifo_s == ()
