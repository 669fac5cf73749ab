"""The AsyncAPI document against the socket and the subjects that it describes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import httpx
import jsonschema
import nats
import pytest
from tests.support.publisher import ask
from tests.support.realtime import Edge, StartEdge
from tests.support.realtime_backend import Backend, new_run, until_cancelled
from tests.support.stack import Stack
from websockets.asyncio.client import ClientConnection, connect

from penstock_realtime.http.socket_events import CLIENT_EVENTS
from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job

META_SCHEMA: Final = (
    Path(__file__).parents[2] / "e2e/js/node_modules/@asyncapi/specs/schemas/3.0.0.json"
)
"""The official one; `make install` fetches it."""
SERVER_EVENTS: Final = "serverEvents"


async def document(edge: Edge) -> Any:
    async with httpx.AsyncClient() as http:
        found = await http.get(edge.base_url.replace("/v1", "/asyncapi.json"))
    assert found.status_code == 200
    return found.json()


def resolved(told: Any, reference: dict[str, str]) -> Any:
    """What a reference within the document leads to, over as many steps as there are."""
    while "$ref" in reference:
        place = told
        for step in reference["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        reference = place
    return reference


def validator(told: Any, schema: Any) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": told["components"]})


def messages(told: Any, operation: str) -> dict[str, Any]:
    """The messages of an operation, by name."""
    return {
        one["$ref"].rpartition("/")[2]: resolved(told, one)
        for one in told["operations"][operation]["messages"]
    }


async def test_the_document_is_asyncapi(edge: Edge) -> None:
    """Valid against the official meta-schema; every reference leads somewhere."""
    told = await document(edge)
    jsonschema.Draft7Validator(json.loads(META_SCHEMA.read_text())).validate(told)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                assert resolved(told, value) is not None
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(told)


async def test_it_names_the_subjects_that_a_tenants_credentials_cover(edge: Edge) -> None:
    """No subject more, none less (I8)."""
    told = await document(edge)
    allowed = subjects.tenant_permissions("acme")
    described: dict[str, set[str]] = {"receive": set(), "send": set()}
    for operation in told["operations"].values():
        address = resolved(told, operation["channel"])["address"]
        if address.startswith("v1."):
            filled = address.replace("{tenant}", "acme").replace("{request_id}", "*")
            described[operation["action"]].add(filled)
    inbox = f"{subjects.inbox_prefix('acme')}.>"
    assert described["receive"] == set(allowed.publish)
    assert described["send"] | {inbox} == set(allowed.subscribe)


async def slow_then_end(backend: Backend, job: Job, prompt: str) -> None:
    """An echo, a call, a failure, or what waits to be cancelled."""
    run = new_run()
    if prompt == "wait":
        await until_cancelled(backend, job, prompt)
    elif prompt == "call":
        await backend.end(job, run, ['{"city":"Oslo"}'], called=0)
    else:
        for n in range(3):
            await backend.delta(job, run, n, f"{n} ")
        await backend.end(job, run, ["0 ", "1 ", "2 "])


EXAMPLES: Final[tuple[dict[str, Any], ...]] = (
    {"type": "session.start", "policy": "drop_oldest"},
    {"type": "response.create", "input": "three words", "stream_id": "a"},
    {
        "type": "response.create",
        "input": "call",
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
    },
    {"type": "response.create", "input": "wait", "stream_id": "b"},
    {"type": "response.create", "input": "nonsense", "surprise": 1},
    {"type": "response.cancel", "response_id": "resp_0190e0f0000070008000000000000000"},
    {"type": "response.resume", "response_id": "resp_0190e0f0000070008000000000000000"},
    {"type": "session.resume", "session_id": "0190e0f0-0000-7000-8000-000000000000"},
)


async def heard(socket: ClientConnection, until: set[str]) -> list[dict[str, Any]]:
    """Events until each kind of `until` was among them."""
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while until - {event["type"] for event in events}:
            events.append(json.loads(await socket.recv()))
    return events


async def test_every_event_on_the_socket_is_as_described(edge: Edge) -> None:
    """What the document allows to send is understood; what comes is one of its messages."""
    told = await document(edge)
    edge.backend.generate = slow_then_end
    sent = messages(told, "clientEvents")
    assert set(sent) == set(CLIENT_EVENTS)
    headers = {"authorization": f"Bearer {edge.account.secret}"}
    url = f"{edge.base_url.replace('http', 'ws', 1)}/responses"
    async with connect(url, additional_headers=headers) as socket:
        for example in EXAMPLES:
            valid = validator(told, sent[example["type"]]["payload"]).is_valid(example)
            assert valid is ("surprise" not in example)
            await socket.send(json.dumps(example))
        events = await heard(
            socket, {"session.started", "response.function_call_arguments.done", "error"}
        )
        running = next(event["response"]["id"] for event in events if event.get("stream_id") == "b")
        await socket.send(json.dumps({"type": "response.cancel", "response_id": running}))
        events += await heard(socket, {"response.incomplete"})
    known = {
        kind: validator(told, message["payload"])
        for message in messages(told, SERVER_EVENTS).values()
        for kind in kinds(resolved(told, message["payload"]))
    }
    for event in events:
        known[event["type"]].validate(event)
    assert {event["type"] for event in events} >= {"session.started", "error"}


def kinds(schema: Any) -> list[str]:
    kind = schema["properties"]["type"]
    return list(kind["enum"]) if "enum" in kind else [kind["const"]]


@pytest.fixture
async def guarded(servers: Stack, start_edge: StartEdge) -> Edge:
    """An edge that answers the auth callout."""
    return await start_edge(auth_callout_seed=servers.secrets["auth_callout_seed"])


async def test_frames_and_states_are_as_described(servers: Stack, guarded: Edge) -> None:
    """What a publisher hears and is answered satisfies the document's schemas."""
    told = await document(guarded)
    said = asyncio.Event()
    tenant = guarded.account.tenant.tenant

    async def generate(backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        for n in range(3):
            await backend.delta(job, run, n, f"{n} ")
        await backend.broker.client.flush()
        said.set()
        await backend.cancelled(job)
        await backend.end(job, run, ["0 ", "1 ", "2 "])

    guarded.backend.generate = generate
    client = await nats.connect(
        servers.addresses["nats_url"].rpartition("@")[2],
        token=guarded.account.secret,
        inbox_prefix=subjects.inbox_prefix(tenant),
        allow_reconnect=False,
    )
    async with guarded.client() as sdk:
        made = await sdk.responses.create(input="x", background=True)
    request_id = str(made.id).removeprefix("resp_")
    frames = await client.subscribe(f"v1.{tenant}.responses.*")
    await client.flush()
    await said.wait()
    states = messages(told, "get")
    assert set(states) == {"RequestGet"}
    replies = {
        name: validator(told, message["payload"])
        for name, message in told["components"]["messages"].items()
        if name in {"RequestState", "ErrorReply", "FinalFrame"}
    }
    running = await ask(client, tenant, request_id, -1)
    assert len(running["deltas"]) == 3
    replies["RequestState"].validate(running)
    replies["ErrorReply"].validate(await ask(client, tenant, "nonsense", -1))
    command = {"t": "cancel"}
    validator(told, messages(told, "control")["Cancel"]["payload"]).validate(command)
    canonical = f"v1.{tenant}.control.{running['request_id']}"
    await client.publish(canonical, json.dumps(command).encode())
    final = json.loads((await frames.next_msg(timeout=10)).data)
    while final["t"] != "final":
        final = json.loads((await frames.next_msg(timeout=10)).data)
    replies["FinalFrame"].validate(final)
    replies["RequestState"].validate(await ask(client, tenant, request_id, 1))
    await client.close()
