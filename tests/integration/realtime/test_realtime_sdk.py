"""The official OpenAI SDK, unchanged, against the edge."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from tests.support.realtime import Edge

from penstock_shared.contracts.subjects import Lane


async def test_a_plain_response(edge: Edge) -> None:
    """A whole answer with usage, ids and headers (I1: the id is the request's in the log)."""
    async with edge.client() as client:
        raw = await client.responses.with_raw_response.create(model="echo", input="Hello, wörld ✓")
    response = raw.parse()
    assert response.output_text == "Hello, wörld ✓"
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + 5
    assert raw.headers["x-request-id"].replace("-", "") == response.id.removeprefix("resp_")
    assert raw.headers["x-ratelimit-limit-requests"] == "60000"


async def test_a_streamed_response_has_every_event_in_order(edge: Edge) -> None:
    """The events are OpenAI's, numbered without a gap, and the deltas make the text (I6)."""
    async with edge.client() as client:
        stream = await client.responses.create(input='Hello, "quoted"\n✓', stream=True)
        events = [event async for event in stream]
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[4:-4] == ["response.output_text.delta"] * len(deltas)
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(deltas) == events[-1].response.output_text == 'Hello, "quoted"\n✓'


async def test_the_sdk_stream_helper(edge: Edge) -> None:
    """The SDK's own accumulator agrees with the final response."""
    async with (
        edge.client() as client,
        client.responses.stream(model="echo", input="one two three") as stream,
    ):
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert final.output_text == "one two three"


async def test_websocket_side_by_side_and_one_after_another(edge: Edge) -> None:
    """Several responses share a connection; each one's events stay in order."""
    async with edge.client() as client, client.responses.connect() as connection:
        for lane in ("a", "b", "c"):
            await connection.send(
                {"type": "response.create", "input": f"lane {lane}", "stream_id": lane}
            )
        texts: dict[str, str] = {}
        async for event in connection:
            if event.type == "response.completed":
                texts[event.stream_id] = event.response.output_text
                if len(texts) == 3:
                    break
        assert texts == {"a": "lane a", "b": "lane b", "c": "lane c"}
        await connection.send({"type": "response.create", "model": "echo", "input": "again"})
        async for event in connection:
            if event.type == "response.completed":
                assert event.response.output_text == "again"
                break


async def test_whoever_watches_takes_the_interactive_lane(edge: Edge) -> None:
    """A stream has somebody reading along; a plain answer comes all at once anyway."""
    async with edge.client() as client:
        await client.responses.create(input="plain")
        async for _ in await client.responses.create(input="streamed", stream=True):
            pass
        async with client.responses.connect() as connection:
            await connection.send({"type": "response.create", "input": "socket"})
            async for event in connection:
                if event.type == "response.completed":
                    break
    lanes = dict(zip(edge.backend.prompts, [job.lane for job in edge.backend.jobs], strict=True))
    assert lanes == {
        "plain": Lane.STANDARD,
        "streamed": Lane.INTERACTIVE,
        "socket": Lane.INTERACTIVE,
    }


async def test_models(edge: Edge) -> None:
    """Models are listed and found by name; `auto` is one of them."""
    async with edge.client() as client:
        names = [model.id async for model in client.models.list()]
        assert names == ["auto", "echo"]
        assert (await client.models.retrieve("echo")).owned_by == "penstock"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-4.1")


async def test_retrieve_after_the_end(edge: Edge) -> None:
    """The answer lives in the event log."""
    async with edge.client() as client:
        created = await client.responses.create(input="keep me")
        found = await client.responses.retrieve(created.id)
    assert found.output_text == "keep me"
    assert found.usage == created.usage


@pytest.mark.parametrize(
    ("fields", "exception", "code", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"input": ""}, openai.BadRequestError, "empty_input", "input"),
        (
            {"tools": [{"type": "web_search"}]},
            openai.BadRequestError,
            "unsupported_parameter",
            "tools[0].type",
        ),
        ({"extra_body": {"wat": 1}}, openai.BadRequestError, "unknown_parameter", "wat"),
        ({"max_output_tokens": -1}, openai.BadRequestError, "invalid_value", "max_output_tokens"),
        (
            {"max_output_tokens": 10**30},
            openai.BadRequestError,
            "invalid_value",
            "max_output_tokens",
        ),
        ({"input": "x" * 300_000}, openai.APIStatusError, "input_too_large", "input"),
    ],
)
async def test_errors_are_the_sdks_own(
    edge: Edge,
    fields: dict[str, Any],
    exception: type[openai.APIStatusError],
    code: str,
    param: str,
) -> None:
    """Each refusal raises the SDK's own exception and names what was wrong."""
    async with edge.client() as client:
        with pytest.raises(exception) as caught:
            await client.responses.create(**{"input": "x", **fields})
    assert caught.value.code == code
    assert caught.value.param == param
    assert caught.value.request_id


async def test_a_wrong_key(edge: Edge) -> None:
    """A key that does not exist is an authentication error, over HTTP and WebSocket (I8)."""
    async with edge.client("sk-nothing") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.responses.create(input="x")
        with pytest.raises(Exception, match="401"):
            await client.responses.connect().enter()
