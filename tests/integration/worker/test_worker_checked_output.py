"""Answers that must satisfy a schema or a confidence: passed, failed, or one attempt failed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support.job_line import JobLine, die
from tests.support.worker_rig import TENANT, WorkerRig, until

from penstock_shared.contracts.requests import AttemptFailed, Sampling, Status
from penstock_shared.contracts.responses import RUN_NUMBERS

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 3}},
    "required": ["name"],
}
GOOD, BAD = '{"name": "Ada"}', '{"name": "Al"}'


async def _attempt_failed(rig: WorkerRig, text: str, **options: Any) -> AttemptFailed:
    """The fact of a job that is not the request's last attempt."""
    job, client = await rig.submit(text, final_attempt=False, **options)

    async def failed() -> bool:
        return (await rig.last_fact(job)).event_type == AttemptFailed.TYPE

    await until(failed)
    await rig.settled(model=options.get("model", "echo"))
    assert await rig.facts(job) == 2
    assert client.finals == []
    return AttemptFailed.model_validate_json((await rig.last_fact(job)).data)


async def test_an_answer_that_meets_its_schema_is_shown(rig: WorkerRig):
    """Withheld until its fact stands; the final frame brings it, with its confidence."""
    await rig.start_worker()
    job, client = await rig.submit(GOOD, output_schema=SCHEMA, min_confidence=0.5)
    final = await client.final()
    ended = await rig.terminal(job)
    assert (ended.status, final.text, ended.confidence) == (Status.COMPLETED, GOOD, 1.0)
    assert (client.deltas, ended.delta_ends) == ([], (len(GOOD),))


async def test_an_answer_that_misses_its_schema_ends_the_last_attempt(rig: WorkerRig):
    """Failed, billed as generated (I3), never shown, and the fact quotes nothing of it (I10)."""
    await rig.start_worker()
    job, client = await rig.submit(BAD, output_schema=SCHEMA)
    final = await client.final()
    stored = await rig.last_fact(job)
    ended = await rig.terminal(job)
    assert ended.error is not None
    assert (ended.status, ended.error.code) == (Status.FAILED, "output_invalid")
    assert "minLength" in ended.error.message
    assert ended.usage.output_tokens == 2
    assert (client.deltas, final.text) == ([], "")
    assert b"Al" not in stored.data
    await rig.settled()
    assert await rig.facts(job) == 2


async def test_an_attempt_that_misses_its_schema_leaves_the_request_open(rig: WorkerRig):
    """`attempt.failed` with the keyword in the clear, the rest sealed (I10); the job is gone."""
    await rig.start_worker()
    failed = await _attempt_failed(rig, BAD, output_schema=SCHEMA)
    assert (failed.reason, failed.keyword) == ("schema", "minLength")
    assert failed.usage.output_tokens == 2
    for field, sealed, expected in (
        ("check", failed.detail, "At '/name'"),
        ("output", failed.output, BAD),
    ):
        assert expected not in sealed
        opened = await rig.keyring.open(
            TENANT, failed.data_subject, failed.request_id, field, sealed
        )
        assert opened.decode().startswith(expected)


async def test_a_cut_off_answer_fails_with_its_own_reason(rig: WorkerRig):
    """Even if what there is would pass: nobody knows what would have followed."""
    await rig.start_worker()
    job, client = await rig.submit(
        "1 2", output_schema={"type": "integer"}, sampling=Sampling(max_output_tokens=1)
    )
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, "output_truncated")
    assert (await rig.terminal(job)).usage.output_tokens == 1


async def test_a_checked_answer_whose_holder_died_is_checked_anew(rig: WorkerRig):
    """Nothing of the dead one's was shown; all tokens of the other are checked and billed (I3)."""
    job = await rig.route(GOOD, output_schema=SCHEMA, min_confidence=0.5)
    client = await rig.listen(job.request_id)
    async with JobLine(rig.broker) as line:
        await rig.publish(job)
        await die(await line.take())
    await rig.start_worker()
    final = await client.final()
    ended = await rig.terminal(job)
    assert (ended.status, final.text, ended.confidence) == (Status.COMPLETED, GOOD, 1.0)
    assert (ended.usage.output_tokens, final.numbers) == (2, (RUN_NUMBERS,))


async def test_text_around_the_json_fails(rig: WorkerRig):
    """What a client would have to cut out by hand is no answer."""
    await rig.start_worker()
    failed = await _attempt_failed(rig, f"Sure! {GOOD}", output_schema=SCHEMA)
    assert failed.keyword == "json"


async def test_an_answer_too_costly_to_check_fails_that_attempt(rig: WorkerRig):
    """A schema whose cost grows with the answer's depth: a failed attempt, and no hanging."""
    await rig.start_worker()
    doubling = {"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}
    failed = await _attempt_failed(
        rig, json.dumps("[" * 60)[1:-1] + "]" * 60, output_schema=doubling
    )
    assert failed.keyword == "schema"


@pytest.fixture
async def unsure(rig: WorkerRig, tmp_path: Path) -> dict[str, Any]:
    """What to ask of a real model so that it is less sure than is asked for."""
    small = Path(__file__).parents[3] / "models" / "penstock-small"
    shutil.copytree(small, tmp_path / "models" / "penstock-small")
    await rig.start_worker(echo_model=False, models_dir=tmp_path / "models")
    limit = Sampling(max_output_tokens=64)
    return {"model": "penstock-small", "sampling": limit, "min_confidence": 1.0}


async def test_low_confidence_fails_the_attempt(rig: WorkerRig, unsure: dict[str, Any]):
    """The engine's own log-probabilities against `min_confidence`."""
    failed = await _attempt_failed(rig, "zq xw 17 !!", **unsure)
    assert (failed.reason, failed.keyword) == ("confidence", None)
    assert failed.confidence is not None
    assert 0 < failed.confidence < 1


async def test_low_confidence_ends_the_last_attempt(rig: WorkerRig, unsure: dict[str, Any]):
    """The same as a terminal fact, billed as generated (I3)."""
    job, client = await rig.submit("zq xw 17 !!", **unsure)
    final = await client.final()
    assert final.error is not None
    assert final.error.code == "low_confidence"
    ended = await rig.terminal(job)
    assert ended.confidence is not None
    assert 0 < ended.confidence < 1
    assert ended.usage.output_tokens > 0
