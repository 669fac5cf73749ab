"""Whatever id a tenant names, in whatever spelling, over whatever wire: it reaches its own (I8).

One tenant owns a response that has ended, one that runs, and a session; another one, with a name
that begins like the first one's, tries each operation on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import httpx
import nats
import nats.errors
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from nats.aio.client import Client
from tests.integration.realtime.conftest import start_edge as start_edge  # noqa: PLC0414  a fixture
from tests.support.realtime import Account, Edge, StartEdge
from tests.support.realtime_backend import Backend, echo, until_cancelled
from tests.support.stack import Stack
from websockets.asyncio.client import ClientConnection, connect

from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.streams import EVENTS

SEED: Final = int(os.environ.get("PENSTOCK_FAULT_SEED", "20261121"))
SECRET: Final = "the lighthouse keeper's own words"
RUNNING: Final = "Hel"
"""What `until_cancelled` says before it waits."""
KEY: Final = "a key that both use"


@dataclass
class Victim:
    """What must stay as it is."""

    account: Account
    ended: str
    running: str
    session: str
    socket: ClientConnection

    @property
    def ids(self) -> tuple[str, ...]:
        return self.ended, self.running, self.session


def spellings(bare: str) -> list[str]:
    """Of a UUID: those that Python reads, those that URLs may hide, and wildcards."""
    digits = bare.replace("-", "")
    return [
        bare,
        digits,
        f"resp_{digits}",
        f"resp_resp_{digits}",
        digits.upper(),
        f"{{{bare}}}",
        f"urn:uuid:{bare}",
        f" {bare}",
        f"{bare}\n",
        f"{bare}.x",
        f"../{bare}",
        f"*.{bare}",
        "*",
        ">",
        f"resp_{digits[:-1]}",
        f"chatcmpl-{digits}",
    ]


@pytest.fixture
async def edge(servers: Stack, start_edge: StartEdge) -> Edge:
    """One that answers the auth callout; a prompt that begins with "wait" runs until cancelled."""
    made = await start_edge(
        auth_callout_seed=servers.secrets["auth_callout_seed"], per_minute=10_000_000
    )

    async def generate(backend: Backend, job: Job, prompt: str) -> None:
        await (until_cancelled if prompt.startswith("wait") else echo)(backend, job, prompt)

    made.backend.generate = generate
    return made


async def open_socket(edge: Edge, secret: str) -> ClientConnection:
    url = f"{edge.base_url.replace('http', 'ws', 1)}/responses"
    return await connect(url, additional_headers={"authorization": f"Bearer {secret}"})


async def say(socket: ClientConnection, **event: Any) -> dict[str, Any]:
    """Send one event, and take the next that comes."""
    await socket.send(json.dumps(event))
    async with asyncio.timeout(10):
        answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


async def make_victim(edge: Edge) -> Victim:
    async with edge.http() as http:
        header = {"idempotency-key": KEY}
        ended = await http.post("responses", json={"input": SECRET}, headers=header)
    socket = await open_socket(edge, edge.account.secret)
    started = await say(socket, type="session.start")
    created = await say(socket, type="response.create", input=f"wait, {SECRET}")
    return Victim(
        edge.account,
        parse_request_id(ended.json()["id"]),
        parse_request_id(created["response"]["id"]),
        started["session"]["id"],
        socket,
    )


class Attacker:
    """Another tenant, with everything that a tenant may have. Each try returns what was heard."""

    def __init__(self, edge: Edge, account: Account, bus: Client) -> None:
        self.edge, self.account, self.bus = edge, account, bus
        self.tries: dict[str, Callable[[str], Coroutine[Any, Any, str]]] = {
            "retrieve": lambda id_: self._http("GET", f"responses/{id_}"),
            "stream": lambda id_: self._http("GET", f"responses/{id_}?stream=true"),
            "resume": lambda id_: self._http(
                "GET", f"responses/{id_}?stream=true&starting_after=3"
            ),
            "cancel": lambda id_: self._http("POST", f"responses/{id_}/cancel"),
            "delete": lambda id_: self._http("DELETE", f"responses/{id_}"),
            "continue": lambda id_: self._http(
                "POST", "responses", {"input": "x", "previous_response_id": id_}
            ),
            "socket_resume": lambda id_: self._socket(
                {"type": "response.resume", "response_id": id_}
            ),
            "socket_cancel": lambda id_: self._socket(
                {"type": "response.cancel", "response_id": id_}
            ),
            "socket_continue": lambda id_: self._socket(
                {"type": "response.create", "input": "x", "previous_response_id": id_}
            ),
            "session_resume": lambda id_: self._socket(
                {"type": "session.resume", "session_id": id_}
            ),
            "judge": lambda id_: self._http("POST", f"responses/{id_}/feedback", {"score": 0}),
            "nats_get": lambda id_: self._ask(subjects.request_get, {"request_id": id_}),
            "nats_replay": lambda id_: self._ask(
                subjects.request_get, {"request_id": id_, "after_delta": -1}
            ),
            "nats_judge": lambda id_: self._ask(
                subjects.request_feedback, {"request_id": id_, "score": 0}
            ),
        }

    async def _http(self, method: str, path: str, body: Any = None) -> str:
        async with self.edge.http(self.account.secret) as http:
            try:
                answer = await http.request(method, path, json=body)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol):
                return "the client refuses"
        assert answer.status_code in {400, 404, 405}, (method, path, answer.text)
        return answer.text

    async def _socket(self, event: dict[str, Any]) -> str:
        async with contextlib.AsyncExitStack() as stack:
            socket = await open_socket(self.edge, self.account.secret)
            stack.push_async_callback(socket.close)
            answer = await say(socket, **event)
        assert answer["type"] == "error", (event, answer)
        return json.dumps(answer)

    async def _ask(self, subject_of: Callable[[str], str], question: dict[str, Any]) -> str:
        subject = subject_of(self.account.tenant.tenant)
        reply = await self.bus.request(subject, json.dumps(question).encode(), timeout=10)
        assert "error" in json.loads(reply.data), (question, reply.data)
        return reply.data.decode()


async def make_attacker(servers: Stack, edge: Edge) -> Attacker:
    account = await edge.add_account(f"{edge.account.tenant.tenant}x", 10_000_000)

    async def refused(_: Exception) -> None:
        """What the broker refuses is what is looked for."""

    bus = await nats.connect(
        servers.addresses["nats_url"].rpartition("@")[2],
        token=account.secret,
        inbox_prefix=subjects.inbox_prefix(account.tenant.tenant),
        allow_reconnect=False,
        error_cb=refused,
    )
    return Attacker(edge, account, bus)


async def assert_untouched(edge: Edge, victim: Victim) -> None:
    """Both responses and the session are as they were, and their owner reaches them."""
    judged = subjects.feedback_event(victim.account.tenant.tenant, victim.ended)
    assert await edge.broker.last_message(EVENTS, judged) is None
    async with edge.http() as http:
        ended = (await http.get(f"responses/{victim.ended}")).json()
        running = (await http.get(f"responses/{victim.running}")).json()
    assert ended["output"][0]["content"][0]["text"] == SECRET
    assert running["status"] == "in_progress"
    commands = subjects.control(victim.account.tenant.tenant, victim.running)
    with contextlib.suppress(PenstockError):
        assert await edge.broker.last_message("CONTROL", commands) is None
    again = await open_socket(edge, victim.account.secret)
    resumed = await say(again, type="session.resume", session_id=victim.session)
    assert resumed["type"] == "session.resumed", resumed
    assert [one["response_id"][5:] for one in resumed["responses"]] == [
        victim.running.replace("-", "")
    ]
    await again.close()


async def attempt_all(attacker: Attacker, victim: Victim, examples: int) -> None:
    loop = asyncio.get_running_loop()
    known = [text for bare in victim.ids for text in spellings(bare)]
    near = st.builds(
        lambda id_, place, digit: id_[:place] + digit + id_[place + 1 :],
        st.sampled_from(victim.ids),
        st.integers(0, 35),
        st.sampled_from("0123456789abcdef-"),
    )

    @seed(SEED)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        what=st.sampled_from(sorted(attacker.tries)),
        named=st.one_of(st.sampled_from(known), near, st.uuids().map(str)),
    )
    def attempt(what: str, named: str) -> None:
        work = attacker.tries[what](named)
        heard = asyncio.run_coroutine_threadsafe(work, loop).result(30)
        assert SECRET not in heard, (what, named)
        assert RUNNING not in heard, (what, named)
        assert victim.account.tenant.tenant + '"' not in heard, (what, named)

    await asyncio.to_thread(attempt)


async def isolated(servers: Stack, edge: Edge, examples: int) -> None:
    print("seed", SEED)
    victim = await make_victim(edge)
    attacker = await make_attacker(servers, edge)
    await attempt_all(attacker, victim, examples)
    await assert_untouched(edge, victim)
    await victim.socket.close()
    await attacker.bus.close()


async def test_no_id_leads_to_another_tenants_response(servers: Stack, edge: Edge) -> None:
    """Read, resume, cancel, delete, continue: nothing is seen, nothing changed (I8)."""
    await isolated(servers, edge, 120)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_no_id_leads_to_another_tenants_response_in_depth(servers: Stack, edge: Edge) -> None:
    """The same, thousands of times."""
    await isolated(servers, edge, 10_000)


async def test_the_same_idempotency_key_is_another_request(servers: Stack, edge: Edge) -> None:
    """A key names a request of its own tenant only (I2, I8)."""
    victim = await make_victim(edge)
    attacker = await make_attacker(servers, edge)
    async with edge.http(attacker.account.secret) as http:
        header = {"idempotency-key": KEY}
        mine = (await http.post("responses", json={"input": "mine"}, headers=header)).json()
    assert parse_request_id(mine["id"]) != victim.ended
    assert mine["output"][0]["content"][0]["text"] == "mine"
    await victim.socket.close()
    await attacker.bus.close()


async def test_the_broker_keeps_tenants_apart(servers: Stack, edge: Edge) -> None:
    """No subscription hears another's frames, no command reaches another's request (I8)."""
    victim = await make_victim(edge)
    attacker = await make_attacker(servers, edge)
    tenant, bus = victim.account.tenant.tenant, attacker.bus
    heard: list[bytes] = []

    async def hear(msg: Any) -> None:
        heard.append(msg.data)

    for subject in (
        subjects.responses(tenant, victim.running),
        f"v1.{tenant}.responses.*",
        "v1.*.responses.*",
        f"v1.{tenant}.>",
        f"{subjects.inbox_prefix(tenant)}.>",
        ">",
    ):
        await bus.subscribe(subject, cb=hear)
    await bus.publish(subjects.control(tenant, victim.running), b'{"t":"cancel"}')
    await bus.publish(subjects.responses(tenant, victim.running), b'{"t":"final"}')
    # Its own control subject may name any id, but that is no request of its own.
    await bus.publish(
        subjects.control(attacker.account.tenant.tenant, victim.running), b'{"t":"cancel"}'
    )
    for question in (subjects.request_get(tenant), subjects.request_feedback(tenant)):
        with pytest.raises(nats.errors.TimeoutError):
            await bus.request(question, b"{}", timeout=0.5)
    async with edge.http() as http:
        await http.post("responses", json={"input": SECRET})
    await assert_untouched(edge, victim)
    assert not heard
    await victim.socket.close()
    await bus.close()
