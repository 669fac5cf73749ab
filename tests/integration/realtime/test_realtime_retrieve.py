"""Responses by id: what was told is what is retrieved, for its own tenant only (I6, I8)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseItem
from pydantic import RootModel
from tests.support.realtime import Edge, StartEdge, add_account
from tests.support.realtime_backend import (
    Backend,
    Generate,
    echo,
    new_run,
    split,
    until_cancelled,
)
from tests.support.retrieving import completed, create, follow
from tests.support.sdk_types import conforming

from penstock_shared.contracts.accounts import Role
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.streams import EVENTS, RESPONSES, Bucket
from penstock_shared.runtime.keyring import data_key_name
from penstock_shared.runtime.kv import purge

TOOL = {
    "type": "function",
    "name": "order",
    "description": "Orders something",
    "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
}
ECHOED = {
    "instructions": "Be brief.",
    "metadata": {"order": "17"},
    "temperature": 0.5,
    "top_p": 0.9,
    "max_output_tokens": 100,
    "safety_identifier": "somebody",
    "tools": [TOOL],
    "store": True,
}


def ends(status: Status, reason: str, **given: Any) -> Generate:
    """A worker that says something and ends so."""

    async def generate(backend: Backend, job: Job, prompt: str) -> None:
        run, pieces = new_run(), split(prompt)
        for n, piece in enumerate(pieces):
            await backend.delta(job, run, n, piece)
        await backend.end(job, run, pieces, status=status, reason=reason, **given)

    return generate


FAILURE = PermanentError("The answer is no JSON.", code="invalid_output").body()
ENDINGS: dict[str, tuple[Generate, str]] = {
    "completed": (echo, "Hello, wörld ✓"),
    "incomplete": (ends(Status.INCOMPLETE, "max_output_tokens"), "Once upon a time"),
    "failed": (ends(Status.FAILED, "error", error=FAILURE), "half of it"),
    "function call": (ends(Status.COMPLETED, "stop", called=0), '{"what": "tea"}'),
}


async def test_the_sdk_lists_what_a_response_was_asked(edge: Edge) -> None:
    """In pages, the latest first or last; all that came before, and not the instructions (I8)."""
    stranger = await edge.add_account(f"{edge.account.tenant.tenant}-x")
    async with edge.client() as client:
        first = await client.responses.create(input="one", instructions="Be brief.")
        second = await client.responses.create(
            previous_response_id=first.id,
            input=[
                {"role": "developer", "content": "two"},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "three"},
            ],
        )
        listed = client.responses.input_items.list(second.id, order="asc", limit=2)
        items = [item.to_dict() async for item in listed]
        latest = [item.id async for item in client.responses.input_items.list(second.id)]
        for wrong in ({"after": "msg_1"}, {"limit": 0}, {"order": "up"}, {"include": ["x"]}):
            with pytest.raises(openai.BadRequestError):
                await client.responses.input_items.list(second.id, **wrong)
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.input_items.list(first.id)
    async with edge.http(stranger.secret) as other, asyncio.timeout(5):
        while (await other.get("models")).status_code != 200:
            await asyncio.sleep(0.02)
        assert (await other.get(f"responses/{second.id}/input_items")).status_code == 404
    said = [item.get("output") or item["content"][0]["text"] for item in items]
    assert said == ["one", first.output_text, "two", "{}", "three"]
    assert [item.get("role") for item in items] == [
        "user",
        "assistant",
        "developer",
        "assistant",
        None,
    ]
    assert latest == [item["id"] for item in items][::-1]
    for item in items:
        conforming(RootModel[ResponseItem], item)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_was_told_is_what_is_retrieved(edge: Edge, ending: str) -> None:
    """Field for field the object of the stream's last event: echo, output, usage and error."""
    edge.backend.generate, prompt = ENDINGS[ending]
    async with edge.http() as http:
        told = completed(await create(http, input=prompt, **ECHOED))
        retrieved = (await http.get(f"responses/{told['id']}")).json()
    assert retrieved == told
    assert {name: told[name] for name in ECHOED if name != "tools"} == {
        name: value for name, value in ECHOED.items() if name != "tools"
    }
    assert told["tools"][0]["name"] == "order"


async def test_a_cancelled_one_is_retrieved_as_it_ended(edge: Edge) -> None:
    """What `cancel` answers, what the stream tells and what is retrieved are one object (I2)."""
    edge.backend.generate = until_cancelled
    async with edge.client() as client, edge.http() as http:
        stream = await client.responses.create(input="long", stream=True, metadata={"a": "b"})
        created = await anext(aiter(stream))
        running = (await http.get(f"responses/{created.response.id}")).json()
        answer = (await http.post(f"responses/{created.response.id}/cancel")).json()
        told = [event async for event in stream][-1].response.to_dict()
        retrieved = (await http.get(f"responses/{created.response.id}")).json()
    assert running == json.loads(created.response.to_json()) | {"status": "in_progress"}
    assert retrieved == answer
    assert retrieved["status"] == told["status"] == "cancelled"
    assert retrieved["output"] == told["output"]
    assert retrieved["metadata"] == {"a": "b"}


async def test_the_sdk_follows_a_response_that_has_ended(edge: Edge) -> None:
    """`retrieve(stream=True)` repeats the stream; `starting_after` what comes after it (I6)."""
    async with edge.client() as client, edge.http() as http:
        told = await create(http, input="one two three", **ECHOED)
        response_id = completed(told)["id"]
        for after in (None, 0, 1, 3, 4, 6, len(told) - 2, len(told) - 1, 999):
            given = {} if after is None else {"starting_after": after}
            stream = await client.responses.retrieve(
                response_id, stream=True, include_obfuscation=False, **given
            )
            events = [event.sequence_number async for event in stream]
            expected = [event["sequence_number"] for event in told]
            if after is not None:
                expected = [number for number in expected if number > after]
            assert events == expected or (events == [1000] and after == 999)
        assert await follow(http, response_id) == told


async def test_two_connections_follow_one_running_response(edge: Edge) -> None:
    """Both get every event, wherever they came in, and neither's leaving cancels it (I6)."""
    release = asyncio.Event()

    async def slowly(backend: Backend, job: Job, prompt: str) -> None:
        run, pieces = new_run(), split(prompt)
        for n, piece in enumerate(pieces):
            if n == 3:
                await release.wait()
            await backend.delta(job, run, n, piece)
        await backend.end(job, run, pieces)

    edge.backend.generate = slowly
    async with edge.client() as client, edge.http() as http:
        created = await client.responses.create(input="one two three four", background=True)
        async with asyncio.timeout(20):
            left = await client.responses.retrieve(created.id, stream=True)
            async for event in left:
                if event.type == "response.output_text.delta":
                    break
            await left.close()
            assert (await client.responses.retrieve(created.id)).status == "in_progress"
            both = asyncio.gather(follow(http, created.id), follow(http, created.id))
            late = asyncio.create_task(follow(http, created.id, starting_after=5))
            await asyncio.sleep(0.1)
            release.set()
            first, second = await both
            third = await late
    assert completed(first)["output"][0]["content"][0]["text"] == "one two three four"
    assert first == second
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    assert third == first[6:]


async def test_a_response_whose_deltas_have_expired_is_followed_to_its_end(edge: Edge) -> None:
    """Nothing is left of RESPONSES: the terminal fact has all of it (I6)."""
    async with edge.http() as http:
        told = await create(http, input="one two three")
        await edge.broker.jetstream.purge_stream(RESPONSES)
        assert await follow(http, completed(told)["id"]) == told


async def test_without_store_nobody_gets_it_later(edge: Edge) -> None:
    """`store: false`: 404 for retrieving, following and deleting; what runs can be cancelled."""
    async with edge.client() as client:
        ended = await client.responses.create(input="x", store=False)
        for ask in (
            client.responses.retrieve(ended.id),
            client.responses.retrieve(ended.id, stream=True),
            client.responses.delete(ended.id),
            client.responses.cancel(ended.id),
        ):
            with pytest.raises(openai.NotFoundError) as error:
                await ask
            assert error.value.code == "response_not_found"
        edge.backend.generate = until_cancelled
        stream = await client.responses.create(input="x", store=False, stream=True)
        running = (await anext(aiter(stream))).response.id
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(running)
        assert (await client.responses.cancel(running)).status == "cancelled"
        await stream.close()


async def test_what_was_deleted_is_gone(edge: Edge) -> None:
    """Also while it runs, and for NATS clients; a second deletion finds nothing (I8)."""
    async with edge.client() as client, edge.http() as http:
        ended = (await client.responses.create(input="x")).id
        answer = await http.delete(f"responses/{ended}")
        assert answer.json() == {"id": ended, "object": "response", "deleted": True}
        edge.backend.generate = until_cancelled
        running = (await client.responses.create(input="x", background=True)).id
        assert await client.responses.delete(running) is None
        for gone in (ended, running):
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(gone)
            with pytest.raises(openai.NotFoundError):
                await client.responses.delete(gone)
        with pytest.raises(openai.NotFoundError):  # it ends, and tells nothing any more
            await client.responses.cancel(running)
        async with asyncio.timeout(5):
            while not await edge.backend.ended(edge.backend.jobs[-1]):
                await asyncio.sleep(0.01)


async def test_deletions_at_once_are_one(edge: Edge) -> None:
    """Nobody is told of a conflict, and one fact tells of each (I2)."""
    async with edge.client() as client, edge.http() as http:
        made = [(await client.responses.create(input="x")).id for _ in range(4)]
        before = (await edge.broker.jetstream.stream_info(EVENTS)).state.messages
        asked = [f"responses/{one}" for one in made for _ in range(3)]
        answers = await asyncio.gather(*(http.delete(path) for path in asked))
        after = (await edge.broker.jetstream.stream_info(EVENTS)).state.messages
    told = [answer.status_code for answer in answers]
    assert all(200 in told[n : n + 3] for n in range(0, len(told), 3))
    assert set(told) <= {200, 404}
    assert after - before == len(made)


@pytest.mark.parametrize(
    ("role", "may_write"), [(Role.READ_ONLY, False), (Role.MEMBER, True), (Role.ADMIN, True)]
)
async def test_reading_is_a_permission_of_its_own(
    edge: Edge,
    role: Role,
    may_write: bool,  # noqa: FBT001
) -> None:
    """Who may only read retrieves and follows, and neither cancels nor deletes (I8)."""
    colleague = await add_account(edge.broker, edge.account.tenant.tenant, role=role)
    async with edge.http() as owner, edge.http(colleague.secret) as http:
        response_id = completed(await create(owner, input="x"))["id"]
        async with asyncio.timeout(5):
            while (await http.get(f"responses/{response_id}")).status_code == 401:
                await asyncio.sleep(0.02)
        assert (await http.get(f"responses/{response_id}")).status_code == 200
        assert completed(await follow(http, response_id))["id"] == response_id
        expected = 200 if may_write else 403
        assert (await http.post(f"responses/{response_id}/cancel")).status_code == expected
        assert (await http.delete(f"responses/{response_id}")).status_code == expected


async def test_erased_content_is_told_as_erased(edge: Edge, start_edge: StartEdge) -> None:
    """The key was destroyed: 410, whichever way somebody asks (I10)."""
    tenant = edge.account.tenant.tenant
    async with edge.http() as http:
        told = completed(await create(http, input="x", safety_identifier="somebody"))
    await purge(edge.broker, Bucket.DATA_KEYS, data_key_name(tenant, "somebody"))
    other = await start_edge(tenant=tenant, router=False)  # it has no key in its memory
    async with other.http() as http:
        for path in (f"responses/{told['id']}", f"responses/{told['id']}?stream=true"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (410, "erased")
        assert (await http.delete(f"responses/{told['id']}")).status_code == 200


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("stream=maybe", "invalid_value"),
        ("stream=true&starting_after=-1", "invalid_value"),
        ("stream=true&starting_after=x", "invalid_value"),
        ("starting_after=1", "invalid_value"),
        ("include=file_search_call.results", "unsupported_parameter"),
        ("include_obfuscation=true", "unsupported_parameter"),
        ("colour=red", "unsupported_parameter"),
    ],
)
async def test_queries_are_judged_by_name(edge: Edge, query: str, code: str) -> None:
    """What is not served is refused, never ignored."""
    async with edge.http() as http:
        answer = await http.get(f"responses/resp_{'0' * 32}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["param"] in query


async def test_a_socket_finds_by_id_what_http_finds(edge: Edge) -> None:
    """`response.resume` on a socket of another session: not what was deleted or not stored (I8)."""
    async with edge.client() as client, edge.http() as http:
        told = await create(http, input="one two three")
        gone = completed(await create(http, input="x"))["id"]
        await http.delete(f"responses/{gone}")
        hidden = completed(await create(http, input="x", store=False))["id"]
        async with client.responses.connect() as socket:
            for response_id in (gone, hidden):
                await socket.send({"type": "response.resume", "response_id": response_id})
                event = await socket.recv()
                assert (event.type, event.error.code) == ("error", "response_not_found")
            asked = {"response_id": completed(told)["id"], "starting_after": 5}
            await socket.send({"type": "response.resume", **asked})
            events = [(await socket.recv()).to_dict() for _ in told[6:]]
    assert events == told[6:]
