"""How the benchmark of scaling counts what workers cost."""

import json

import pytest
from benchmarks.harness.worker_count import WorkerCount, WorkersStayedError, worker_seconds

SAMPLES = [(0.0, 0), (1.0, 1), (3.0, 2), (4.0, 2), (6.0, 0), (9.0, 0)]


def test_worker_seconds_are_the_area_under_the_count():
    """One worker for two seconds, two for three; each sample holds until the next."""
    assert worker_seconds(SAMPLES, 0.0) == 2 * 1 + 3 * 2


def test_only_the_time_between_two_moments_counts():
    """Spans are cut at both ends."""
    assert worker_seconds(SAMPLES, 2.0, 3.5) == 1 * 1 + 0.5 * 2
    assert worker_seconds(SAMPLES, 6.0) == 0


def test_a_beginning_that_nobody_saw_is_refused():
    """A figure would be too small, and look fine."""
    for samples in ([], SAMPLES[1:]):
        with pytest.raises(ValueError, match="nobody"):
            worker_seconds(samples, 0.5)


def test_workers_with_a_process_are_counted(tmp_path):
    """Other services, and workers without a pid, are not; those that stay are told."""
    run_file = tmp_path / "run.json"
    names = {"nats": 1, "worker-1": 2, "worker-2": None}
    processes = [{"name": name, "pid": pid} for name, pid in names.items()]
    run_file.write_text(json.dumps({"processes": processes}))
    with WorkerCount(run_file) as count, pytest.raises(WorkersStayedError, match="1 workers"):
        count.wait_until_none(0)
    assert {workers for _, workers in count.samples} == {1}
