"""A publisher that lost its subscription continues by number (ADR 0011; I6, I8)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from tests.support.publisher import RUN_NUMBERS, Answer, ask, catch_up, follow
from tests.support.realtime import Edge, StartEdge
from tests.support.realtime_backend import Backend, new_run
from tests.support.stack import Stack
from tests.support.tcp_proxy import TcpProxy

from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.streams import RESPONSES


@pytest.fixture
async def guarded(servers: Stack, start_edge: StartEdge) -> Edge:
    """An edge that answers the auth callout."""
    return await start_edge(auth_callout_seed=servers.secrets["auth_callout_seed"])


def address(servers: Stack) -> tuple[str, int]:
    host, _, port = servers.addresses["nats_url"].rpartition("@")[2].partition(":")
    return host, int(port)


async def connect(edge: Edge, port: int) -> Client:
    return await nats.connect(
        f"nats://127.0.0.1:{port}",
        token=edge.account.secret,
        inbox_prefix=subjects.inbox_prefix(edge.account.tenant.tenant),
        allow_reconnect=False,
    )


async def begin(edge: Edge) -> str:
    async with edge.client() as client:
        made = await client.responses.create(input="x", background=True)
    return str(made.id).removeprefix("resp_")


async def test_a_connection_that_is_cut_in_mid_stream_costs_no_delta(
    servers: Stack, guarded: Edge
) -> None:
    """Cut again and again; each next client has the exact text, delta by delta (I6)."""
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED", "20261121"))
    print("seed", seed)
    rng = random.Random(seed)
    pieces = [f"{n} zwölf €{'é' * rng.randrange(3)} " for n in range(400)]

    async def generate(backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        for n, piece in enumerate(pieces):
            await backend.delta(job, run, n, piece)
            if n % 10 == 0:
                await asyncio.sleep(0.01)
        await backend.end(job, run, pieces)

    guarded.backend.generate = generate
    tenant, answer, cuts = guarded.account.tenant.tenant, Answer(), 0
    async with asyncio.timeout(60), TcpProxy(*address(servers)) as proxy:
        request_id = await begin(guarded)
        while answer.final is None:
            client = await connect(guarded, proxy.port)
            following = asyncio.create_task(follow(client, tenant, request_id, answer))
            await asyncio.wait({following}, timeout=0.02 + rng.random() / 10)
            if not following.done():
                await proxy.cut()
                cuts += 1
                following.cancel()
                await proxy.mend()
            with contextlib.suppress(asyncio.CancelledError, nats.errors.Error):
                await following
            await client.close()
    expected = ["".join(pieces[: n + 1]) for n in range(len(pieces))]
    assert cuts >= 2
    assert answer.told == expected[: len(answer.told)], "each step is the worker's own text"
    assert answer.final["text"] == expected[-1]
    assert answer.final["text"].startswith(answer.text)


async def test_long_answers_come_in_several_replies(servers: Stack, guarded: Edge) -> None:
    """A reply is bounded in size; the next question begins where it ended."""
    pieces = [f"{n:05d}" * 200 for n in range(900)]
    said = asyncio.Event()

    async def generate(backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        for n, piece in enumerate(pieces):
            await backend.delta(job, run, n, piece)
        await backend.broker.client.flush()
        said.set()
        await backend.cancelled(job)

    guarded.backend.generate = generate
    client = await connect(guarded, address(servers)[1])
    tenant, request_id, answer = guarded.account.tenant.tenant, await begin(guarded), Answer()
    await said.wait()
    first = await ask(client, tenant, request_id, -1)
    assert first["more"]
    assert 0 < len(first["deltas"]) < len(pieces)
    await catch_up(client, tenant, request_id, answer)
    assert answer.text == "".join(pieces)
    nothing = await ask(client, tenant, request_id, len(pieces) - 1)
    assert (nothing["deltas"], nothing["more"], nothing["status"]) == ([], False, "in_progress")
    await client.close()


async def test_another_run_begins_the_text_anew(servers: Stack, guarded: Edge) -> None:
    """After a worker's crash the successor repeats what was shown, in its first delta."""
    said = asyncio.Event()

    async def generate(backend: Backend, job: Job, _: str) -> None:
        first, second = new_run(), new_run()
        await backend.delta(job, first, 0, "Hel")
        await backend.delta(job, first, 1, "lo ")
        await backend.delta(job, second, RUN_NUMBERS, "Hello ")
        await backend.delta(job, second, RUN_NUMBERS + 1, "world")
        await backend.delta(job, first, 2, "zombie")
        await backend.broker.client.flush()
        said.set()
        await backend.cancelled(job)

    guarded.backend.generate = generate
    client = await connect(guarded, address(servers)[1])
    tenant, request_id = guarded.account.tenant.tenant, await begin(guarded)
    await said.wait()
    for known in (Answer(), Answer("Hel", 0), Answer("Hello ", 1)):
        await catch_up(client, tenant, request_id, known)
        assert (known.text, known.last) == ("Hello world", RUN_NUMBERS + 1)
    await client.close()


async def test_what_has_expired_shows_by_its_numbers(servers: Stack, guarded: Edge) -> None:
    """The first delta that is left has its own number: the gap is explicit (I6)."""
    said = asyncio.Event()

    async def generate(backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        for n in range(4):
            await backend.delta(job, run, n, str(n))
        await backend.broker.client.flush()
        said.set()
        await backend.cancelled(job)

    guarded.backend.generate = generate
    client = await connect(guarded, address(servers)[1])
    tenant, request_id = guarded.account.tenant.tenant, await begin(guarded)
    await said.wait()
    kept = await guarded.broker.jetstream.stream_info(RESPONSES)
    await guarded.broker.jetstream.purge_stream(RESPONSES, seq=kept.state.last_seq)
    state = await ask(client, tenant, request_id, 0)
    assert [frame["n"] for frame in state["deltas"]] == [3]
    assert not Answer("0", 0).take(state["deltas"][0])
    await client.close()


@pytest.mark.parametrize(
    ("question", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"{}", "missing_required_parameter", "request_id"),
        (b'{"request_id":"x"}', "invalid_request_id", None),
        (b'{"request_id":"x","after_delta":-2}', "invalid_value", "after_delta"),
        (b'{"request_id":"x","after_delta":"1"}', "invalid_type", "after_delta"),
        (b'{"request_id":"x","surprise":1}', "unknown_parameter", "surprise"),
    ],
)
async def test_a_bad_question_is_answered_as_over_http(
    servers: Stack, guarded: Edge, question: bytes, code: str, param: str | None
) -> None:
    """The API's error format, with its codes, naming the field."""
    client = await connect(guarded, address(servers)[1])
    subject = subjects.request_get(guarded.account.tenant.tenant)
    reply = await client.request(subject, question, timeout=5)
    error = json.loads(reply.data)["error"]
    assert (error["code"], error["param"]) == (code, param)
    await client.close()


async def test_questions_are_limited(servers: Stack, guarded: Edge) -> None:
    """Past its bound a tenant is told to come back; another tenant is answered."""
    other = await guarded.add_account(f"{guarded.account.tenant.tenant}b")
    client = await connect(guarded, address(servers)[1])
    tenant = guarded.account.tenant.tenant
    question = json.dumps({"request_id": "0190e0f0-0000-7000-8000-000000000000", "after_delta": 0})
    replies = await asyncio.gather(
        *(
            client.request(subjects.request_get(tenant), question.encode(), timeout=20)
            for _ in range(650)
        )
    )
    codes = [json.loads(reply.data)["error"]["code"] for reply in replies]
    assert set(codes) == {"response_not_found", "rate_limit_exceeded"}
    await client.close()
    theirs = await nats.connect(
        f"nats://127.0.0.1:{address(servers)[1]}",
        token=other.secret,
        inbox_prefix=subjects.inbox_prefix(other.tenant.tenant),
    )
    answered = await theirs.request(
        subjects.request_get(other.tenant.tenant), question.encode(), timeout=5
    )
    assert json.loads(answered.data)["error"]["code"] == "response_not_found"
    await theirs.close()
