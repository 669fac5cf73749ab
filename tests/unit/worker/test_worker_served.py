"""Which models' queues a worker pulls from, and that one model's trouble is nobody else's."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.usage import Price
from penstock_worker.handlers.lanes import Lanes
from penstock_worker.handlers.residents import Residents
from penstock_worker.handlers.served import ServedModels

_FREE = Price(input_microusd_per_1k=0, output_microusd_per_1k=0)


class FakeLanes:
    """Pulls nothing; its last job ends when `last_job` is set."""

    def __init__(self, model: str, failures: int) -> None:
        self.model = model
        self.failures = failures
        self.pulling = False
        self.stopped = False
        self.last_job = asyncio.Event()

    async def start(self) -> None:
        if self.failures:
            raise UnavailableError("no consumer")
        self.pulling = True

    async def stop_pulling(self) -> None:
        self.pulling = False

    async def finish(self) -> None:
        await self.last_job.wait()

    async def stop(self, grace_s: float) -> None:
        assert grace_s > 0
        self.last_job.set()
        self.stopped = True


class FakeResidents:
    """Keeps nothing."""

    handed_back = False

    def update(self, name: str, record: ModelRecord | None) -> None:
        assert record is None or record.name == name

    def hand_back_waiting(self) -> None:
        self.handed_back = True


class Scene:
    """A worker's lanes, all of them fakes; version "away" of any model is not on its disk."""

    def __init__(self) -> None:
        self.made: list[FakeLanes] = []
        self.failures = 0
        self.looked_for: list[str] = []
        self.residents = FakeResidents()
        self.served = ServedModels(
            cast("Residents", self.residents),
            self._has,
            self._lanes_of,
        )

    def _has(self, record: ModelRecord) -> bool:
        self.looked_for.append(record.name)
        return record.version != "away"

    def _lanes_of(self, model: str) -> Lanes:
        self.made.append(FakeLanes(model, self.failures))
        self.failures = max(0, self.failures - 1)
        return cast("Lanes", self.made[-1])

    def change(self, name: str, version: str | None = "1") -> None:
        self.served.on_change(name, None if version is None else record(name, version))

    def pulled(self) -> list[str]:
        return sorted(lanes.model for lanes in self.made if lanes.pulling)

    async def until_pulled(self, *names: str) -> None:
        async with asyncio.timeout(10):
            while self.pulled() != sorted(names):
                await asyncio.sleep(0.01)

    async def until_applied(self) -> None:
        """Until nothing more follows from the changes so far: a later one has taken effect."""
        self.change("last", "away")
        async with asyncio.timeout(10):
            while "last" not in self.looked_for:
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        await self.served.stop_pulling()
        await self.served.stop()


def record(name: str, version: str) -> ModelRecord:
    return ModelRecord(name=name, version=version, parameters=1, context_tokens=16, price=_FREE)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_it_pulls_for_what_is_registered_and_here(scene: Scene):
    """A version that lies on other machines only is theirs; so is a model nobody registered."""
    scene.change("a")
    scene.change("b", "away")
    await scene.served.start()
    assert scene.pulled() == ["a"]
    scene.change("b", "2")
    await scene.until_pulled("a", "b")
    scene.change("a", "away")
    scene.change("b", None)
    await scene.until_pulled()
    await scene.end()


async def test_the_last_jobs_of_a_removed_model_hold_up_no_other(scene: Scene):
    """They may run for minutes; models that are added or removed meanwhile are, at once."""
    scene.change("a")
    await scene.served.start()
    scene.change("a", None)
    scene.change("b")
    await scene.until_pulled("b")
    assert not scene.made[0].last_job.is_set()
    scene.change("a")  # it is back before its last job has ended
    await scene.until_pulled("a", "b")
    await scene.end()


async def test_a_drain_waits_for_the_jobs_of_a_removed_model_too(scene: Scene):
    """What was taken is finished, whatever became of its model."""
    scene.change("a")
    await scene.served.start()
    scene.change("a", None)
    await scene.until_pulled()
    await scene.served.stop_pulling()
    assert scene.residents.handed_back
    finishing = asyncio.create_task(scene.served.finish())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not finishing.done()
    scene.made[0].last_job.set()
    await finishing
    await scene.served.stop()
    assert scene.made[0].stopped


async def test_lanes_that_did_not_open_are_opened_again(scene: Scene):
    """The broker was away: the model is served once it is back, without a restart."""
    await scene.served.start()
    scene.failures = 1
    scene.change("a")
    await scene.until_pulled("a")
    assert len(scene.made) == 2
    await scene.end()


async def test_a_model_that_is_removed_meanwhile_is_not_opened_again(scene: Scene):
    """What is tried again is what the registry says by then."""
    await scene.served.start()
    scene.failures = 1
    scene.change("a")
    async with asyncio.timeout(10):
        while not scene.made:
            await asyncio.sleep(0.001)
    scene.change("a", None)
    scene.change("b")
    await scene.until_pulled("b")
    await scene.until_applied()
    assert scene.pulled() == ["b"]
    await scene.end()
