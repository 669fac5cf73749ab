"""The official OpenAI SDK against a whole stack: HTTP, SSE, WebSocket, errors, cancellation."""

from __future__ import annotations

import asyncio
import json
import uuid

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.resources.responses.responses import AsyncResponsesConnection
from tests.e2e.conftest import openai_client
from tests.support.ledger import assert_no_plaintext
from tests.support.operator import operate
from tests.support.stack import Stack
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.xdist_group("stack")
STREAM_ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def test_plain_http(client: AsyncOpenAI) -> None:
    """A real model answers in JSON, with usage, through `responses.create`."""
    response = await client.responses.create(model="auto", input="How do I return a jacket?")
    assert response.status == "completed"
    assert json.loads(response.output_text)["intent"]
    assert response.model in {"penstock-small", "penstock-large"}
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.usage.output_tokens > 0


async def test_sse_stream_has_the_vendors_events_in_order(client: AsyncOpenAI) -> None:
    """Typed events in the documented order, numbered without a gap; deltas make the text (I6)."""
    events = [
        e
        async for e in await client.responses.create(
            model="echo", input="one two three four five", stream=True
        )
    ]
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == STREAM_ORDER
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    final = events[-1]
    assert final.type == "response.completed"
    assert text == final.response.output_text == "one two three four five"
    assert final.response.usage is not None
    assert final.response.usage.output_tokens == 5


async def test_websocket_serves_several_responses_side_by_side(client: AsyncOpenAI) -> None:
    """One socket, three responses in flight: each is complete, none is mixed with another."""
    async with client.responses.connect() as connection:
        for n in range(3):
            await connection.response.create(model="echo", input=f"a{n} b{n} c{n}")
        done: dict[str, str] = {}
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.completed":
                done[event.response.id] = event.response.output_text
                if len(done) == 3:
                    break
        assert sorted(done.values()) == ["a0 b0 c0", "a1 b1 c1", "a2 b2 c2"]
        await connection.response.create(model="echo", input="and one more")
        async for event in connection:
            if event.type == "response.completed":
                assert event.response.output_text == "and one more"
                break


async def test_max_output_tokens_ends_incomplete(client: AsyncOpenAI) -> None:
    """The limit stops generation exactly there, and says so."""
    response = await client.responses.create(
        model="echo", input="one two three four five", max_output_tokens=2
    )
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 2


async def test_the_same_idempotency_key_is_the_same_request(
    client: AsyncOpenAI, stack: Stack
) -> None:
    """Twice in a row and five times at once: one id, one answer, billed once (I2)."""
    header = {"Idempotency-Key": f"key-{uuid.uuid4()}"}
    first = await client.responses.create(model="echo", input="pay once", extra_headers=header)
    repeats = await asyncio.gather(
        *(
            client.responses.create(model="echo", input="pay once", extra_headers=header)
            for _ in range(5)
        )
    )
    assert {r.id for r in repeats} == {first.id}
    assert {r.output_text for r in repeats} == {first.output_text}
    listed = await operate(stack, "usage", "--tenant", "demo")
    echo = next(r for r in listed["rows"] if r["model"] == "echo")
    assert echo["requests"] >= 1


async def test_retrieve_gives_the_answer_again(client: AsyncOpenAI) -> None:
    """An ended response is read back from the event log by its id."""
    made = await client.responses.create(model="echo", input="remember me")
    again = await client.responses.retrieve(made.id)
    assert (again.id, again.status, again.output_text) == (made.id, "completed", "remember me")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(f"resp_{uuid.uuid4().hex}")


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    """`models.list` and `models.retrieve` show what the worker has loaded."""
    names = {model.id async for model in client.models.list()}
    assert {"penstock-small", "penstock-large", "echo"} <= names
    small = await client.models.retrieve("penstock-small")
    assert small.id == "penstock-small"
    assert small.to_dict()["price"] == {
        "input_microusd_per_1k": 25,
        "output_microusd_per_1k": 100,
    }


async def test_cancel_over_websocket_stops_and_bills_what_was_generated(
    client: AsyncOpenAI,
) -> None:
    """`response.cancel` in mid-stream ends it with the true number of tokens (I3)."""
    async with client.responses.connect() as connection:
        words = " ".join(f"w{n}" for n in range(20_000))
        await connection.response.create(model="echo", input=words)
        response_id = None
        async for event in connection:
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                break
        assert response_id is not None
        await client.responses.cancel(response_id)
    async with asyncio.timeout(20):
        while (found := await client.responses.retrieve(response_id)).status == "in_progress":
            await asyncio.sleep(0.05)
    assert found.status == "cancelled"
    assert found.usage is not None
    assert 0 < found.usage.output_tokens < 20_000


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "gpt-9", "input": "hi"}, 404, "model"),
        ({"model": "auto", "input": ""}, 400, "input"),
        ({"model": "auto", "input": []}, 400, "input"),
        ({"model": "auto", "input": "hi", "max_output_tokens": -5}, 400, "max_output_tokens"),
        ({"model": "auto", "input": "hi", "max_output_tokens": 10**12}, 400, "max_output_tokens"),
        ({"model": "auto", "input": "hi", "temperature": 9}, 400, "temperature"),
        ({"model": "auto", "input": "hi", "surprise": True}, 400, "surprise"),
        (
            {"model": "auto", "input": "hi", "previous_response_id": "x"},
            400,
            "previous_response_id",
        ),
        ({"model": "auto", "input": "x" * 400_000}, 413, "input"),
        ({"model": "v1.*.>", "input": "hi"}, 404, "model"),
    ],
)
async def test_bad_input_is_named(
    client: AsyncOpenAI, fields: dict[str, object], status: int, param: str
) -> None:
    """Every refusal has its status, its code and the offending field, in the API's format."""
    with pytest.raises(openai.APIStatusError) as refused:
        await client.post("/responses", body=fields, cast_to=httpx.Response)
    assert refused.value.status_code == status
    body = refused.value.body
    assert isinstance(body, dict)
    assert body["param"] == param
    assert body["message"]
    assert body["code"]


async def test_malformed_json_is_a_400(stack: Stack) -> None:
    """A body that is no JSON, and one that is no object."""
    async with httpx.AsyncClient(base_url=stack.ready["http"]) as http:
        for body in (b"{nope", b"[]", b"\xff\xfe", b""):
            answer = await http.post(
                "/v1/responses",
                content=body,
                headers={
                    "Authorization": f"Bearer {stack.ready['api_key']}",
                    "Content-Type": "application/json",
                },
            )
            assert answer.status_code == 400, body
            assert answer.json()["error"]["message"]


@pytest.mark.parametrize("key", ["", "psk_wrong", "sk-" + "a" * 40])
async def test_no_key_and_wrong_keys_are_401(stack: Stack, key: str) -> None:
    """No key, a malformed one, an unknown one."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=stack.ready["http"]) as http:
        answer = await http.post("/v1/responses", json={"input": "hi"}, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


async def socket_is_closed(connection: AsyncResponsesConnection) -> bool:
    """Whether the server has ended the socket: the next event never comes."""
    async with asyncio.timeout(5):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed:
            return True


async def test_a_revoked_key_stops_working_within_a_second(stack: Stack) -> None:
    """Revocation reaches HTTP and live sockets at once."""
    made = await operate(stack, "keys", "create", "demo", "--name", "short-lived")
    client = openai_client(stack, made["secret"])
    await client.responses.create(model="echo", input="works")
    async with client.responses.connect() as connection:
        await connection.response.create(model="echo", input="works too")
        async for event in connection:
            if event.type == "response.completed":
                break
        await operate(stack, "keys", "revoke", made["key"]["key_id"])
        await asyncio.sleep(1.0)
        with pytest.raises(openai.AuthenticationError):
            await client.responses.create(model="echo", input="no more")
        assert await socket_is_closed(connection)
    await client.close()


async def test_content_is_nowhere_on_disk(client: AsyncOpenAI, stack: Stack) -> None:
    """Prompt and answer are in no stream, log or state file in the clear (I10)."""
    secret = f"zanzibar{uuid.uuid4().hex}"
    response = await client.responses.create(model="echo", input=f"tell nobody {secret}")
    assert secret in response.output_text
    await asyncio.sleep(0.5)
    assert_no_plaintext(stack.data_dir, [secret.encode()])
