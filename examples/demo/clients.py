"""What an application would write: the OpenAI SDK over two transports, and plain nats-py."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import nats
import websockets
from examples.demo.messages import Message
from openai import AsyncOpenAI

Show = Callable[[str], None]


class AnswerError(Exception):
    """The platform answered, but not as it should."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw of one response."""

    message: Message
    text: str
    model: str
    input_tokens: int
    output_tokens: int
    first_token_s: float
    total_s: float
    response_id: str = ""


class _Stopwatch:
    """Time to the first text, and to the end."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()
        self._first_s: float | None = None

    def text(self) -> None:
        if self._first_s is None:
            self._first_s = time.perf_counter()

    def read(self) -> tuple[float, float]:
        now_s = time.perf_counter()
        return (self._first_s or now_s) - self._start_s, now_s - self._start_s


async def over_websocket(client: AsyncOpenAI, message: Message, show: Show) -> Answer:
    """One response on a WebSocket: `response.create` in, typed events out."""
    watch = _Stopwatch()
    async with client.responses.connect() as connection:
        await connection.response.create(model="auto", input=message.text)
        async for event in connection:
            if event.type == "response.output_text.delta":
                watch.text()
                show(event.delta)
            elif event.type == "response.completed":
                await connection.close()
                return _answer(message, event.response, watch)
            elif event.type in {"error", "response.failed", "response.incomplete"}:
                raise AnswerError(event.to_json(indent=None)[:500])
    msg = "the socket closed before the response was complete"
    raise AnswerError(msg)


async def over_sse(client: AsyncOpenAI, message: Message, show: Show) -> Answer:
    """One streamed response over HTTP."""
    watch = _Stopwatch()
    answer = None
    async with await client.responses.create(
        model="auto", input=message.text, stream=True
    ) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                watch.text()
                show(event.delta)
            elif event.type == "response.completed":
                answer = _answer(message, event.response, watch)
    if answer is None:
        msg = "the stream ended before the response was complete"
        raise AnswerError(msg)
    return answer


async def over_chat(client: AsyncOpenAI, message: Message, show: Show) -> Answer:
    """The same through Chat Completions, as most applications still call it."""
    watch = _Stopwatch()
    text, model, usage = "", "", None
    async with await client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": message.text}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        async for chunk in stream:
            model, usage = chunk.model, chunk.usage or usage
            for choice in chunk.choices:
                if choice.delta.content:
                    watch.text()
                    show(choice.delta.content)
                    text += choice.delta.content
    if usage is None:
        msg = "the stream ended before the completion was complete"
        raise AnswerError(msg)
    first_s, total_s = watch.read()
    return Answer(
        message, text, model, usage.prompt_tokens, usage.completion_tokens, first_s, total_s
    )


async def over_broken_socket(base_url: str, key: str, message: Message, show: Show) -> Answer:
    """A WebSocket that is cut in the middle of an answer; another one goes on after the last event.

    The session's id and the events' numbers are all that the client keeps, and any instance of the
    edge would do.
    """
    watch = _Stopwatch()
    url = base_url.replace("http", "ws", 1) + "/responses"
    headers = {"Authorization": f"Bearer {key}"}
    numbers: list[int] = []
    text = response_id = ""
    async with websockets.connect(url, additional_headers=headers) as socket:
        await socket.send(json.dumps({"type": "session.start"}))
        session_id = json.loads(await socket.recv())["session"]["id"]
        create = {"type": "response.create", "model": "auto", "input": message.text}
        await socket.send(json.dumps(create))
        while not text:
            event = json.loads(await socket.recv())
            numbers.append(event["sequence_number"])
            response_id = event.get("response", {}).get("id") or response_id
            text += event.get("delta", "")
        socket.transport.abort()
    watch.text()
    show(text + " ✂ ")
    async with websockets.connect(url, additional_headers=headers) as socket:
        positions = {response_id: numbers[-1]}
        resume = {"type": "session.resume", "session_id": session_id, "positions": positions}
        await socket.send(json.dumps(resume))
        async for raw in socket:
            event = json.loads(raw)
            if event["type"] == "session.resumed":
                continue
            if "sequence_number" not in event or event["type"] == "penstock.gap":
                raise AnswerError(json.dumps(event))
            numbers.append(event["sequence_number"])
            if event["type"] == "response.output_text.delta":
                show(event["delta"])
                text += event["delta"]
            if event["type"] == "response.completed":
                break
    response = event["response"]
    if text != response["output"][0]["content"][0]["text"] or numbers != sorted(set(numbers)):
        msg = "the two halves are not the answer"
        raise AnswerError(msg)
    used, (first_s, total_s) = response["usage"], watch.read()
    return Answer(
        message,
        text,
        response["model"],
        used["input_tokens"],
        used["output_tokens"],
        first_s,
        total_s,
    )


async def in_background(client: AsyncOpenAI, message: Message, show: Show) -> Answer:
    """Accepted at once; retrieved later, by its id, as a stream from the beginning."""
    watch = _Stopwatch()
    started = await client.responses.create(model="auto", input=message.text, background=True)
    async with await client.responses.retrieve(started.id, stream=True) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                watch.text()
                show(event.delta)
            elif event.type == "response.completed":
                return _answer(message, event.response, watch)
    msg = "the stream ended before the response was complete"
    raise AnswerError(msg)


async def judged(client: AsyncOpenAI, message: Message, show: Show) -> Answer:
    """An answer of a given form, and what the client thinks of it: from that the router learns."""
    watch = _Stopwatch()
    form: Any = {"type": "json_schema", "name": "order", "schema": message.output_schema}
    response = await client.responses.create(
        model="auto", input=message.text, text={"format": form}
    )
    watch.text()
    show(response.output_text)
    items = json.loads(response.output_text)["items"]
    score = {"score": float([item.get("quantity") for item in items] == [6])}
    await client.post(f"/responses/{response.id}/feedback", body=score, cast_to=dict[str, object])
    return replace(_answer(message, response, watch), response_id=response.id)


async def over_nats(url: str, tenant: str, api_key: str, message: Message, show: Show) -> Answer:
    """One response without HTTP: a CloudEvent in, frames on the response's own subject out."""
    watch = _Stopwatch()
    connection = await nats.connect(
        url, token=api_key, inbox_prefix=f"_INBOX_{tenant}".encode(), allow_reconnect=False
    )
    try:
        request_id = str(_uuid7())
        frames = await connection.subscribe(f"v1.{tenant}.responses.{request_id}")
        reply = await connection.request(
            f"v1.{tenant}.requests.submit",
            json.dumps(
                {
                    "input": message.text,
                    "model": message.model,
                    "output_schema": message.output_schema,
                }
            ).encode(),
            timeout=10,
            headers={
                "ce-specversion": "1.0",
                "ce-id": request_id,
                "ce-source": "/examples/demo",
                "ce-type": "penstock.request.submit.v1",
                "content-type": "application/json",
            },
        )
        if json.loads(reply.data)["reply"]["status"] != "accepted":
            raise AnswerError(reply.data.decode())
        while True:
            frame = json.loads((await frames.next_msg(timeout=60)).data)
            if frame["t"] == "delta":
                watch.text()
                show(frame["delta"])
                continue
            if frame["status"] != "completed":
                raise AnswerError(json.dumps(frame))
            usage, (first_s, total_s) = frame["usage"], watch.read()
            return Answer(
                message=message,
                text=frame["text"],
                model=frame["model"],
                input_tokens=usage["input_tokens"],
                output_tokens=usage["output_tokens"],
                first_token_s=first_s,
                total_s=total_s,
            )
    finally:
        await connection.close()


def _uuid7() -> uuid.UUID:
    """RFC 9562 §5.7; Python's own comes with 3.14."""
    value = int(time.time() * 1000) << 80 | uuid.uuid4().int & ((1 << 80) - 1)
    value = value & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=value & ~(0b11 << 62) | 0b10 << 62)


def _answer(message: Message, response: object, watch: _Stopwatch) -> Answer:
    first_s, total_s = watch.read()
    usage = response.usage  # type: ignore[attr-defined]
    return Answer(
        message=message,
        text=response.output_text,  # type: ignore[attr-defined]
        model=response.model,  # type: ignore[attr-defined]
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        first_token_s=first_s,
        total_s=total_s,
    )
