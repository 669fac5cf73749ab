"""Chat completions over a whole stack: real models, the official SDK."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, ConfigDict
from tests.support.stack import Stack

pytestmark = pytest.mark.xdist_group("stack")
ORDER = "I would like to order two lamps to Bonn, please."


class Message(BaseModel):
    """As much of the reference models' answers as a test may rely on."""

    model_config = ConfigDict(extra="allow")

    intent: str


def said(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def tool(name: str, **properties: Any) -> Any:
    """A function that needs each of its arguments."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": True,
    }
    function = {"name": name, "parameters": parameters}
    return {"type": "function", "function": function}


async def test_a_real_model_answers_a_chat(client: AsyncOpenAI) -> None:
    """The router chooses, a worker generates, usage adds up; the history is part of the prompt."""
    made = await client.chat.completions.create(model="auto", messages=said(ORDER))
    (choice,) = made.choices
    assert choice.finish_reason == "stop"
    assert json.loads(choice.message.content or "")["intent"]
    assert made.model in {"penstock-small", "penstock-large"}
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    history: list[Any] = [*said("Hello."), choice.message, *said(ORDER)]
    longer = await client.chat.completions.create(model=made.model, messages=history)
    assert longer.usage is not None
    assert longer.usage.prompt_tokens > made.usage.prompt_tokens


async def test_a_chat_is_streamed_with_its_usage(client: AsyncOpenAI) -> None:
    """The same text as the plain answer at temperature 0, and its usage at the end (I6, I3)."""
    whole = await client.chat.completions.create(model="penstock-small", messages=said(ORDER))
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model="penstock-small",
            messages=said(ORDER),
            stream=True,
            stream_options={"include_usage": True},
        )
    ]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text or "" for text in texts) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_the_synchronous_sdk_over_the_stack(stack: Stack) -> None:
    """The client that most programs use."""
    ready = stack.ready
    with OpenAI(base_url=ready["http"] + "/v1", api_key=ready["api_key"], timeout=60) as client:
        with client.chat.completions.stream(model="echo", messages=said("one two")) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.content == "one two"


async def test_an_answer_of_a_given_form(client: AsyncOpenAI) -> None:
    """`parse` brings the answer into the caller's own type; what does not fit is an error."""
    made = await client.chat.completions.parse(
        model="penstock-large", messages=said(ORDER), response_format=Message
    )
    assert made.choices[0].message.parsed is not None
    assert made.choices[0].message.parsed.intent
    anything = await client.chat.completions.create(
        model="echo", messages=said('{"a": 1}'), response_format={"type": "json_object"}
    )
    assert anything.choices[0].message.content == '{"a": 1}'
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await client.chat.completions.create(
            model="echo", messages=said("no JSON"), response_format={"type": "json_object"}
        )
    assert caught.value.code == "output_invalid"


async def test_a_function_is_called_and_answered(client: AsyncOpenAI) -> None:
    """A real model's answer that is valid arguments of a function is a call of it."""
    answer = await client.chat.completions.create(
        model="penstock-large",
        messages=said(ORDER),
        tools=[tool("nothing", nowhere={"type": "null"}), tool("handle", intent={})],
    )
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "handle"
    assert json.loads(call.function.arguments)["intent"]
    told = {"role": "tool", "tool_call_id": call.id, "content": "It is on its way."}
    history: list[Any] = [*said(ORDER), choice.message, told]
    after = await client.chat.completions.create(model="echo", messages=history)
    assert after.choices[0].message.content == "It is on its way."


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
async def test_a_streamed_call_depends_on_the_choice(
    client: AsyncOpenAI, choice: Literal["auto", "none", "required"]
) -> None:
    """The same text is a call, or a text where no function may be called."""
    async with client.chat.completions.stream(
        model="echo",
        messages=said('{"city": "Bonn"}'),
        tools=[tool("weather", city={"type": "string"})],
        tool_choice=choice,
    ) as stream:
        final = await stream.get_final_completion()
    message = final.choices[0].message
    if choice == "none":
        assert message.content == '{"city": "Bonn"}'
        return
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"city": "Bonn"}'


async def test_an_answer_that_had_to_be_a_call(client: AsyncOpenAI) -> None:
    """`required` and no call: an error, not a text that nobody asked for."""
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await client.chat.completions.create(
            model="echo",
            messages=said("just words"),
            tools=[tool("weather", city={"type": "string"})],
            tool_choice="required",
        )
    assert caught.value.code == "tool_not_called"


async def test_a_chat_stops_at_its_limit(client: AsyncOpenAI) -> None:
    """Exactly there, and it says so; what was generated is what is billed (I3)."""
    made = await client.chat.completions.create(
        model="echo", messages=said("one two three four"), max_completion_tokens=2
    )
    assert made.choices[0].finish_reason == "length"
    assert made.choices[0].message.content == "one two"
    assert made.usage is not None
    assert made.usage.completion_tokens == 2


async def test_a_chat_that_a_model_cannot_take(client: AsyncOpenAI) -> None:
    """A prompt over the model's context is a 400 with its own code, plain and streamed."""
    long: Any = said("word " * 5_000)
    with pytest.raises(openai.BadRequestError) as plain:
        await client.chat.completions.create(model="penstock-small", messages=long)
    with pytest.raises(openai.APIError) as streamed:
        async for _ in await client.chat.completions.create(
            model="penstock-small", messages=long, stream=True
        ):
            pass
    assert plain.value.code == streamed.value.code == "context_length_exceeded"
    assert plain.value.param == streamed.value.param == "messages"
