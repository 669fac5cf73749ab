"""A run that follows a dead one goes on after what clients have, and ends as if nothing was."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.job_line import JobLine, die
from tests.support.seamless import inherited, streamed
from tests.support.worker_rig import Listener, WorkerRig
from tokenizers import Tokenizer

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


def beginnings(text: str) -> list[str]:
    """What was shown after each token but the last."""
    tokenizer = Tokenizer.from_file(str(MODELS / MODEL / "tokenizer.json"))
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    ends = sorted({end for _, end in offsets} - {len(text)})
    assert len(ends) > 4
    return [text[:end] for end in ends]


async def left_behind(
    rig: WorkerRig, prompt: str, shown: Sequence[str], sampling: Sampling = LIMIT
) -> list[tuple[Job, Listener]]:
    """A job for each of these texts: its first holder died after it had shown it, in two deltas."""
    made = []
    async with JobLine(rig.broker, model=MODEL) as line:
        held = []
        for text in shown:
            job = await rig.route(prompt, model=MODEL, sampling=sampling, deadline_s=120)
            client, run = await rig.listen(job.request_id), rig.ids.new()
            subject = subjects.responses(job.tenant, job.request_id)
            for n, part in enumerate((text[:1], text[1:])):
                delta = encode_delta(job.attempt, run, n, part)
                await rig.broker.publish_core(subject, delta)
            await rig.broker.flush()
            await rig.publish(job)
            held.append(await line.take())
            made.append((job, client))
        for delivery in held:
            await die(delivery)
    return made


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_cut_anywhere_the_answer_is_the_uninterrupted_one(
    rig: WorkerRig, models_dir: Path, prompt: str
):
    """Greedy, the reference model, a holder that died after each token in turn (I6).

    Text, ending and stream are those of an undisturbed run, and only what the successor itself
    generated is its usage (I3).
    """
    settings = {"echo_model": False, "models_dir": models_dir}
    first = await rig.start_worker(**settings)
    job, client = await rig.submit(prompt, model=MODEL, sampling=LIMIT)
    whole = await client.final(60)
    tokens = (await rig.terminal(job)).usage.output_tokens
    await first.stop()
    rig.workers.remove(first)

    shown = beginnings(whole.text)
    interrupted = await left_behind(rig, prompt, shown)
    await rig.start_worker(**settings)
    for text, (job, client) in zip(shown, interrupted, strict=True):
        final = await client.final(60)
        assert (final.text, final.status) == (whole.text, whole.status), f"cut after {text!r}"
        assert inherited(client, final) == text
        assert streamed(client, final) == whole.text
        assert 0 < (await rig.terminal(job)).usage.output_tokens < tokens


async def test_a_sampled_answer_goes_on_after_what_was_shown(rig: WorkerRig, models_dir: Path):
    """Its end is another one each time; its beginning is what the client has."""
    warm = Sampling(max_output_tokens=24, temperature=1.0)
    made = await left_behind(rig, PROMPTS[0], ['{"an'] * 4, warm)
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
    [(_, client)] = await left_behind(rig, PROMPTS[0], [whole.text])
    await rig.start_worker(**settings)
    final = await client.final(60)
    assert (final.text, final.status) == (whole.text, whole.status)
    assert streamed(client, final) == whole.text
