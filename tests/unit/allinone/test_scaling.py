"""How many workers the queue asks for."""

from pathlib import Path

import pytest

from penstock.autoscaler import Autoscaler
from penstock.errors import OperatorError
from penstock.scaling import Stabilizer, WorkerRange, workers_for
from penstock.settings import read_settings
from penstock.supervision.spec import ProcessSpec, ProcessState, ProcessStatus


@pytest.mark.parametrize(
    ("lags", "workers"),
    [([], 0), ([0, 0], 0), ([1], 1), ([16], 1), ([17], 2), ([3, 40, 5], 3)],
)
def test_the_formula_is_that_of_keda(lags, workers):
    """Lag over threshold, rounded up; of several consumers the greediest decides."""
    assert workers_for(lags, lag_per_worker=16) == workers


def test_going_up_is_immediate_and_going_down_waits():
    """A pause of a few seconds does not throw away warm models."""
    stabilizer = Stabilizer(window_s=60)
    wishes = ((1, 0), (4, 1), (0, 2), (0, 60), (0, 61), (2, 62))
    assert [stabilizer.settle(wish, now) for wish, now in wishes] == [1, 4, 4, 4, 0, 2]


def test_workers_are_a_number_or_auto():
    """`auto` is elastic; anything else gets a sentence."""

    def read(text: str) -> WorkerRange:
        return read_settings({}, data_dir=None, port=0, workers=text).workers

    assert read("3") == WorkerRange(3, 3)
    assert read("auto").is_elastic
    for wrong in ("0", "65", "many", "-1"):
        with pytest.raises(OperatorError, match="--workers"):
            read(wrong)


class Pool:
    """Remembers which processes it would run."""

    def __init__(self) -> None:
        self.names = ["billing", "worker-1"]

    def statuses(self) -> tuple[ProcessStatus, ...]:
        return tuple(ProcessStatus(name, ProcessState.READY, 1, 0, {}) for name in self.names)

    def add(self, spec: ProcessSpec) -> None:
        self.names.append(spec.name)

    async def remove(self, name: str) -> None:
        self.names.remove(name)


async def always() -> bool:
    return True


def worker(name: str) -> ProcessSpec:
    return ProcessSpec(name=name, argv=(), env={}, ready=always, log_path=Path(name))


async def test_workers_follow_the_queue_within_their_bounds():
    """The highest numbers come and go; the first worker and the services stay."""
    pool, now_s, lag = Pool(), 0.0, 0

    async def lags():
        return [lag]

    scaler = Autoscaler(pool, worker, lags, WorkerRange(1, 3), clock=lambda: now_s)
    lag = 1000
    await scaler.look()
    assert pool.names == ["billing", "worker-1", "worker-2", "worker-3"]
    lag, now_s = 20, 100.0
    await scaler.look()
    assert pool.names == ["billing", "worker-1", "worker-2"]
    lag, now_s = 0, 200.0
    await scaler.look()
    assert pool.names == ["billing", "worker-1"]
