"""Chat completions: the official SDK, unchanged, against the edge."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from tests.support.encoder import register_encoder
from tests.support.realtime import Edge
from tests.support.realtime_backend import Backend, new_run, split, until_cancelled
from tests.support.sdk_types import conforming

from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.subjects import Lane

HELLO: Any = [{"role": "user", "content": "Hello, wörld ✓"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "strict": True,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


class Order(BaseModel):
    """What a typed answer is parsed into."""

    item: str
    count: int


def answering(text: str, **ending: Any) -> Any:
    """A worker that says this, whatever it is asked."""

    async def generate(backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        for n, piece in enumerate(split(text)):
            await backend.delta(job, run, n, piece)
        await backend.end(job, run, split(text), **ending)

    return generate


FAILED: dict[str, Any] = {"status": Status.FAILED, "reason": "error"}


async def test_a_plain_completion(edge: Edge) -> None:
    """What the SDK's types promise, in the standard lane, with the request's own id (I1)."""
    async with edge.client() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="echo", messages=HELLO, metadata={"a": "b"}
        )
    made = conforming(ChatCompletion, json.loads(raw.content))
    assert made.choices[0].message.content == "Hello, wörld ✓"
    assert made.choices[0].finish_reason == "stop"
    assert made.metadata == {"a": "b"}
    assert made.usage is not None
    assert made.usage.total_tokens == 8
    assert raw.headers["x-request-id"].replace("-", "") == made.id.removeprefix("chatcmpl-")
    assert raw.headers["x-ratelimit-limit-requests"] == "60000"
    assert edge.backend.jobs[-1].lane is Lane.STANDARD


async def test_a_streamed_completion(edge: Edge) -> None:
    """Role, text, reason, usage, `[DONE]`: all of the text, in order (I6)."""
    async with edge.http() as http:
        given = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
        told = await http.post("chat/completions", json=given)
    assert told.headers["content-type"].startswith("text/event-stream")
    *events, done, nothing = told.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    chunks = [conforming(ChatCompletionChunk, json.loads(event[6:])) for event in events]
    first, *texts, last, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in texts) == "Hello, wörld ✓"
    assert last.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == 8
    assert {chunk.id for chunk in chunks} == {first.id}
    assert edge.backend.jobs[-1].lane is Lane.INTERACTIVE


async def test_the_sdks_stream_helper(edge: Edge) -> None:
    """The SDK's accumulator comes to the same completion, usage included."""
    async with (
        edge.client() as client,
        client.chat.completions.stream(
            model="echo", messages=HELLO, stream_options={"include_usage": True}
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello, wörld ✓"
    assert final.usage.completion_tokens == 5
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)


async def test_the_synchronous_sdk(edge: Edge) -> None:
    """The same client without asyncio."""

    def ask() -> tuple[str | None, str]:
        with OpenAI(base_url=edge.base_url, api_key=edge.account.secret, max_retries=0) as client:
            whole = client.chat.completions.create(model="echo", messages=HELLO)
            parts = client.chat.completions.create(model="echo", messages=HELLO, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
        return whole.choices[0].message.content, text

    assert await asyncio.to_thread(ask) == ("Hello, wörld ✓", "Hello, wörld ✓")


async def test_parse_gives_a_typed_answer(edge: Edge) -> None:
    """`parse` sends a pydantic model's schema and reads the answer into it."""
    edge.backend.generate = answering('{"item": "lamp", "count": 2}')
    async with edge.client() as client:
        made = await client.chat.completions.parse(
            model="echo", messages=HELLO, response_format=Order
        )
        async with client.chat.completions.stream(
            model="echo", messages=HELLO, response_format=Order
        ) as stream:
            streamed = await stream.get_final_completion()
    assert made.choices[0].message.parsed == Order(item="lamp", count=2)
    assert streamed.choices[0].message.parsed == Order(item="lamp", count=2)


async def test_a_tool_call_and_its_answer(edge: Edge) -> None:
    """Plain and streamed the same call; the SDK's own message goes back into the conversation."""
    edge.backend.generate = answering('{"city": "Bonn"}', called=0)
    async with edge.client() as client:
        made = await client.chat.completions.create(model="echo", messages=HELLO, tools=TOOLS)
        async with client.chat.completions.stream(
            model="echo", messages=HELLO, tools=TOOLS
        ) as stream:
            streamed = await stream.get_final_completion()
        edge.backend.generate = answering("It rains.")
        for (choice,) in (made.choices, streamed.choices):
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            (call,) = choice.message.tool_calls
            assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bonn"}')
            answer = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
            after = await client.chat.completions.create(
                model="echo", messages=[*HELLO, choice.message, answer], tools=TOOLS
            )
            assert after.choices[0].message.content == "It rains."
            assert edge.backend.prompts[-1] == "rain"
    assert streamed.choices[0].message.tool_calls[0].function.parsed_arguments == {"city": "Bonn"}


async def test_text_beside_tools_is_streamed_as_text(edge: Edge) -> None:
    """Text that begins like a call and is none is told whole."""
    for text in ("It rains.", '{"city": "Bonn"'):
        edge.backend.generate = answering(text)
        async with (
            edge.client() as client,
            client.chat.completions.stream(model="echo", messages=HELLO, tools=TOOLS) as stream,
        ):
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == text
        assert final.choices[0].finish_reason == "stop"


async def test_the_limit_of_tokens_is_a_finish_reason(edge: Edge) -> None:
    """What was cut off says "length", and `parse` refuses to take it for whole."""
    edge.backend.generate = answering("Hel", status=Status.INCOMPLETE, reason="max_output_tokens")
    async with edge.client() as client:
        made = await client.chat.completions.create(model="echo", messages=HELLO, max_tokens=1)
        assert made.choices[0].finish_reason == "length"
        with pytest.raises(openai.LengthFinishReasonError):
            await client.chat.completions.parse(model="echo", messages=HELLO, response_format=Order)
    assert edge.backend.jobs[0].sampling.max_output_tokens == 1


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        (("invalid_request_error", "context_length_exceeded"), openai.BadRequestError, 400),
        (("server_error", "expired"), openai.InternalServerError, 504),
        (("service_unavailable_error", "model_failed"), openai.InternalServerError, 503),
    ],
)
async def test_a_failed_completion_is_a_typed_error(
    edge: Edge, error: tuple[str, str], raised: type[openai.APIStatusError], status: int
) -> None:
    """With the terminal's own words; the SDK is told not to generate and bill it again (I2)."""
    kind, code = error
    body = ErrorBody(message="No.", type=kind, code=code, param="messages")
    edge.backend.generate = answering("", error=body, **FAILED)
    async with edge.client() as client:
        client.max_retries = 2
        with pytest.raises(raised) as plain:
            await client.chat.completions.create(model="echo", messages=HELLO)
        assert len(edge.backend.jobs) == 1
        with pytest.raises(openai.APIError) as streamed:
            async for _ in await client.chat.completions.create(
                model="echo", messages=HELLO, stream=True
            ):
                pass
    assert (plain.value.status_code, plain.value.code) == (status, code)
    assert plain.value.param == streamed.value.param == "messages"
    assert streamed.value.code == code


@pytest.mark.parametrize(
    ("given", "raised", "code", "param"),
    [
        ({"n": 2}, openai.BadRequestError, "unsupported_parameter", "n"),
        ({"seed": 1}, openai.BadRequestError, "unsupported_parameter", "seed"),
        ({"messages": []}, openai.BadRequestError, "empty_input", "messages"),
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": "org/model:tuned v2"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": "mini"}, openai.BadRequestError, "wrong_model_kind", "model"),
    ],
)
async def test_a_refusal_is_a_typed_error(
    edge: Edge, given: Any, raised: type[openai.APIStatusError], code: str, param: str
) -> None:
    """The SDK's exception carries code and parameter; nothing has been run."""
    await register_encoder(edge, "mini")
    async with edge.client() as client:
        with pytest.raises(raised) as caught:
            await client.chat.completions.create(**{"model": "echo", "messages": HELLO, **given})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert edge.backend.jobs == []


async def test_closing_a_stream_cancels(edge: Edge) -> None:
    """Whoever closes a chat's stream does not pay for what nobody reads (I3)."""
    ended = asyncio.Event()

    async def generate(backend: Backend, job: Job, prompt: str) -> None:
        await until_cancelled(backend, job, prompt)
        ended.set()

    edge.backend.generate = generate
    async with edge.client() as client:
        stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await asyncio.wait_for(ended.wait(), 10)


async def test_the_same_key_is_the_same_completion(edge: Edge) -> None:
    """A repetition, streamed or not, gets the first answer; nothing runs twice (I2)."""
    key = {"Idempotency-Key": "once"}
    async with edge.client() as client:
        first = await client.chat.completions.create(
            model="echo", messages=HELLO, extra_headers=key
        )
        again = await client.chat.completions.create(
            model="echo", messages=HELLO, extra_headers=key
        )
        parts = await client.chat.completions.create(
            model="echo", messages=HELLO, extra_headers=key, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in parts])
    assert again.id == first.id
    assert text == first.choices[0].message.content
    assert len(edge.backend.jobs) == 1


async def test_a_key_used_with_other_tools_is_a_conflict(edge: Edge) -> None:
    """A call whose function the repetition does not name: 409 in every API, never a 500."""
    key = {"Idempotency-Key": "tools"}
    edge.backend.generate = answering("{}", called=0)
    async with edge.client() as client:
        await client.chat.completions.create(
            model="echo", messages=HELLO, tools=TOOLS, extra_headers=key
        )
        for repeated in (
            client.chat.completions.create(model="echo", messages=HELLO, extra_headers=key),
            client.responses.create(model="echo", input="Hello", extra_headers=key),
        ):
            with pytest.raises(openai.ConflictError) as caught:
                await repeated
            assert caught.value.param == "Idempotency-Key"
