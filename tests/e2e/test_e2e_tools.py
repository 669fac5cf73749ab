"""Function calls, structured output and conversations, driven by the official Python SDK."""

from __future__ import annotations

import json
import uuid
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionToolCall,
    ResponseInputParam,
)
from pydantic import BaseModel, ConfigDict
from tests.e2e.conftest import openai_client
from tests.support.ledger import assert_no_plaintext
from tests.support.operator import operate
from tests.support.stack import Stack

pytestmark = pytest.mark.xdist_group("stack")
MESSAGE = "Please send 3 blue mugs to Oslo."
CALL_ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
]


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    item: str
    quantity: int
    size: str | None = None
    color: str | None = None


class Order(BaseModel):
    """What the reference models make of an order."""

    model_config = ConfigDict(extra="forbid")

    intent: Literal["order"]
    items: list[Item]
    place: str | None = None


PLACE_ORDER: FunctionToolParam = {
    "type": "function",
    "name": "place_order",
    "description": "Orders what the customer asked for.",
    "parameters": Order.model_json_schema(),
    "strict": True,
}
CLOCK: FunctionToolParam = {
    "type": "function",
    "name": "clock",
    "parameters": {"type": "object", "maxProperties": 0},
    "strict": True,
}


def call_in(response: Response) -> ResponseFunctionToolCall:
    """The one function call that a response is."""
    (item,) = response.output
    assert isinstance(item, ResponseFunctionToolCall), item
    assert item.status == response.status == "completed"
    return item


def output_of(call: ResponseFunctionToolCall, output: str) -> ResponseInputParam:
    return [{"type": "function_call_output", "call_id": call.call_id, "output": output}]


@pytest.mark.parametrize("model", ["penstock-small", "penstock-large"])
async def test_a_function_is_called_and_its_output_answered(
    client: AsyncOpenAI, model: str
) -> None:
    """An order calls the function it fits; with the output the conversation goes on."""
    asked = await client.responses.create(model=model, input=MESSAGE, tools=[CLOCK, PLACE_ORDER])
    call = call_in(asked)
    assert call.name == "place_order"
    order = Order.model_validate_json(call.arguments)
    assert (order.items[0].quantity, order.place) == (3, "Oslo")
    answer = await client.responses.create(
        model=model,
        previous_response_id=asked.id,
        input=output_of(call, '{"shipment":"shp_1"}'),
    )
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.previous_response_id == asked.id
    assert answer.usage is not None
    assert asked.usage is not None
    assert answer.usage.input_tokens > asked.usage.input_tokens


async def test_what_the_function_brought_is_what_the_model_hears(client: AsyncOpenAI) -> None:
    """The echo says what it was last told: the output, three turns deep."""
    first = await client.responses.create(model="echo", input='{"a": 1}', tools=[PLACE_ORDER])
    assert first.output_text == '{"a": 1}'
    second = await client.responses.create(
        model="echo", input="{}", tools=[CLOCK], previous_response_id=first.id
    )
    third = await client.responses.create(
        model="echo", previous_response_id=second.id, input=output_of(call_in(second), "noon")
    )
    assert third.output_text == "noon"


async def test_the_client_may_carry_the_conversation_itself(client: AsyncOpenAI) -> None:
    """The SDK's own pattern: append the output items, then the function's output."""
    turns: list[Any] = [{"role": "user", "content": "{}"}]
    response = await client.responses.create(model="echo", input=turns, tools=[CLOCK], store=False)
    turns += response.output
    turns += output_of(call_in(response), "noon")
    response = await client.responses.create(model="echo", input=turns, store=False)
    assert response.output_text == "noon"


async def test_a_streamed_call_has_the_vendors_events_in_order(client: AsyncOpenAI) -> None:
    """Over server-sent events: the arguments as the SDK assembles them, no text before them."""
    async with client.responses.stream(
        model="penstock-large", input=MESSAGE, tools=[PLACE_ORDER]
    ) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [event.type for event in events] == CALL_ORDER
    assert [event.sequence_number for event in events] == list(range(len(events)))
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    (item,) = final.output
    assert item.type == "function_call"
    assert (item.name, item.arguments) == ("place_order", done.arguments)
    assert Order.model_validate_json(item.arguments).place == "Oslo"


async def test_a_message_beside_functions_streams(client: AsyncOpenAI) -> None:
    """What is no call is a message, with every delta."""
    stream = await client.responses.create(
        model="echo", input="no call at all, truly", tools=[CLOCK], stream=True
    )
    events = [event async for event in stream]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == "no call at all, truly"
    assert "response.function_call_arguments.delta" not in {event.type for event in events}


async def test_an_object_that_is_no_call_is_told_as_a_message(client: AsyncOpenAI) -> None:
    """Held back while it might have been arguments, then told whole (I6)."""
    stream = await client.responses.create(
        model="echo", input='{"a": "b c d"}', tools=[CLOCK], stream=True
    )
    events = [event async for event in stream]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert text == last.response.output_text == '{"a": "b c d"}'


async def test_calls_over_websocket(client: AsyncOpenAI) -> None:
    """A call and its output, one response after the other on one socket."""
    async with client.responses.connect() as connection:
        await connection.response.create(
            model="penstock-large", input=MESSAGE, tools=[CLOCK, PLACE_ORDER]
        )
        kinds = []
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.completed":
                break
        assert event.type == "response.completed"
        assert kinds == CALL_ORDER
        call = call_in(event.response)
        await connection.response.create(
            model="echo",
            previous_response_id=event.response.id,
            input=output_of(call, "ordered"),
        )
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.completed":
                assert event.response.output_text == "ordered"
                break


async def test_the_choice_is_kept(client: AsyncOpenAI) -> None:
    """`none` calls nothing; `required` and a named function fail where nothing is called."""
    free = await client.responses.create(
        model="echo", input="{}", tools=[CLOCK], tool_choice="none"
    )
    assert free.output_text == "{}"
    named = await client.responses.create(
        model="echo",
        input="{}",
        tools=[{**CLOCK, "name": "other"}, CLOCK],
        tool_choice={"type": "function", "name": "clock"},
    )
    assert call_in(named).name == "clock"
    failed = await client.responses.create(
        model="echo", input="just words", tools=[CLOCK], tool_choice="required"
    )
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.type) == ("server_error", "tool_not_called")
    assert failed.output == []
    assert failed.usage is not None
    assert failed.usage.output_tokens == 2


async def test_parse_gives_the_clients_own_class(client: AsyncOpenAI) -> None:
    """`responses.parse` sends the class's schema and reads the answer back into it.

    The SDK makes every field required, so the message states them all.
    """
    response = await client.responses.parse(
        model="penstock-large",
        input="Please send 3 blue jackets in size L to Oslo.",
        text_format=Order,
    )
    order = response.output_parsed
    assert isinstance(order, Order), response
    assert order.items == [Item(item="jacket", quantity=3, size="L", color="blue")]
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"


async def test_an_answer_that_misses_the_schema_fails(client: AsyncOpenAI) -> None:
    """It is never shown as if it had satisfied it."""
    missed = await client.responses.create(
        model="echo",
        input='{"intent": "lead"}',
        text={"format": {"type": "json_schema", "name": "o", "schema": Order.model_json_schema()}},
    )
    assert missed.status == "failed"
    assert missed.error is not None
    assert missed.error.type == "output_invalid"
    assert missed.output_text == ""


async def test_json_object(client: AsyncOpenAI) -> None:
    """Any object will do, and nothing else."""
    made = await client.responses.create(
        model="auto", input="How do I return a jacket?", text={"format": {"type": "json_object"}}
    )
    assert isinstance(json.loads(made.output_text), dict)
    failed = await client.responses.create(
        model="echo", input="[1]", text={"format": {"type": "json_object"}}
    )
    assert failed.status == "failed"


async def test_instructions_are_not_carried_over(client: AsyncOpenAI) -> None:
    """Each response has its own; the conversation is."""
    first = await client.responses.create(
        model="penstock-large", input="Hello", instructions="Be kind.", metadata={"n": "1"}
    )
    second = await client.responses.create(
        model="penstock-large", input="Hello", previous_response_id=first.id
    )
    alone = await client.responses.create(model="penstock-large", input="Hello")
    assert (first.instructions, second.instructions) == ("Be kind.", None)
    assert (first.metadata, second.metadata) == ({"n": "1"}, {})
    assert second.usage is not None
    assert alone.usage is not None
    assert second.usage.input_tokens > alone.usage.input_tokens
    again = await client.responses.retrieve(first.id)
    assert (again.instructions, again.metadata) == ("Be kind.", {"n": "1"})


async def test_what_cannot_be_gone_on_with(client: AsyncOpenAI, stack: Stack) -> None:
    """Unknown, not kept, another tenant's (I8): the same error, the same words."""
    unkept = await client.responses.create(model="echo", input="x", store=False)
    other = f"other-{uuid.uuid4().hex[:8]}"
    await operate(stack, "tenants", "create", other, "--name", "Other")
    made = await operate(stack, "keys", "create", other, "--name", "theirs")
    stranger = openai_client(stack, made["secret"])
    mine = await client.responses.create(model="echo", input="x")
    for asking, previous in (
        (client, f"resp_{uuid.uuid4().hex}"),
        (client, unkept.id),
        (stranger, mine.id),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await asking.responses.create(model="echo", input="x", previous_response_id=previous)
        assert (refused.value.code, refused.value.param) == (
            "previous_response_not_found", "previous_response_id",
        )  # fmt: skip
        assert refused.value.body["message"] == (  # type: ignore[index]
            f"Previous response with id '{previous}' not found."
        )
    await stranger.close()


async def test_an_output_needs_its_call(client: AsyncOpenAI) -> None:
    """Neither a made-up call nor that of another response is answered."""
    plain = await client.responses.create(model="echo", input="x")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(
            model="echo",
            previous_response_id=plain.id,
            input=[{"type": "function_call_output", "call_id": "call_1", "output": "x"}],
        )
    assert refused.value.param == "input[0].call_id"


async def test_functions_are_nowhere_on_disk(client: AsyncOpenAI, stack: Stack) -> None:
    """Names, descriptions, parameters and arguments are sealed like every content (I10)."""
    secret = f"zanzibar{uuid.uuid4().hex}"
    response = await client.responses.create(
        model="echo",
        input=json.dumps({secret: 1}, separators=(",", ":")),
        tools=[
            {
                "type": "function",
                "name": secret,
                "description": f"The {secret} service.",
                "parameters": {"type": "object", "required": [secret]},
                "strict": True,
            }
        ],
        metadata={"about": secret},
    )
    assert call_in(response).name == secret
    assert_no_plaintext(stack.data_dir, [secret.encode()])
