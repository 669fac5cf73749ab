"""The workers that the autoscaler starts and drains."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.autoscaler import Autoscaler
from penstock.scaling import ScalingPolicy, WorkerRange
from penstock.supervision.spec import ProcessSpec, ProcessState, ProcessStatus

POLICY = ScalingPolicy(lag_threshold=16, cooldown_s=30, down_window_s=20)


class Pool:
    """Remembers which processes it would run; one that is removed stays until it is let go."""

    def __init__(self) -> None:
        self.names = ["billing"]
        self.may_go = asyncio.Event()
        self.drained: list[str] = []
        self.backing_off: set[str] = set()

    def statuses(self) -> tuple[ProcessStatus, ...]:
        return tuple(ProcessStatus(name, self._state(name), 1, 0, {}) for name in self.names)

    def _state(self, name: str) -> ProcessState:
        return ProcessState.BACKING_OFF if name in self.backing_off else ProcessState.READY

    def add(self, spec: ProcessSpec) -> None:
        assert spec.name not in self.names
        self.names.append(spec.name)

    async def remove(self, name: str) -> None:
        self.drained.append(name)
        await self.may_go.wait()
        self.names.remove(name)


async def always() -> bool:
    return True


def worker(name: str) -> ProcessSpec:
    return ProcessSpec(name=name, argv=(), env={}, ready=always, log_path=Path(name))


class Scene:
    """An autoscaler from none to three, its pool, and a queue and a clock that a test sets."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.queued: Sequence[int] = [0]
        self.now_s = 0.0
        self.scaler = Autoscaler(
            self.pool, worker, self._lags, WorkerRange(0, 3), POLICY, clock=lambda: self.now_s
        )

    async def _lags(self) -> Sequence[int]:
        return self.queued

    async def look(self, lags: Sequence[int], now_s: float) -> list[str]:
        self.queued, self.now_s = lags, now_s
        await self.scaler.look()
        await asyncio.sleep(0)  # the drains begin
        return self.pool.names


@pytest.fixture
def scene():
    return Scene()


async def test_workers_follow_the_queue_from_none_to_none(scene):
    """The highest numbers come last and go first; the services stay."""
    scene.pool.may_go.set()
    assert await scene.look([0], 0) == ["billing"]
    assert await scene.look([1000], 1) == ["billing", "worker-1"]
    assert await scene.look([1000], 2) == ["billing", "worker-1", "worker-2", "worker-3"]
    assert await scene.look([30], 22) == ["billing", "worker-1", "worker-2"]
    await scene.look([0], 53)
    assert scene.pool.names == ["billing"]
    assert scene.pool.drained == ["worker-3", "worker-1", "worker-2"]


async def test_a_burst_does_not_wait_for_those_that_drain(scene):
    """One that drains keeps its name and counts no more; others start beside it meanwhile."""
    await scene.look([1000], 0)
    await scene.look([1000], 1)
    await scene.look([0], 22)
    assert scene.pool.drained == ["worker-2", "worker-3"]
    await scene.look([1000], 23)
    assert scene.pool.names == ["billing", "worker-1", "worker-2", "worker-3"]
    scene.pool.may_go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scene.pool.names == ["billing", "worker-1"]
    assert await scene.look([1000], 24) == ["billing", "worker-1", "worker-2", "worker-3"]


async def test_none_is_drained_twice(scene):
    """A second stop would be a second signal."""
    await scene.look([1000], 0)
    await scene.look([1000], 1)
    for now_s in (22, 23, 24, 60, 61):
        await scene.look([0], now_s)
    assert sorted(scene.pool.drained) == ["worker-1", "worker-2", "worker-3"]


async def test_a_worker_that_keeps_dying_goes_before_one_that_serves(scene):
    """As in a cluster: otherwise the queue would be left to a process that never serves it."""
    scene.pool.may_go.set()
    await scene.look([1000], 1)
    await scene.look([1000], 2)
    scene.pool.backing_off = {"worker-1"}
    await scene.look([30], 22)
    assert scene.pool.drained == ["worker-1"]
    assert await scene.look([1000], 23) == ["billing", "worker-2", "worker-3", "worker-1"]
