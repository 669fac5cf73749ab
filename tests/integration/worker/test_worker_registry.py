"""Many models in one worker: on demand within a budget, swapped, removed, broken."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.model_copies import (
    Harm,
    begin_prompts_with,
    copy_model,
    harm_weights,
    lose_tokenizer,
    mix_up_tokenizer,
    truncate_weights,
)
from tests.support.worker_rig import Listener, WorkerRig, until

from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import (
    ModelLimits,
    ModelManifest,
    ModelState,
    ResidentModel,
    WorkerModels,
)
from penstock_shared.contracts.requests import Sampling, Status
from penstock_shared.contracts.streams import DEAD, Bucket
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.kv import purge, put

NAMES = [f"small-{letter}" for letter in "abcde"]
_SHORT = Sampling(max_output_tokens=6)
_NEED_BYTES = 150_000_000
_ENDED_WELL = {Status.COMPLETED, Status.INCOMPLETE}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def register(rig: WorkerRig, manifest: ModelManifest) -> None:
    """What `penstock models add` and `promote` do once the files lie there."""
    limits = ModelLimits(slots=1, memory_bytes=_NEED_BYTES)
    record = manifest.record().model_copy(update={"limits": limits, "origin": "operator"})
    await put(rig.broker, Bucket.MODELS, record.name, record.model_dump_json().encode())


async def add(rig: WorkerRig, store: Path, name: str, harm: Harm | None = None) -> None:
    manifest = copy_model(store / name / "1", name)
    if harm is not None:
        harm(store / name / "1")
    await register(rig, manifest)


async def start(rig: WorkerRig, store: Path, **options: object) -> None:
    defaults = {"model_store": store, "echo_model": False, "tuning_budget_s": 0}
    await rig.start_worker(**{**defaults, **options})


async def models(rig: WorkerRig) -> dict[str, ResidentModel]:
    answer = await rig.broker.client.request(subjects.models_state(), b"", timeout=5)
    return {one.name: one for one in WorkerModels.model_validate_json(answer.data).models}


async def in_state(rig: WorkerRig, name: str, state: ModelState, version: str) -> bool:
    one = (await models(rig)).get(name)
    return one is not None and (one.state, one.version) == (state, version)


async def answer(rig: WorkerRig, model: str) -> str:
    _, client = await rig.submit("2 hats to Berlin", model=model, sampling=_SHORT)
    final = await client.final(30)
    assert final.status in _ENDED_WELL, final
    return final.text


async def test_five_models_answer_side_by_side(rig: WorkerRig, store: Path):
    """All are loaded before the first job; the worker says of each where it stands."""
    for name in NAMES:
        await add(rig, store, name)
    await start(rig, store, echo_model=True, memory_budget_bytes=5 * _NEED_BYTES)
    said = await models(rig)
    assert {one.name: one.state for one in said.values()} == dict.fromkeys(
        [*NAMES, "echo"], ModelState.READY
    )
    layout = said[NAMES[0]].layout
    assert layout is not None
    assert layout.slots == 1
    assert len(set(await asyncio.gather(*(answer(rig, name) for name in NAMES)))) == 1
    _, client = await rig.submit("hello")
    assert (await client.final()).text == "hello"


async def test_five_models_take_turns_in_a_budget_for_two(rig: WorkerRig, store: Path):
    """Loaded on demand, least recently used out first: all are answered, never three loaded."""
    for name in NAMES:
        await add(rig, store, name)
    budget_bytes = 2 * _NEED_BYTES
    await start(rig, store, memory_budget_bytes=budget_bytes)
    held_bytes: list[int] = []

    async def look() -> None:
        while True:
            held_bytes.append(sum(one.memory_bytes for one in (await models(rig)).values()))
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    texts = await asyncio.gather(*(answer(rig, name) for name in NAMES * 4))
    looking.cancel()
    assert len(set(texts)) == 1
    assert max(held_bytes) == budget_bytes
    for name in reversed(NAMES):  # one at a time, in another order
        assert await answer(rig, name) == texts[0]


async def test_a_new_version_takes_over_under_load_without_a_failed_job(
    rig: WorkerRig, store: Path
):
    """Every job ends once, on one version or the other, and after the swap on the new one (I2)."""
    await add(rig, store, "swapped")
    copy_model(store / "swapped" / "2", "swapped", "2")
    second = begin_prompts_with(store / "swapped" / "2", "please ")
    await start(rig, store, memory_budget_bytes=4 * _NEED_BYTES)
    made: list[tuple[Job, Listener]] = []
    enough = asyncio.Event()

    async def load() -> None:
        while not enough.is_set():
            made.append(await rig.submit("2 hats to Berlin", model="swapped", sampling=_SHORT))
            await asyncio.sleep(0.005)

    loading = asyncio.create_task(load())
    await until(lambda: _ended(made, 5))
    await register(rig, second)
    await until(lambda: in_state(rig, "swapped", ModelState.READY, "2"))
    after = len(made)
    await until(lambda: _ended(made, after + 10))
    enough.set()
    await loading
    for _, client in made:
        assert (await client.final(30)).status in _ENDED_WELL
    read = [(await rig.terminal(job)).usage.input_tokens for job, _ in made]
    old, new = read[0], read[-1]
    assert old < new  # the second version's prompts are longer
    assert set(read) == {old, new}
    assert set(read[after:]) == {new}
    await rig.settled("swapped")
    for job, _ in made:
        assert await rig.facts(job) == 2


async def _ended(made: list[tuple[Job, Listener]], count: int) -> bool:
    return sum(client.ended.is_set() for _, client in made) >= count


async def test_a_removed_model_finishes_what_runs_and_takes_nothing_new(
    rig: WorkerRig, store: Path
):
    """Its jobs end, its memory is free, and no worker pulls from its queue any more."""
    await add(rig, store, "small-a")
    await start(rig, store, echo_model=True, echo_tokens_per_s=50)
    text = " ".join(f"w{n}" for n in range(40))
    _, client = await rig.submit(text)
    await client.first_delta.wait()
    await purge(rig.broker, Bucket.MODELS, "echo")
    assert (await client.final()).text == text

    async def gone() -> bool:
        return list(await models(rig)) == ["small-a"]

    await until(gone)
    await rig.publish(await rig.route("too late"))
    assert await answer(rig, "small-a")
    assert await rig.lag() == (1, 0)


async def test_harmed_models_say_why_and_harm_nobody(rig: WorkerRig, store: Path):
    """Each job fails once, with its reason, and is not tried again; the whole model answers."""
    harms = {
        "damaged": (harm_weights, "model_corrupt"),
        "truncated": (truncate_weights, "model_unloadable"),
        "wordless": (lose_tokenizer, "model_incomplete"),
        "mixed-up": (mix_up_tokenizer, "tokenizer_mismatch"),
    }
    for name, (harm, _) in harms.items():
        await add(rig, store, name, harm)
    await add(rig, store, "whole")
    await start(rig, store)
    for name, (_, code) in harms.items():
        made = [await rig.submit("hello", model=name) for _ in range(2)]
        for job, client in made:
            final = await client.final()
            assert (final.status, final.error and final.error.code) == (Status.FAILED, code)
            await rig.settled(name)
            assert await rig.facts(job) == 2
            assert (await rig.terminal(job)).usage.output_tokens == 0
        state = (await models(rig))[name]
        assert (state.state, state.why) == (
            ModelState.FAILED,
            final.error and final.error.message,
        )
    assert await answer(rig, "whole")
    dead = await rig.broker.jetstream.stream_info(DEAD)
    assert dead.state.messages == 0


async def test_a_mended_model_answers_once_it_is_promoted(rig: WorkerRig, store: Path):
    """The failure is forgotten with the record's next word; no restart is needed."""
    await add(rig, store, "mended", harm_weights)
    await start(rig, store)
    _, client = await rig.submit("hello", model="mended")
    assert (await client.final()).status is Status.FAILED
    await register(rig, copy_model(store / "mended" / "2", "mended", "2"))
    await until(lambda: in_state(rig, "mended", ModelState.UNLOADED, "2"))
    assert await answer(rig, "mended")
    assert await in_state(rig, "mended", ModelState.READY, "2")


async def test_over_share_jobs_trickle_beside_others_and_run_when_alone(rig: WorkerRig):
    """A flood neither starves nor pushes in: few of it are done when the others are."""
    await rig.start_worker(echo_tokens_per_s=40)
    text = " ".join(f"w{n}" for n in range(10))
    others = [  # options of their own keep them out of each other's batches
        await rig.submit(text, sampling=Sampling(temperature=(n + 1) / 100)) for n in range(48)
    ]
    flood = [
        await rig.submit(text, lane=Lane.OVER_SHARE, sampling=Sampling(temperature=1 + n / 100))
        for n in range(24)
    ]
    for _, client in others:
        assert (await client.final(60)).status is Status.COMPLETED
    done = sum(client.ended.is_set() for _, client in flood)
    assert 1 <= done <= 12
    for _, client in flood:
        assert (await client.final(60)).status is Status.COMPLETED
