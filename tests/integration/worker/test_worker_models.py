"""Real models from disk: answers, announcements, and files that are not what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.model_copies import copy_model, harm_weights
from tests.support.worker_rig import WorkerRig

from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import Sampling, Status
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.kv import last_entry, purge, put
from penstock_worker.app import App

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A copy of the small reference model alone."""
    shutil.copytree(MODELS / "penstock-small", tmp_path / "models" / "penstock-small")
    return tmp_path / "models"


async def start(rig: WorkerRig, **options: object) -> App:
    return await rig.start_worker(**{"echo_model": False, "tuning_budget_s": 0, **options})


async def test_a_reference_model_answers(rig: WorkerRig, models_dir: Path):
    """The whole path with CTranslate2: text, deltas and usage agree, greedy is repeatable."""
    await start(rig, models_dir=models_dir)
    limit = Sampling(max_output_tokens=24)
    finals = []
    for _ in range(2):
        job, client = await rig.submit("2 hats to Berlin", model="penstock-small", sampling=limit)
        final = await client.final()
        ended = await rig.terminal(job)
        assert final.status in {Status.COMPLETED, Status.INCOMPLETE}
        assert "".join(delta.text for delta in client.deltas) == final.text
        assert 0 < ended.usage.output_tokens <= 24
        assert ended.usage.input_tokens > 4
        finals.append(final)
    assert finals[0].text == finals[1].text


async def test_a_prompt_over_the_context_is_the_clients_to_mend(rig: WorkerRig, models_dir: Path):
    """Failed with the API's own code, nothing billed, no dead letter."""
    await start(rig, models_dir=models_dir)
    job, client = await rig.submit("ab12 " * 5000, model="penstock-small")
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, "context_length_exceeded")
    assert "1024" in final.error.message
    assert (await rig.terminal(job)).usage.input_tokens == 0


async def test_each_model_is_announced_once(rig: WorkerRig, models_dir: Path):
    """The `models` bucket tells the router; a restart with the same model writes nothing."""
    await start(rig, models_dir=models_dir)
    first = await last_entry(rig.broker, Bucket.MODELS, "penstock-small")
    assert first is not None
    record = ModelRecord.model_validate_json(first.data)
    assert record.context_tokens == 1024
    await rig.workers.pop().stop()
    await start(rig, models_dir=models_dir)
    second = await last_entry(rig.broker, Bucket.MODELS, "penstock-small")
    assert second is not None
    assert second.sequence == first.sequence


async def test_a_broken_model_keeps_no_other_from_its_work(rig: WorkerRig, models_dir: Path):
    """The worker is ready as long as one model can be run."""
    harm_weights(models_dir / "penstock-small")
    worker = await start(rig, models_dir=models_dir, echo_model=True)
    assert worker.problems() == []
    _, client = await rig.submit("hello")
    assert (await client.final()).status is Status.COMPLETED


async def test_a_worker_whose_every_model_is_broken_is_not_ready(rig: WorkerRig, models_dir: Path):
    """Readiness names the file and what to do; the jobs end with the same words."""
    harm_weights(models_dir / "penstock-small")
    worker = await start(rig, models_dir=models_dir)
    (problem,) = worker.problems()
    assert "model.bin" in problem
    assert "add the model again" in problem
    _, client = await rig.submit("hello", model="penstock-small")
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, "model_corrupt")


async def test_without_any_model_a_worker_waits_for_one(rig: WorkerRig, tmp_path: Path):
    """It is ready, and serves what an operator adds without a restart."""
    store = tmp_path / "store"
    worker = await start(rig, models_dir=tmp_path / "none", model_store=store)
    assert worker.problems() == []
    record = copy_model(store / "added" / "1", "added").record()
    await put(rig.broker, Bucket.MODELS, "added", record.model_dump_json().encode())
    _, client = await rig.submit("hello", model="added")
    assert (await client.final()).status is Status.COMPLETED


async def test_a_removed_model_stays_removed_after_a_restart(rig: WorkerRig, models_dir: Path):
    """Workers announce what came with the installation, and never what was taken away."""
    await start(rig, models_dir=models_dir)
    await purge(rig.broker, Bucket.MODELS, "penstock-small")
    await rig.workers.pop().stop()
    await start(rig, models_dir=models_dir)
    entry = await last_entry(rig.broker, Bucket.MODELS, "penstock-small")
    assert entry is not None
    assert entry.data == b""
