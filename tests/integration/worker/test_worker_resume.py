"""A run that follows a dead one goes on after what clients have, and ends as if nothing was."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.support.job_line import JobLine, die
from tests.support.seamless import inherited, streamed
from tests.support.worker_rig import Listener, WorkerRig

from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Sampling
from penstock_shared.contracts.responses import encode_delta

MODEL = "penstock-small"
MODELS = Path(__file__).parents[3] / "models"
PROMPTS = ("2 hats to Berlin, please", "Zwei Hüte und drei Körbe für Frau Müller in Köln")
LIMIT = Sampling(max_output_tokens=24)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    shutil.copytree(MODELS / MODEL, tmp_path / "models" / MODEL)
    return tmp_path / "models"


async def left_behind(
    rig: WorkerRig, prompt: str, shown: Iterable[str], sampling: Sampling = LIMIT
) -> tuple[Job, Listener]:
    """A job whose first holder died after it had shown these deltas."""
    job = await rig.route(prompt, model=MODEL, sampling=sampling, deadline_s=120)
    client, run = await rig.listen(job.request_id), rig.ids.new()
    subject = subjects.responses(job.tenant, job.request_id)
    for n, text in enumerate(shown):
        await rig.broker.publish_core(subject, encode_delta(job.attempt, run, n, text))
    await rig.broker.flush()
    async with JobLine(rig.broker, model=MODEL) as line:
        await rig.publish(job)
        await die(await line.take())
    return job, client


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_cut_anywhere_the_answer_is_the_uninterrupted_one(
    rig: WorkerRig, models_dir: Path, prompt: str
):
    """Greedy, the reference model, a holder that died after each delta in turn (I6).

    Text, ending and stream are those of an undisturbed run, and only what the successor itself
    generated is its usage (I3).
    """
    settings = {"echo_model": False, "models_dir": models_dir, "delta_interval_ms": 0}
    first = await rig.start_worker(**settings)
    job, client = await rig.submit(prompt, model=MODEL, sampling=LIMIT)
    whole = await client.final(60)
    pieces = [delta.text for delta in client.deltas]
    tokens = (await rig.terminal(job)).usage.output_tokens
    await first.stop()
    rig.workers.remove(first)
    assert len(pieces) > 4

    cuts = range(1, len(pieces))
    interrupted = [await left_behind(rig, prompt, pieces[:cut]) for cut in cuts]
    await rig.start_worker(**settings)
    for cut, (job, client) in zip(cuts, interrupted, strict=True):
        final = await client.final(60)
        assert (final.text, final.status) == (whole.text, whole.status), f"cut after {cut}"
        assert inherited(client, final) == "".join(pieces[:cut])
        assert streamed(client, final) == whole.text
        assert 0 < (await rig.terminal(job)).usage.output_tokens < tokens


async def test_a_sampled_answer_goes_on_after_what_was_shown(rig: WorkerRig, models_dir: Path):
    """Its end is another one each time; its beginning is what the client has."""
    warm = Sampling(max_output_tokens=24, temperature=1.0)
    made = [await left_behind(rig, PROMPTS[0], ['{"', "an"], warm) for _ in range(4)]
    await rig.start_worker(echo_model=False, models_dir=models_dir)
    for _, client in made:
        final = await client.final(60)
        assert final.text.startswith('{"an')
        assert streamed(client, final) == final.text


async def test_an_answer_that_was_shown_to_its_end_is_ended(rig: WorkerRig, models_dir: Path):
    """Its holder died between the last delta and the fact: no token more, and none lost."""
    settings = {"echo_model": False, "models_dir": models_dir}
    first = await rig.start_worker(**settings)
    _, client = await rig.submit(PROMPTS[0], model=MODEL, sampling=LIMIT)
    whole = await client.final(60)
    await first.stop()
    rig.workers.remove(first)
    _, client = await left_behind(rig, PROMPTS[0], [whole.text])
    await rig.start_worker(**settings)
    final = await client.final(60)
    assert (final.text, final.status) == (whole.text, whole.status)
    assert streamed(client, final) == whole.text
