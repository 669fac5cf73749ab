"""What clients say of answers: once, of their own, of what has ended (I2, I8)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import nats
import nats.errors
import openai
import pytest
from nats.aio.client import Client
from tests.support.realtime import Account, Edge, StartEdge, add_account
from tests.support.realtime_backend import Backend, new_run, until_cancelled
from tests.support.response_store import ResponseStore, purge_events
from tests.support.stack import Stack

from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import Role
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import StoredMessage


async def give(http: httpx.AsyncClient, answer_id: str, score: Any) -> httpx.Response:
    return await http.post(f"responses/{answer_id}/feedback", json={"score": score})


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def recorded(edge: Edge, answer_id: str) -> StoredMessage | None:
    request_id = parse_request_id(answer_id.removeprefix("chatcmpl-"))
    subject = subjects.feedback_event(edge.account.tenant.tenant, request_id)
    return await edge.broker.last_message(EVENTS, subject)


async def known(edge: Edge, secret: str) -> None:
    """Wait until the edge has heard of a key."""
    async with edge.http(secret) as http, asyncio.timeout(5):
        while (await http.get("models")).status_code != 200:
            await asyncio.sleep(0.02)


async def test_the_sdk_says_how_good_an_answer_was(edge: Edge) -> None:
    """One fact with who gave it and of which attempt; repeated the same, never replaced (I2)."""
    async with edge.client() as client:
        made = await client.responses.create(input="good?")
        place = f"/responses/{made.id}/feedback"
        told = await client.post(place, body={"score": 0.75}, cast_to=dict[str, object])
        again = await client.post(place, body={"score": 0.75}, cast_to=dict[str, object])
        with pytest.raises(openai.ConflictError, match=r"its score is 0\.75") as conflict:
            await client.post(place, body={"score": 1}, cast_to=dict[str, object])
    assert conflict.value.code == "feedback_exists"
    assert told == again
    assert isinstance(told["created_at"], int)
    assert told == {
        "object": "response.feedback",
        "response_id": made.id,
        "score": 0.75,
        "created_at": told["created_at"],
    }
    message = await recorded(edge, made.id)
    assert message is not None
    fact = ResponseFeedback.model_validate_json(message.data)
    assert message.event_id == f"{fact.request_id}/feedback"
    assert (message.event_type, fact.tenant) == (fact.TYPE, edge.account.tenant.tenant)
    assert (fact.key_id, fact.model) == (edge.account.record.key_id, "echo")
    assert (fact.attempt, fact.score) == (1, 0.75)


async def test_a_chat_completion_is_judged_by_its_own_id(edge: Edge) -> None:
    """Which is never retrieved: nothing is told but that it is the caller's (I8)."""
    async with edge.client() as client, edge.http() as http:
        made = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "hi"}], store=False
        )
        told = await give(http, made.id, 0)
    assert (told.status_code, told.json()["score"]) == (200, 0)
    assert told.json()["response_id"].removeprefix("resp_") == made.id.removeprefix("chatcmpl-")
    assert await recorded(edge, made.id) is not None


BODIES = {
    b"": "invalid_json",
    b"[]": "invalid_json",
    b"{}": "missing_required_parameter",
    b'{"score":null}': "invalid_type",
    b'{"score":true}': "invalid_type",
    b'{"score":"1"}': "invalid_type",
    b'{"score":1.01}': "invalid_value",
    b'{"score":-1}': "invalid_value",
    b'{"score":NaN}': "invalid_json",
    b'{"score":1,"why":"x"}': "unknown_parameter",
    b'{"score":1' + b" " * 2000 + b"}": "body_too_large",
}


async def test_a_score_is_a_number_from_0_to_1(edge: Edge) -> None:
    """Anything else is refused before the log is asked, and states nothing."""
    async with edge.client() as client, edge.http() as http:
        made = await client.responses.create(input="x")
        for body, code in BODIES.items():
            answer = await http.post(f"responses/{made.id}/feedback", content=body)
            assert refused(answer) == (413 if code == "body_too_large" else 400, code)
    assert await recorded(edge, made.id) is None


async def test_only_its_own_tenant_judges_a_response(edge: Edge) -> None:
    """Another tenant's, a deleted and an unknown one look alike; a reader may not (I8)."""
    tenant = edge.account.tenant.tenant
    stranger = await edge.add_account(f"{tenant}-x")
    reader = await add_account(edge.broker, tenant, role=Role.READ_ONLY)
    async with edge.client() as client, edge.http() as http:
        mine = (await client.responses.create(input="x")).id
        deleted = (await client.responses.create(input="x")).id
        await client.responses.delete(deleted)
        for secret in (stranger.secret, reader.secret):
            await known(edge, secret)
        async with edge.http(stranger.secret) as other, edge.http(reader.secret) as reading:
            assert refused(await give(other, mine, 1)) == (404, "response_not_found")
            assert refused(await give(reading, mine, 1)) == (403, "insufficient_permissions")
        assert refused(await give(http, deleted, 1)) == (404, "response_not_found")
        unknown = await give(http, f"resp_{'0' * 31}1", 1)
        assert refused(unknown) == (404, "response_not_found")
        assert refused(await give(http, "nonsense", 1)) == (400, "invalid_request_id")
        assert await recorded(edge, mine) is None
        assert (await give(http, mine, 1)).status_code == 200


async def test_what_runs_or_said_nothing_is_not_judged(edge: Edge) -> None:
    """The one may be later; the other never: failed, or a vector, which has no deltas."""
    edge.backend.generate = until_cancelled

    said: list[str] = []

    async def broken(backend: Backend, job: Job, _: str) -> None:
        error = PenstockError("It broke.", code="broken").body()
        await backend.end(job, new_run(), said, status=Status.FAILED, reason="error", error=error)

    async with edge.http() as http:
        made = await http.post("responses", json={"input": "x", "background": True})
        running = made.json()["id"]
        assert refused(await give(http, running, 1)) == (409, "response_not_ended")
        await http.post(f"responses/{running}/cancel")
        assert (await give(http, running, 0.5)).status_code == 200  # of what was said until then
        edge.backend.generate = broken
        for said[:] in (
            [],
            ["half an ", "answer"],
        ):  # its failure is counted without anybody's word
            failed = (await http.post("responses", json={"input": "x"})).json()["id"]
            assert refused(await give(http, failed, 0)) == (400, "no_answer")


async def test_of_many_at_once_one_stands(edge: Edge) -> None:
    """Two scores, twenty times, side by side: whoever is told 200 was told what stands (I2)."""
    async with edge.client() as client, edge.http() as http:
        made = await client.responses.create(input="x")
        answers = await asyncio.gather(*(give(http, made.id, n % 2) for n in range(20)))
        standing = await give(http, made.id, 0)
    scores = {answer.json()["score"] for answer in answers if answer.status_code == 200}
    assert {answer.status_code for answer in answers} == {200, 409}
    assert len(scores) == 1
    assert (standing.status_code == 200) == (scores == {0})


async def test_it_counts_as_a_request(start_edge: StartEdge) -> None:
    """Understood or not; and tells how the limits stand."""
    edge = await start_edge(per_minute=3)
    async with edge.client() as client, edge.http() as http:
        made = await client.responses.create(input="x")
        given = await give(http, made.id, 1)
        await give(http, made.id, "much")
        over = await give(http, made.id, 1)
    assert given.headers["x-ratelimit-remaining-requests"] == "1"
    assert refused(over) == (429, "rate_limit_exceeded")
    assert int(over.headers["retry-after"]) > 0


async def test_an_answer_older_than_the_event_log(start_edge: StartEdge, postgres_dsn: str) -> None:
    """How it ended stands in the store; what was said of it before the log forgot is forgotten."""
    edge = await start_edge(postgres_dsn=postgres_dsn)
    async with edge.client() as client, edge.http() as http:
        made = await client.responses.create(input="x")
        await ResponseStore(postgres_dsn).whole(1)
        await purge_events(edge.broker, edge.account.tenant.tenant, made.id)
        assert (await give(http, made.id, 1)).status_code == 200
    assert await recorded(edge, made.id) is not None


@pytest.fixture
async def guarded(servers: Stack, start_edge: StartEdge) -> Edge:
    """An edge that answers the auth callout."""
    return await start_edge(auth_callout_seed=servers.secrets["auth_callout_seed"])


async def connect(servers: Stack, account: Account) -> Client:
    return await nats.connect(
        servers.addresses["nats_url"].rpartition("@")[2],
        token=account.secret,
        inbox_prefix=subjects.inbox_prefix(account.tenant.tenant),
        allow_reconnect=False,
    )


async def test_over_nats_the_same(servers: Stack, guarded: Edge) -> None:
    """By whoever may write, about its own, under the tenant's limits (I8)."""
    tenant = guarded.account.tenant.tenant
    limited = await guarded.add_account(f"{tenant}l", 1)
    reader = await add_account(guarded.broker, tenant, role=Role.READ_ONLY)
    async with guarded.client() as client:
        made = await client.responses.create(input="x")

    async def ask(client: Client, account: Account, **given: Any) -> dict[str, Any]:
        subject = subjects.request_feedback(account.tenant.tenant)
        told = (await client.request(subject, json.dumps(given).encode(), timeout=5)).data
        answer: dict[str, Any] = json.loads(told)
        return answer

    mine, theirs, reading = [
        await connect(servers, account) for account in (guarded.account, limited, reader)
    ]
    given = await ask(mine, guarded.account, request_id=made.id, score=0.5)
    assert given == await ask(mine, guarded.account, request_id=made.id, score=0.5)
    assert (given["request_id"], given["score"]) == (parse_request_id(made.id), 0.5)
    message = await recorded(guarded, made.id)
    assert message is not None
    assert ResponseFeedback.model_validate_json(message.data).key_id == "nats"
    for wrong, code in (
        ({"request_id": made.id, "score": 1}, "feedback_exists"),
        ({"request_id": made.id, "score": "1"}, "invalid_type"),
        ({"request_id": 17, "score": 1}, "invalid_type"),
        ({"request_id": "x", "score": 1}, "invalid_request_id"),
        ({"score": 1}, "missing_required_parameter"),
    ):
        assert (await ask(mine, guarded.account, **wrong))["error"]["code"] == code
    for code in ("response_not_found", "rate_limit_exceeded"):
        foreign = await ask(theirs, limited, request_id=made.id, score=1)
        assert foreign["error"]["code"] == code
    with pytest.raises(nats.errors.TimeoutError):
        await reading.request(subjects.request_feedback(tenant), b"{}", timeout=0.5)
    for connection in (mine, theirs, reading):
        await connection.close()
