"""Function calls: decided where the answer was generated, told by index (ADR 13)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.job_line import JobLine, die
from tests.support.worker_rig import WorkerRig

from penstock_shared.contracts import subjects
from penstock_shared.contracts.requests import AttemptFailed, Sampling, Status, Tool
from penstock_shared.contracts.responses import encode_delta

SECRET = "zanzibar_lookup"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        "additionalProperties": False}  # fmt: skip
TOOLS = (
    Tool(name=SECRET, description=f"The {SECRET} service", parameters=CITY),
    Tool(name="anything"),
)
CALL, MESSAGE = '{"city": "Oslo"}', "It rains in Oslo."


@pytest.mark.parametrize(
    ("answer", "called"),
    [
        (CALL, 0),
        (f"\n {CALL}\n", 0),
        ('{"town": "Oslo"}', 1),
        ("{}", 1),
        (MESSAGE, None),
        (f"Sure: {CALL}", None),
        (f"{CALL} {CALL}", None),
        ('{"city": "Oslo"', None),
        ('["city"]', None),
        ('"city"', None),
    ],
)
async def test_an_answer_that_is_arguments_is_a_call(
    rig: WorkerRig, answer: str, called: int | None
):
    """The first function that it satisfies, in fact and frame; it streamed like any other (I6)."""
    await rig.start_worker()
    job, client = await rig.submit(answer, tools=TOOLS)
    final = await client.final()
    ended = await rig.terminal(job)
    assert (ended.status, ended.called, final.called) == (Status.COMPLETED, called, called)
    assert final.text == answer == "".join(delta.text for delta in client.deltas)
    assert SECRET.encode() not in (await rig.last_fact(job)).data


async def test_without_functions_an_object_is_a_message(rig: WorkerRig):
    """What nobody offered cannot be called."""
    await rig.start_worker()
    job, client = await rig.submit("{}")
    assert (await client.final()).called is None
    assert (await rig.terminal(job)).called is None


async def test_a_call_that_must_be_is_shown_when_it_is_one(rig: WorkerRig):
    """Withheld until its fact stands, as every checked output is: the final frame brings it."""
    await rig.start_worker()
    _, client = await rig.submit(CALL, tools=TOOLS[:1], must_call=True)
    final = await client.final()
    assert (final.called, final.text, final.numbers) == (0, CALL, range(1))
    assert client.deltas == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "tool_not_called"),
        ({"sampling": Sampling(max_output_tokens=1)}, "output_truncated"),
    ],
)
async def test_a_call_that_must_be_and_is_not_fails(
    rig: WorkerRig, options: dict[str, Any], code: str
):
    """Failed, billed as generated (I3), nothing shown, and no name in the clear (I10)."""
    await rig.start_worker()
    job, client = await rig.submit(MESSAGE, tools=TOOLS[:1], must_call=True, **options)
    final = await client.final()
    ended = await rig.terminal(job)
    assert ended.error is not None
    assert (ended.status, ended.error.code, ended.called) == (Status.FAILED, code, None)
    assert ended.usage.output_tokens > 0
    assert (client.deltas, final.text) == ([], "")
    assert SECRET.encode() not in (await rig.last_fact(job)).data


async def test_another_attempt_may_call_it(rig: WorkerRig):
    """Not the last attempt: the request stays open, and the fact says that no call was made."""
    await rig.start_worker()
    job, client = await rig.submit(MESSAGE, tools=TOOLS[:1], must_call=True, final_attempt=False)
    await rig.settled()
    failed = AttemptFailed.model_validate_json((await rig.last_fact(job)).data)
    assert (failed.reason, failed.keyword) == ("schema", "uncalled")
    assert client.finals == []


@pytest.mark.parametrize(
    ("answer", "status", "called"),
    [
        (CALL, Status.COMPLETED, 0),
        ('{"intent": "other"}', Status.COMPLETED, None),
        ("{}", Status.FAILED, None),
    ],
)
async def test_a_message_has_its_schema_and_a_call_its_function(
    rig: WorkerRig, answer: str, status: Status, called: int | None
):
    """With functions and a schema, an answer must be arguments of one or satisfy the other."""
    await rig.start_worker()
    schema = {"type": "object", "required": ["intent"]}
    job, client = await rig.submit(answer, tools=TOOLS[:1], output_schema=schema)
    await client.final()
    ended = await rig.terminal(job)
    assert (ended.status, ended.called) == (status, called)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"type": "objekt"}, "schema_invalid"),
        ({"pattern": "(?=a)"}, "schema_invalid"),
        ({"$ref": "https://example.org/schema"}, "schema_invalid"),
        ({"properties": {f"p{n}": {"pattern": "a"} for n in range(65)}}, "schema_too_complex"),
    ],
)
async def test_parameters_that_are_no_schema_end_the_request(
    rig: WorkerRig, parameters: dict[str, Any], code: str
):
    """The error counts the function, since its name must not be in the log (I10)."""
    await rig.start_worker()
    job, client = await rig.submit("{}", tools=(TOOLS[1], Tool(name=SECRET, parameters=parameters)))
    final = await client.final()
    assert final.error is not None
    assert (final.status, final.error.code, final.error.param) == (Status.FAILED, code, "tools")
    assert "function 2" in final.error.message
    assert SECRET.encode() not in (await rig.last_fact(job)).data


@pytest.mark.parametrize("cut", [len('{"city":'), len(CALL)])
async def test_a_call_whose_holder_died_is_still_one(rig: WorkerRig, cut: int):
    """The successor goes on after what was shown, and judges the whole answer (I2, I6)."""
    job = await rig.route(CALL, tools=TOOLS[:1])
    client = await rig.listen(job.request_id)
    async with JobLine(rig.broker) as line:
        delta = encode_delta(job.attempt, rig.ids.new(), 0, CALL[:cut])
        await rig.broker.publish_core(subjects.responses(job.tenant, job.request_id), delta)
        await rig.broker.flush()
        await rig.publish(job)
        await die(await line.take())
    await rig.start_worker()
    final = await client.final()
    assert (final.status, final.called, final.text) == (Status.COMPLETED, 0, CALL)
    assert await rig.facts(job) == 2
