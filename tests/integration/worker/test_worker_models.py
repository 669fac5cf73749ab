"""Real models from disk: answers, announcements, and files that are not what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.worker_rig import WorkerRig

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import Sampling, Status
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.kv import last_entry
from penstock_worker.app import create_app

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A copy of the small reference model alone."""
    shutil.copytree(MODELS / "penstock-small", tmp_path / "models" / "penstock-small")
    return tmp_path / "models"


async def test_a_reference_model_answers(rig: WorkerRig, models_dir: Path):
    """The whole path with CTranslate2: text, deltas and usage agree, greedy is repeatable."""
    await rig.start_worker(echo_model=False, models_dir=models_dir)
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
    await rig.start_worker(echo_model=False, models_dir=models_dir)
    job, client = await rig.submit("ab12 " * 5000, model="penstock-small")
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, "context_length_exceeded")
    assert "1024" in final.error.message
    assert (await rig.terminal(job)).usage.input_tokens == 0


async def test_each_model_is_announced_once(rig: WorkerRig, models_dir: Path):
    """The `models` bucket tells the router; a restart with the same model writes nothing."""
    await rig.start_worker(models_dir=models_dir)
    first = await last_entry(rig.broker, Bucket.MODELS, "penstock-small")
    assert first is not None
    record = ModelRecord.model_validate_json(first.data)
    assert record.context_tokens == 1024
    await rig.workers.pop().stop()
    await rig.start_worker(models_dir=models_dir)
    second = await last_entry(rig.broker, Bucket.MODELS, "penstock-small")
    assert second is not None
    assert second.sequence == first.sequence


async def test_a_broken_model_is_skipped_and_said(rig: WorkerRig, models_dir: Path):
    """The others run on; readiness names the file and what to do."""
    with (models_dir / "penstock-small" / "model.bin").open("r+b") as weights:
        weights.write(b"damage")
    worker = await rig.start_worker(models_dir=models_dir)
    assert [problem for problem in worker.problems() if "model.bin" in problem]
    _, client = await rig.submit("hello")
    assert (await client.final()).status is Status.COMPLETED


async def test_without_any_model_the_start_fails_with_a_sentence(rig: WorkerRig, tmp_path: Path):
    """It says where models belong."""
    empty = tmp_path / "none"
    empty.mkdir()
    worker = create_app(rig.settings(echo_model=False, models_dir=empty))
    with pytest.raises(PermanentError, match=r"penstock\.json"):
        await worker.start()
