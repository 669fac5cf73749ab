"""Which models are loaded, who leaves for whom, and what a swap does to those who wait."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast

import pytest

from penstock_shared.contracts.errors import PenstockError, PermanentError, TransientError
from penstock_shared.contracts.models import QUARANTINE_AFTER, ModelKind, ModelRecord, ModelState
from penstock_shared.contracts.usage import Price
from penstock_worker.adapters.echo_engine import EchoEngine
from penstock_worker.domain.resident import Resident
from penstock_worker.errors import EngineMemoryError, HandedBackError, ModelError, UnwantedError
from penstock_worker.handlers.residents import Residents

_BUDGET = 200
_NEED = 100
_FREE = Price(input_microusd_per_1k=0, output_microusd_per_1k=0)


class ManualClock:
    """Goes forward when it is told to."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_s, UTC)

    def monotonic_s(self) -> float:
        return self.time_s


class ClosableEngine(EchoEngine):
    """Knows whether it was closed."""

    closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Shelf:
    """Loads what it has; a load waits for `gate`, and raises what `broken` says."""

    def __init__(self) -> None:
        self.needs: dict[str, int] = {}
        self.broken: dict[tuple[str, str], Exception] = {}
        self.loads: list[tuple[str, str]] = []
        self.made: list[Resident] = []
        self.gate = threading.Event()
        self.gate.set()

    def memory_bytes(self, record: ModelRecord) -> int:
        return self.needs.get(record.name, _NEED)

    def load(self, record: ModelRecord) -> Resident:
        self.loads.append((record.name, record.version))
        assert self.gate.wait(10)
        if (error := self.broken.get((record.name, record.version))) is not None:
            raise error
        engine = ClosableEngine()
        resident = Resident(
            name=record.name,
            version=record.version,
            kind=ModelKind.TEXT,
            engine=engine,
            layout=engine.layout,
            memory_bytes=self.memory_bytes(record),
        )
        self.made.append(resident)
        return resident


class Scene:
    """Residents on a fake shelf, and a clock."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.clock = ManualClock()
        self.residents = Residents(self.shelf, self.clock, budget_bytes=_BUDGET)

    def register(self, *names: str, version: str = "1") -> None:
        for name in names:
            self.residents.update(name, record(name, version))

    async def use(self, name: str) -> Resident:
        """Take it and let go of it, one second later."""
        resident = await self.residents.acquire(name)
        self.clock.time_s += 1
        self.residents.release(resident)
        return resident

    def state(self, name: str) -> tuple[ModelState, str, str | None]:
        one = next(one for one in self.residents.states() if one.name == name)
        return one.state, one.version, one.why

    def loaded(self) -> set[str]:
        """Everything whose memory is taken."""
        return {one.name for one in self.shelf.made if not closed(one)}


@pytest.fixture
def scene() -> Scene:
    return Scene()


def record(name: str, version: str = "1", crashed_on: tuple[str, ...] = ()) -> ModelRecord:
    return ModelRecord(
        name=name,
        version=version,
        parameters=1,
        context_tokens=16,
        price=_FREE,
        crashed_on=crashed_on,
    )


QUARANTINED = tuple(f"request-{n}" for n in range(QUARANTINE_AFTER))


def closed(resident: Resident) -> bool:
    return cast("ClosableEngine", resident.engine).closed


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def refusal(asked: Awaitable[Resident]) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        await asked
    return caught.value


async def test_many_who_ask_at_once_wait_for_one_load(scene: Scene):
    """A model is loaded when the first job comes, once, and everybody gets the same."""
    scene.register("a")
    assert scene.state("a") == (ModelState.UNLOADED, "1", None)
    scene.shelf.gate.clear()
    asking = [asyncio.create_task(scene.residents.acquire("a")) for _ in range(50)]
    await until(lambda: bool(scene.shelf.loads))
    assert scene.state("a") == (ModelState.LOADING, "1", None)
    scene.shelf.gate.set()
    got = await asyncio.gather(*asking)
    assert scene.shelf.loads == [("a", "1")]
    assert {id(one) for one in got} == {id(scene.shelf.made[0])}
    assert got[0].users == 50
    assert scene.state("a") == (ModelState.READY, "1", None)


async def test_whoever_was_used_longest_ago_leaves(scene: Scene):
    """The third of two that fit: the idle one that was used last stays."""
    scene.register("a", "b", "c")
    await scene.use("a")
    await scene.use("b")
    await scene.use("a")
    await scene.use("c")
    assert scene.loaded() == {"a", "c"}
    assert scene.state("b") == (ModelState.UNLOADED, "1", None)


async def test_a_busy_model_leaves_after_its_last_user_and_not_before(scene: Scene):
    """Its users finish; meanwhile nobody new holds up the one that waits for its memory."""
    scene.register("a", "b", "c")
    held = [await scene.residents.acquire(name) for name in ("a", "a", "b")]
    scene.clock.time_s += 10
    waiting = asyncio.create_task(scene.residents.acquire("c"))
    await until(lambda: scene.state("a")[0] is not ModelState.READY)
    assert not closed(held[0])
    late = asyncio.create_task(scene.residents.acquire("a"))
    scene.residents.release(held[0])
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closed(held[1])
    assert not waiting.done()
    scene.residents.release(held[1])
    assert closed(held[1])
    assert (await waiting).name == "c"
    assert not closed(held[2])
    scene.clock.time_s += 10
    scene.residents.release(held[2])  # "b" is idle now, and gives way to the second "a"
    assert (await late).version == "1"
    assert scene.loaded() == {"a", "c"}


async def test_five_models_take_turns_within_a_budget_for_two(scene: Scene):
    """Under concurrent demand everybody is served, and never more is loaded than fits."""
    names = ["a", "b", "c", "d", "e"]
    scene.register(*names)
    served: list[str] = []

    async def job(name: str) -> None:
        resident = await scene.residents.acquire(name)
        assert not closed(resident)
        assert len(scene.loaded()) * _NEED <= _BUDGET
        await asyncio.sleep(0.001)
        assert not closed(resident)
        scene.clock.time_s += 10  # each has had its least residence
        scene.residents.release(resident)
        served.append(name)

    async with asyncio.timeout(30):
        await asyncio.gather(*(job(name) for _, name in itertools.product(range(20), names)))
    assert sorted(served) == sorted(names * 20)


async def test_a_model_larger_than_the_budget_is_refused_and_nobody_leaves_for_it(scene: Scene):
    """The message names both figures and the setting."""
    scene.register("a", "giant")
    scene.shelf.needs["giant"] = _BUDGET + 1
    await scene.use("a")
    error = await refusal(scene.residents.acquire("giant"))
    assert isinstance(error, ModelError)
    assert error.code == "model_too_large"
    assert "PENSTOCK_MEMORY_BUDGET_BYTES" in error.message
    assert scene.loaded() == {"a"}


async def test_a_new_version_serves_once_it_is_warm(scene: Scene):
    """While it loads everybody gets the old one, which closes with its last user."""
    scene.register("a")
    old = await scene.residents.acquire("a")
    scene.shelf.gate.clear()
    scene.register("a", version="2")
    await until(lambda: ("a", "2") in scene.shelf.loads)
    assert await scene.residents.acquire("a") is old
    assert scene.state("a")[:2] == (ModelState.READY, "1")
    scene.shelf.gate.set()
    await until(lambda: scene.state("a")[1] == "2")
    new = await scene.residents.acquire("a")
    assert (new.version, closed(old)) == ("2", False)
    scene.residents.release(old)
    assert not closed(old)
    scene.residents.release(old)
    assert closed(old)
    assert not closed(new)


async def test_a_version_promoted_during_the_swap_to_another_wins(scene: Scene):
    """The registry's last word counts, and what was overtaken is closed."""
    scene.register("a")
    await scene.use("a")
    scene.shelf.gate.clear()
    scene.register("a", version="2")
    await until(lambda: ("a", "2") in scene.shelf.loads)
    scene.register("a", version="3")
    scene.shelf.gate.set()
    await until(lambda: scene.state("a")[1] == "3")
    assert [(one.version, closed(one)) for one in scene.shelf.made] == [
        ("1", True),
        ("2", True),
        ("3", False),
    ]


async def test_where_both_versions_do_not_fit_the_old_one_leaves_first(scene: Scene):
    """There is a gap then, and no error: who comes meanwhile waits for the new one."""
    scene.shelf.needs["a"] = _BUDGET
    scene.register("a")
    old = await scene.residents.acquire("a")
    scene.clock.time_s += 10
    scene.register("a", version="2")
    await until(lambda: scene.state("a")[0] is ModelState.LOADING)
    waiting = asyncio.create_task(scene.residents.acquire("a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.residents.release(old)
    assert closed(old)
    assert (await waiting).version == "2"


async def test_a_failure_is_told_to_everybody_until_the_record_changes(scene: Scene):
    """A broken file is not loaded again for each job."""
    scene.shelf.broken["a", "1"] = PermanentError("Restore it.", code="model_corrupt")
    scene.register("a")
    for _ in range(3):
        error = await refusal(scene.residents.acquire("a"))
        assert isinstance(error, ModelError)
        assert (error.code, error.message) == ("model_corrupt", "Restore it.")
    assert scene.shelf.loads == [("a", "1")]
    assert scene.state("a") == (ModelState.FAILED, "1", "Restore it.")
    scene.register("a", version="2")
    assert (await scene.use("a")).version == "2"
    assert scene.state("a") == (ModelState.READY, "2", None)


async def test_a_failure_that_nobody_foresaw_is_one_like_any_other(scene: Scene):
    """Files can be broken in ways that a library answers with any exception: no retry loop."""
    scene.shelf.broken["a", "1"] = KeyError("unk_id")
    scene.register("a")
    for _ in range(2):
        error = await refusal(scene.residents.acquire("a"))
        assert isinstance(error, ModelError)
        assert error.code == "model_unloadable"
        assert "KeyError" in error.message
    assert scene.shelf.loads == [("a", "1")]


async def test_a_promoted_version_that_is_broken_leaves_the_old_one_serving(scene: Scene):
    """The swap fails, the requests do not; the state says why."""
    scene.register("a")
    old = await scene.use("a")
    scene.shelf.broken["a", "2"] = PermanentError("Restore it.", code="model_corrupt")
    scene.register("a", version="2")
    await until(lambda: scene.state("a")[2] is not None)
    assert await scene.residents.acquire("a") is old
    assert scene.state("a") == (ModelState.READY, "1", "Restore it.")
    assert scene.shelf.loads == [("a", "1"), ("a", "2")]


async def test_a_load_that_finds_too_little_memory_is_transient(scene: Scene):
    """The job is handed back, not failed; only after a while it is tried again."""
    scene.shelf.broken["a", "1"] = EngineMemoryError("too little")
    scene.register("a")
    for _ in range(3):
        error = await refusal(scene.residents.acquire("a"))
        assert isinstance(error, TransientError)
        assert error.code == "engine_out_of_memory"
    assert scene.shelf.loads == [("a", "1")]
    assert scene.state("a") == (ModelState.FAILED, "1", "too little")
    scene.clock.time_s += 60
    scene.shelf.broken.clear()
    assert (await scene.use("a")).name == "a"
    assert scene.state("a") == (ModelState.READY, "1", None)


async def test_a_swap_that_finds_too_little_memory_is_tried_again(scene: Scene):
    """The old one serves on, and after a while the next job that comes begins it anew."""
    scene.register("a")
    await scene.use("a")
    scene.shelf.broken["a", "2"] = EngineMemoryError("too little")
    scene.register("a", version="2")
    await until(lambda: scene.state("a")[2] == "too little")
    scene.shelf.broken.clear()
    assert (await scene.use("a")).version == "1"
    assert scene.shelf.loads == [("a", "1"), ("a", "2")]
    scene.clock.time_s += 60
    assert (await scene.use("a")).version == "1"
    await until(lambda: scene.state("a") == (ModelState.READY, "2", None))


@pytest.mark.parametrize(
    ("changed", "code"),
    [(None, "model_removed"), (record("a", crashed_on=QUARANTINED), "model_quarantined")],
)
async def test_a_model_that_may_not_run_leaves_with_its_last_user(
    scene: Scene, changed: ModelRecord | None, code: str
):
    """Removed or quarantined: nobody new gets it, and whoever holds it finishes."""
    scene.register("a")
    held = await scene.residents.acquire("a")
    scene.residents.update("a", changed)
    error = await refusal(scene.residents.acquire("a"))
    assert isinstance(error, ModelError)
    assert error.code == code
    assert not closed(held)
    scene.residents.release(held)
    assert closed(held)


@pytest.mark.parametrize("changed", [None, record("a", crashed_on=QUARANTINED)])
async def test_a_model_that_may_not_run_any_more_when_it_is_loaded_is_closed(
    scene: Scene, changed: ModelRecord | None
):
    """Its memory is given back though nobody ever held it."""
    scene.register("a")
    scene.shelf.gate.clear()
    waiting = asyncio.create_task(scene.residents.acquire("a"))
    await until(lambda: bool(scene.shelf.loads))
    scene.residents.update("a", changed)
    scene.shelf.gate.set()
    assert isinstance(await refusal(waiting), ModelError)
    assert closed(scene.shelf.made[0])


async def test_a_quarantine_that_is_lifted_is_over(scene: Scene):
    """Promoting the model again clears what it is remembered for."""
    scene.residents.update("a", record("a", crashed_on=QUARANTINED))
    assert (await refusal(scene.residents.acquire("a"))).code == "model_quarantined"
    scene.register("a")
    assert (await scene.use("a")).name == "a"


async def test_before_the_first_job_what_fits_is_loaded(scene: Scene):
    """Smallest first, and never so much that one pushes out another; a broken one stops none."""
    scene.shelf.broken["b", "1"] = PermanentError("Restore it.", code="model_corrupt")
    scene.register("b")
    for size, name in enumerate(("a", "c", "d")):
        sized = record(name).model_copy(update={"size_bytes": size})
        scene.residents.update(name, sized)
    scene.shelf.needs["b"] = 0
    await scene.residents.preload()
    assert scene.loaded() == {"a", "c"}
    assert scene.state("b") == (ModelState.FAILED, "1", "Restore it.")
    assert scene.state("d") == (ModelState.UNLOADED, "1", None)


async def test_a_drain_hands_back_who_waits_for_a_load_at_once(scene: Scene):
    """Another worker runs those jobs while this one still reads the weights, or waits for room."""
    scene.register("a", "b")
    held = await scene.residents.acquire("a")
    scene.shelf.gate.clear()
    waiting = [asyncio.create_task(scene.residents.acquire("b")) for _ in range(3)]
    await until(lambda: ("b", "1") in scene.shelf.loads)
    scene.residents.hand_back_waiting()
    for one in waiting:
        assert isinstance(await refusal(asyncio.wait_for(one, 5)), HandedBackError)
    assert not scene.shelf.gate.is_set()
    assert isinstance(await refusal(scene.residents.acquire("a")), HandedBackError)
    assert not closed(held)  # what runs is finished
    scene.residents.release(held)
    scene.shelf.gate.set()
    await scene.residents.stop()
    assert scene.loaded() == set()


async def test_a_stop_closes_what_is_loaded_and_what_is_being_loaded(scene: Scene):
    """No engine is left to the interpreter's exit, and who waits is handed back."""
    scene.register("a", "b")
    await scene.use("a")
    scene.shelf.gate.clear()
    waiting = asyncio.create_task(scene.residents.acquire("b"))
    await until(lambda: ("b", "1") in scene.shelf.loads)
    stopping = asyncio.create_task(scene.residents.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    scene.shelf.gate.set()
    await stopping
    assert [closed(one) for one in scene.shelf.made] == [True, True]
    assert isinstance(await refusal(waiting), HandedBackError)


async def test_who_is_not_wanted_any_more_does_not_wait_for_a_load(scene: Scene):
    """Cancelled, or out of time, while its model is being loaded: it ends, and the load goes on."""
    scene.register("a")
    scene.shelf.gate.clear()
    wanted = True
    waiting = asyncio.create_task(scene.residents.acquire("a", lambda: wanted))
    await until(lambda: bool(scene.shelf.loads))
    wanted = False
    with pytest.raises(UnwantedError):
        await asyncio.wait_for(waiting, 5)
    scene.shelf.gate.set()
    scene.residents.release(await scene.residents.acquire("a"))
    assert scene.shelf.loads == [("a", "1")]
