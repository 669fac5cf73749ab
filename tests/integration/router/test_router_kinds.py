"""Which input which kind of model takes, and what is refused at the door."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.router import (
    IDS,
    ROOT,
    admit,
    count,
    model_record,
    put_model,
    put_tenant,
    routed_of,
    submit,
)

from penstock_router.app import App
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import MAX_TEXTS, Accepted, Content, Rejected
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.kv import BucketStore

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture(autouse=True)
async def models(broker: Broker) -> None:
    """One model of each kind, and one that killed its process on three requests."""
    await put_tenant(broker, "acme")
    await put_model(broker, model_record("small"))
    await put_model(broker, model_record("embed", ModelKind.EMBEDDING))
    await put_model(broker, model_record("translate", ModelKind.TRANSLATION))
    sick = model_record("sick").model_copy(update={"crashed_on": ("a", "b", "c")})
    await put_model(broker, sick)


async def sealed_content(broker: Broker, request_id: str) -> Content:
    """What a worker would open."""
    routed = await routed_of(broker, request_id)
    ring = Keyring(ROOT, BucketStore(broker, Bucket.DATA_KEYS), SystemClock())
    opened = await ring.open("acme", routed.data_subject, request_id, "content", routed.content)
    return Content.model_validate_json(opened)


@pytest.mark.parametrize(
    ("payload", "messages", "texts"),
    [
        ({"input": "hi"}, ("hi",), ()),
        ({"input": [USER], "model": "small"}, ("hi",), ()),
        ({"input": "hi", "model": "embed"}, (), ("hi",)),
        ({"input": ["hi", "there"], "model": "embed"}, (), ("hi", "there")),
        ({"input": "hi", "model": "translate"}, (), ("hi",)),
        ({"input": ["hi"], "model": "translate"}, (), ("hi",)),
    ],
)
async def test_the_input_takes_the_form_of_the_models_kind(
    broker: Broker,
    router: App,
    payload: dict[str, Any],
    messages: tuple[str, ...],
    texts: tuple[str, ...],
) -> None:
    """The same `input` is a message to a text model and a text to an encoder."""
    reply = await submit(broker, IDS.new(), payload)
    assert isinstance(reply, Accepted)
    content = await sealed_content(broker, reply.request_id)
    assert tuple(turn.content for turn in content.messages) == messages
    assert content.texts == texts


async def test_the_schema_travels_sealed(broker: Broker, router: App) -> None:
    """What a client wants answered is content: in the sealed part, nowhere else (I10)."""
    reply = await submit(broker, IDS.new(), {"input": "hi", "output_schema": SCHEMA})
    assert isinstance(reply, Accepted)
    assert (await sealed_content(broker, reply.request_id)).output_schema == SCHEMA
    assert "city" not in (await routed_of(broker, reply.request_id)).model_dump_json()


@pytest.mark.parametrize(
    ("choice", "offered", "must_call"),
    [("auto", ["lookup"], False), ("required", ["lookup"], True), ("none", [], False)],
)
async def test_functions_travel_sealed(
    broker: Broker,
    router: App,
    choice: str,
    offered: list[str],
    must_call: bool,  # noqa: FBT001  of the table
) -> None:
    """Names and parameters are content, too; the choice decides what is left of them (I10)."""
    tool = {"type": "function", "name": "lookup", "parameters": SCHEMA, "strict": True}
    given = {"input": "hi", "tools": [tool], "tool_choice": choice}
    reply = await submit(broker, IDS.new(), given)
    assert isinstance(reply, Accepted)
    content = await sealed_content(broker, reply.request_id)
    assert ([one.name for one in content.tools], content.must_call) == (offered, must_call)
    assert "lookup" not in (await routed_of(broker, reply.request_id)).model_dump_json()


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("payload", "code", "status", "param"),
    [
        ({"input": ["a", "b"]}, "input_not_for_model", 400, "input"),
        ({"input": [USER], "model": "embed"}, "input_not_for_model", 400, "input"),
        ({"input": ["a", "b"], "model": "translate"}, "input_not_for_model", 400, "input"),
        (
            {"input": "a", "model": "embed", "instructions": "b"},
            "input_not_for_model",
            400,
            "instructions",
        ),
        (
            {"input": "a", "model": "embed", "output_schema": SCHEMA},
            "input_not_for_model",
            400,
            "output_schema",
        ),
        (
            {"input": "a", "model": "embed", "tools": [{"type": "function", "name": "f"}]},
            "input_not_for_model",
            400,
            "tools",
        ),
        ({"input": "a", "tool_choice": "required"}, "invalid_value", 400, "tool_choice"),
        (
            {"input": "a", "tools": [{"type": "function", "name": "f", "parameters": nested(40)}]},
            "schema_too_deep",
            422,
            "tools[0].parameters",
        ),
        ({"input": [], "model": "embed"}, "empty_input", 400, "input"),
        ({"input": ["a", " "], "model": "embed"}, "empty_input", 400, "input"),
        ({"input": ["a"] * (MAX_TEXTS + 1), "model": "embed"}, "too_many_texts", 400, "input"),
        ({"input": ["a"], "model": "nope"}, "model_not_found", 404, "model"),
        ({"input": "a", "model": "sick"}, "model_quarantined", 503, None),
        ({"input": "a", "output_schema": nested(40)}, "schema_too_deep", 422, "output_schema"),
        ({"input": "a", "output_schema": nested(180)}, "schema_too_deep", 422, "output_schema"),
        (
            b'{"input":"a","output_schema":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
            "invalid_json",
            400,
            None,
        ),
        (
            {"input": "a", "output_schema": {"title": "x" * 70_000}},
            "schema_too_large",
            422,
            "output_schema",
        ),
    ],
)
async def test_what_no_model_takes_is_refused_by_name(
    broker: Broker,
    router: App,
    payload: object,
    code: str,
    status: int,
    param: str | None,
) -> None:
    """Each with its code and parameter, and nothing in the log."""
    reply = await submit(broker, IDS.new(), payload)
    assert isinstance(reply, Rejected)
    assert (reply.error.code, reply.http_status, reply.error.param) == (code, status, param)
    assert await count(broker, EVENTS) == 0


@pytest.mark.parametrize(
    ("plain", "code"),
    [
        ("", "content_malformed"),
        ("[]", "content_malformed"),
        ('{"messages":[],"texts":[]}', "content_malformed"),
        ('{"messages":[{"role":"user","content":"a"}],"texts":["b"]}', "content_malformed"),
        ('{"texts":["a"]}', "input_not_for_model"),
        (
            '{"messages":[{"role":"user","content":"a"}],"output_schema":'
            + '{"items":' * 40
            + "{}"
            + "}" * 41,
            "schema_too_deep",
        ),
    ],
)
async def test_malformed_sealed_content_is_refused(
    broker: Broker, router: App, plain: str, code: str
) -> None:
    """What realtime sealed is checked again: a typed refusal, and the next one is served."""
    reply = await admit(broker, IDS.new(), plain=plain)
    assert isinstance(reply, Rejected)
    assert reply.error.code == code
    assert isinstance(await admit(broker, IDS.new()), Accepted)
