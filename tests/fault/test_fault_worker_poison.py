"""Prompts that kill the process they run in: given up after three, and their model with them."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pytest
from tests.support.doctored_worker import FATAL_WORD
from tests.support.seamless import assert_completed_once
from tests.support.worker_process import Supervised, processes
from tests.support.worker_rig import TENANT, Listener, WorkerRig

from penstock_shared.contracts import subjects
from penstock_shared.contracts.dead import DeadLetter
from penstock_shared.contracts.errors import POISON_AFTER_DELIVERIES
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import QUARANTINE_AFTER, ModelRecord
from penstock_shared.contracts.requests import Sampling, Status
from penstock_shared.contracts.streams import DEAD, JOBS, Bucket
from penstock_shared.runtime.kv import last_entry
from penstock_shared.runtime.ordered import OrderedReader

_MODELS = Path(__file__).parents[2] / "models"
_DEADLINE_S = 240.0


async def dead_letters(rig: WorkerRig) -> list[DeadLetter]:
    reader = OrderedReader(rig.broker, DEAD, subjects.dead(TENANT, "jobs"))
    await reader.start()
    letters = [
        DeadLetter.model_validate_json((await reader.get()).data)
        for _ in range(reader.pending_at_start)
    ]
    await reader.stop()
    return letters


async def echo_record(rig: WorkerRig) -> ModelRecord:
    entry = await last_entry(rig.broker, Bucket.MODELS, "echo")
    assert entry is not None
    return ModelRecord.model_validate_json(entry.data)


async def poison(rig: WorkerRig) -> tuple[Job, Listener]:
    return await rig.submit(f"some {FATAL_WORD} please", deadline_s=_DEADLINE_S)


async def assert_given_up(rig: WorkerRig, job: Job, client: Listener) -> None:
    """Failed for a stated reason, once, and nothing billed."""
    final = await client.final(200)
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, "poison")
    assert await rig.facts(job) == 2
    assert (await rig.terminal(job)).usage.output_tokens == 0


@pytest.mark.timeout(300)
async def test_a_poisoned_prompt_dies_alone(rig: WorkerRig):
    """Three real crashes, then the fact and DEAD; whoever ran or waited beside it completes (I2).

    Its neighbours stream when it strikes, and come back with it each time.
    """
    texts = [" ".join([f"n{n}", *(f"w{k}" for k in range(45))]) for n in range(8)]
    async with processes(rig, 1, echo_tokens_per_s=12) as (worker,), Supervised(worker) as watched:
        neighbours = [await rig.submit(text, deadline_s=_DEADLINE_S) for text in texts]
        for _, client in neighbours:
            await asyncio.wait_for(client.first_delta.wait(), 60)
        job, client = await poison(rig)
        await assert_given_up(rig, job, client)
        for (neighbour, listener), text in zip(neighbours, texts, strict=True):
            await assert_completed_once(rig, neighbour, listener, text)
        await rig.settled()
        assert watched.deaths == [signal.SIGKILL] * POISON_AFTER_DELIVERIES
    letters = await dead_letters(rig)
    assert [(letter.stream, letter.error.code) for letter in letters] == [(JOBS, "poison")]
    assert job.request_id not in letters[0].content
    assert (await echo_record(rig)).crashed_on == (job.request_id,)


@pytest.mark.timeout(300)
async def test_three_of_them_quarantine_the_model(rig: WorkerRig, tmp_path: Path):
    """Its next jobs fail at once and say why, no process dies of them, and other models go on."""
    shutil.copytree(_MODELS / "penstock-small", tmp_path / "models" / "penstock-small")
    async with (
        processes(rig, 1, models_dir=tmp_path / "models") as (worker,),
        Supervised(worker) as watched,
    ):
        poisons = [await poison(rig) for _ in range(QUARANTINE_AFTER)]
        for job, client in poisons:
            await assert_given_up(rig, job, client)
        record = await echo_record(rig)
        assert set(record.crashed_on) == {job.request_id for job, _ in poisons}
        assert record.quarantined
        died = len(watched.deaths)
        refused, client = await poison(rig)
        final = await client.final(60)
        assert final.error is not None
        assert (final.status, final.error.code) == (Status.FAILED, "model_quarantined")
        assert await rig.facts(refused) == 2
        _, client = await rig.submit(
            "2 hats to Berlin", model="penstock-small", sampling=Sampling(max_output_tokens=8)
        )
        assert (await client.final(60)).status in {Status.COMPLETED, Status.INCOMPLETE}
        await rig.settled()
        assert len(watched.deaths) == died
    assert len(await dead_letters(rig)) >= QUARANTINE_AFTER
