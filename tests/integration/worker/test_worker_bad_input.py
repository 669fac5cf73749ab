"""Bad input ends in one terminal fact with its reason: no crash, and no loop of retries.

An unknown model never reaches a worker: the router refuses it (`model_not_found`).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.worker_rig import TRACE, WorkerRig, until

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.streams import DEAD


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"type": "nothing"}, "schema_invalid"),
    ({"pattern": "(a+)\\1"}, "schema_invalid"),
    ({"$ref": "http://127.0.0.1:9/schema"}, "schema_invalid"),
    ({"$ref": "#"}, "schema_too_complex"),
    ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "schema_too_complex"),
    (_nested(100), "schema_too_complex"),
    ({"enum": list(range(6_000))}, "schema_too_complex"),
]


@pytest.mark.parametrize(("schema", "code"), HOSTILE, ids=range(len(HOSTILE)))
async def test_a_bad_schema_is_refused_once(rig: WorkerRig, schema: dict[str, Any], code: str):
    """The reason in the terminal fact, nothing billed, the job gone, the worker well."""
    await rig.start_worker()
    job, client = await rig.submit("{}", output_schema=schema)
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, code)
    assert final.error.param == "output_schema"
    assert (await rig.terminal(job)).usage.output_tokens == 0
    await rig.settled()
    assert await rig.facts(job) == 2
    _, next_client = await rig.submit("{}", output_schema={})
    assert (await next_client.final()).status is Status.COMPLETED


async def test_a_catastrophic_pattern_is_matched_in_time(rig: WorkerRig):
    """`(a+)+$` against 30,000 letters: an ordinary failure of the answer."""
    await rig.start_worker()
    _, client = await rig.submit(
        json.dumps("a" * 30_000 + "!"), output_schema={"pattern": "(a+)+$"}
    )
    final = await client.final()
    assert final.error is not None
    assert final.error.code == "output_invalid"


async def test_a_prompt_over_the_context_is_refused(rig: WorkerRig):
    """`context_length_exceeded`, nothing billed."""
    await rig.start_worker()
    job, client = await rig.submit("a " * 131_073)
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code) == (Status.FAILED, "context_length_exceeded")
    assert (await rig.terminal(job)).usage.input_tokens == 0
    await rig.settled()


@pytest.mark.parametrize(
    "sampling", [{"temperature": 99}, {"top_p": 0}, {"max_output_tokens": 0}], ids=str
)
async def test_sampling_out_of_range_is_told_and_buried(rig: WorkerRig, sampling: dict[str, float]):
    """Edge and router refuse it; should it come all the same, its client hears which field."""
    await rig.start_worker()
    job = await rig.route("hello")
    broken = json.loads(job.model_dump_json())
    broken["sampling"].update(sampling)
    client = await rig.listen(job.request_id)
    await rig.broker.publish(
        subjects.job(job.tenant, job.model, job.lane),
        json.dumps(broken).encode(),
        Envelope(id=job.id, source="/t", type="penstock.job.run.v1", traceparent=TRACE),
    )

    error = (await client.final()).error
    assert error is not None
    assert (error.code, error.param) == ("job_invalid", f"sampling.{next(iter(sampling))}")

    async def buried() -> bool:
        info = await rig.broker.jetstream.stream_info(DEAD)
        return info.state.messages == 1

    await until(buried)
    await rig.settled()
    _, client = await rig.submit("hello")
    assert (await client.final()).status is Status.COMPLETED


@pytest.mark.parametrize("text", ["", " \n\t"], ids=repr)
async def test_an_empty_prompt_is_refused(rig: WorkerRig, text: str):
    """Whoever published it: no model makes up an answer to nothing."""
    await rig.start_worker()
    job, client = await rig.submit(text)
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code, final.error.param) == (
        Status.FAILED,
        "empty_input",
        "input",
    )
    await rig.settled()
    assert await rig.facts(job) == 2
