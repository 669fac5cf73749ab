"""The official Python SDK against a whole stack: every feature, sync and async.

Chat, functions, embeddings and plain responses have files of their own (async); here is the sync
client through all of them, and what concerns time: background, resumption, cancellation, sockets.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from tests.e2e.test_e2e_chat import Message
from tests.e2e.test_e2e_tools import MESSAGE, Order
from tests.support.minilm import DIMENSIONS
from tests.support.stack import Stack

pytestmark = pytest.mark.xdist_group("stack")
WORDS = " ".join(f"w{n}" for n in range(20))
LONG = " ".join(f"w{n}" for n in range(20_000))
FUNCTION: Any = {
    "type": "function",
    "name": "place_order",
    "parameters": Order.model_json_schema(),
    "strict": True,
}


@pytest.fixture
def sync(stack: Stack) -> Iterator[Any]:
    """The sync client; its unions of some 60 event types help nobody here."""
    base = stack.ready["http"] + "/v1"
    with OpenAI(
        base_url=base,
        websocket_base_url=base.replace("http", "ws", 1),
        api_key=stack.ready["api_key"],
        max_retries=0,
        timeout=60,
    ) as made:
        yield made


def ended(sync: Any, response_id: str) -> Any:
    deadline_s = time.monotonic() + 20
    while (found := sync.responses.retrieve(response_id)).status in {"queued", "in_progress"}:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return found


def text_of(events: list[Any]) -> str:
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


def test_parameters_are_obeyed_and_given_back(sync: Any) -> None:
    """Plain: what was asked comes back with the answer, and again when it is retrieved."""
    made = sync.responses.create(
        model="echo",
        input="one two three",
        instructions="Say it again.",
        metadata={"order": "7"},
        max_output_tokens=2,
        temperature=0.5,
        top_p=0.9,
    )
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert made.output_text == "one two"
    again = sync.responses.retrieve(made.id)
    for response in (made, again):
        assert (response.instructions, response.metadata) == ("Say it again.", {"order": "7"})
        assert (response.temperature, response.top_p) == (0.5, 0.9)


def test_a_stream_is_resumed_by_number(sync: Any) -> None:
    """`starting_after`: the rest of the very same events, from any place (I6)."""
    stream = sync.responses.create(model="echo", input=WORDS, stream=True)
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert text_of(events) == WORDS
    made = events[0].response.id
    for after in (0, 3, 4, 9, len(events) - 2):
        rest = list(sync.responses.retrieve(made, stream=True, starting_after=after))
        assert rest[0].sequence_number == after + 1
        assert rest[-1].sequence_number == events[-1].sequence_number
        assert WORDS.endswith(text_of(rest))


def test_in_the_background(sync: Any) -> None:
    """Promised at once, followed while it runs, retrieved at its end."""
    made = sync.responses.create(model="echo", input=WORDS, background=True)
    assert made.status == "queued"
    events = list(sync.responses.retrieve(made.id, stream=True))
    assert text_of(events) == WORDS
    assert ended(sync, made.id).output_text == WORDS


def test_cancelled_in_the_background(sync: Any) -> None:
    """It ends with the true number of tokens (I3)."""
    made = sync.responses.create(model="echo", input=LONG, background=True)
    for event in sync.responses.retrieve(made.id, stream=True):
        if event.type == "response.output_text.delta":
            break
    sync.responses.cancel(made.id)
    found = ended(sync, made.id)
    assert found.status == "cancelled"
    assert 0 < found.usage.output_tokens < 20_000


def test_deleted_and_not_stored(sync: Any) -> None:
    """Neither is found afterwards."""
    made = sync.responses.create(model="echo", input="forget me")
    sync.responses.delete(made.id)
    unstored = sync.responses.create(model="echo", input="once", store=False)
    for response in (made, unstored):
        with pytest.raises(openai.NotFoundError):
            sync.responses.retrieve(response.id)


def test_a_conversation_with_a_function_and_a_schema(sync: Any) -> None:
    """A call, its output by `previous_response_id`, and an answer of a given form."""
    asked = sync.responses.create(model="penstock-large", input=MESSAGE, tools=[FUNCTION])
    (call,) = asked.output
    assert Order.model_validate_json(call.arguments).place == "Oslo"
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "{}"}
    answer = sync.responses.create(
        model="penstock-large", previous_response_id=asked.id, input=[output]
    )
    assert answer.previous_response_id == asked.id
    parsed = sync.responses.parse(model="penstock-large", input=MESSAGE, text_format=Message)
    assert parsed.output_parsed.intent == "order"


def test_chat_completions(sync: Any) -> None:
    """Plain, streamed with usage, and with a form."""
    messages = [{"role": "user", "content": "hello there"}]
    whole = sync.chat.completions.create(model="echo", messages=messages)
    assert whole.choices[0].message.content == "hello there"
    *chunks, last = sync.chat.completions.create(
        model="echo", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "hello there"
    assert (last.choices, last.usage) == ([], whole.usage)
    order = [{"role": "user", "content": MESSAGE}]
    formed = sync.chat.completions.parse(
        model="penstock-large", messages=order, response_format=Message
    )
    assert formed.choices[0].message.parsed.intent == "order"


def test_embeddings(sync: Any, encoder: Path) -> None:
    """The SDK asks for base64 of its own accord; both formats are the same numbers."""
    texts = ["one text", "and another"]
    packed = sync.embeddings.create(model=encoder.name, input=texts)
    floats = sync.embeddings.create(model=encoder.name, input=texts, encoding_format="float")
    for one, other in zip(packed.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    raw = sync.embeddings.create(model=encoder.name, input="x", encoding_format="base64")
    decoded = base64.b64decode(raw.data[0].embedding)
    assert len(struct.unpack(f"<{DIMENSIONS}f", decoded)) == DIMENSIONS


def test_models_and_typed_errors(sync: Any) -> None:
    """The SDK's own classes, with code and field."""
    assert {"auto", "echo"} <= {model.id for model in sync.models.list()}
    assert sync.models.retrieve("echo").id == "echo"
    cases: list[tuple[Any, type[openai.APIStatusError], str, str]] = [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"prompt": {"id": "p"}}, openai.BadRequestError, "unsupported_parameter", "prompt"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"extra_body": {"x": 1}}, openai.BadRequestError, "unknown_parameter", "x"),
    ]
    for given, kind, code, param in cases:
        with pytest.raises(kind) as caught:
            sync.responses.create(**{"model": "echo", "input": "x", **given})
        assert (caught.value.code, caught.value.param) == (code, param)
    with pytest.raises(openai.AuthenticationError):
        sync.with_options(api_key="psk_wrong").models.list()


def test_a_sync_socket_one_after_the_other_and_in_lanes(sync: Any) -> None:
    """`responses.connect()`: a lane's name comes back in every event of its response."""
    with sync.responses.connect() as connection:
        connection.response.create(model="echo", input="first of all")
        first = until_completed(connection, 1)
        assert text_of(first) == "first of all"
        for lane, said in (("left", "a b c"), ("right", "d e f")):
            connection.response.create(model="echo", input=said, stream_id=lane)
        both = until_completed(connection, 2)
    for lane, said in (("left", "a b c"), ("right", "d e f")):
        mine = [event for event in both if event.stream_id == lane]
        assert text_of(mine) == said
        assert [event.sequence_number for event in mine] == list(range(len(mine)))


def until_completed(connection: Any, count: int) -> list[Any]:
    events: list[Any] = []
    for event in connection:
        assert event.type != "error", event
        events.append(event)
        if [e.type for e in events].count("response.completed") == count:
            return events
    raise AssertionError("the socket has ended")


async def test_an_async_socket_cancels_and_survives_an_error(client: AsyncOpenAI) -> None:
    """`response.cancel` ends one response; a bad event costs nothing but itself (I3)."""
    async with client.responses.connect() as connection:
        await connection.send_raw(json.dumps({"type": "response.create", "input": 5}))
        refused: Any = await connection.recv()
        assert (refused.type, refused.error.param) == ("error", "input")
        await connection.response.create(model="echo", input=LONG)
        running: Any = await connection.recv()
        while (await connection.recv()).type != "response.output_text.delta":
            pass
        cancel = {"type": "response.cancel", "response_id": running.response.id}
        await connection.send_raw(json.dumps(cancel))
        async with asyncio.timeout(20):
            while (event := await connection.recv()).type != "response.incomplete":
                pass
        assert event.response.status == "cancelled"
        await connection.response.create(model="echo", input="it goes on")
        async for later in connection:
            if later.type == "response.completed":
                assert later.response.output_text == "it goes on"
                break


async def test_an_async_stream_that_is_cut_goes_on_elsewhere(client: AsyncOpenAI) -> None:
    """The protocol's own resumption: leave a stream, come back for the rest (I6)."""
    made = await client.responses.create(model="echo", input=WORDS * 20, background=True)
    heard: list[Any] = []
    while not heard or heard[-1].type != "response.completed":
        after = heard[-1].sequence_number if heard else None
        given = {} if after is None else {"starting_after": after}
        stream: Any = await client.responses.retrieve(made.id, stream=True, **given)
        for _ in range(40):
            try:
                heard.append(await anext(stream))
            except StopAsyncIteration:
                break
        await stream.close()
    numbers = [event.sequence_number for event in heard]
    assert numbers == sorted(set(numbers))
    assert text_of(heard) == WORDS * 20
