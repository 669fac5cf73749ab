"""What an instance keeps of its sockets' sessions, and what it tells the store of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_realtime.adapters.memory_sessions import MemorySessions
from penstock_realtime.http.sockets import Patience, Sockets
from penstock_realtime.http.websocket_protocol import WIRE
from penstock_realtime.ports import SessionState
from penstock_realtime.serving.orphans import Orphans
from penstock_realtime.serving.sessions import Session, Sessions, Terms
from penstock_shared.runtime.clock import IdSource, SystemClock

TENANT, RESPONSE = "acme", "r"
GRACE_S = 0.2


class Router:
    """The event log, which knows nothing yet of what is on its way, and the commands."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    async def last_fact(self, _: str, __: str) -> None:
        return None

    async def cancel(self, _: str, request_id: str) -> None:
        self.cancelled.append(request_id)


class Alone:
    """`Peers` without any."""

    async def tell_taken(self, _: SessionState) -> None:
        await asyncio.sleep(0)

    async def answers(self, _: str) -> bool:
        return False


class Held(MemorySessions):
    """The answers to claims arrive when the test says so."""

    def __init__(self) -> None:
        super().__init__(SystemClock().monotonic_s)
        self.gates: list[asyncio.Event] = []

    async def claim(self, *given: Any) -> tuple[SessionState, str] | None:
        answer = await super().claim(*given)
        if self.gates:
            await self.gates.pop(0).wait()
        return answer


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def store() -> Held:
    return Held()


@pytest.fixture
async def sessions(router: Router, store: Held) -> AsyncIterator[Sessions]:
    lookup: Any = SimpleNamespace(sources=SimpleNamespace(facts=router), commands=router)
    orphans = Orphans(lookup, store, GRACE_S)
    ids = IdSource(SystemClock())
    terms = Terms(GRACE_S, 5.0)
    found = Sessions(store, Alone(), orphans, ids, instance="here", terms=terms)
    found.start()
    yield found
    await found.stop()
    await orphans.stop()


def opened(sessions: Sessions) -> Session:
    return sessions.open(TENANT, "block", lambda: None)


async def settled() -> None:
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["left", "lost", "taken"])
async def test_whoever_is_gone_follows_no_more(sessions: Sessions, store: Held, how: str) -> None:
    """However its socket ended; and what it followed is not told to the store for ever."""
    session = opened(sessions)
    sessions.follow(TENANT, RESPONSE, session.session_id)
    await settled()
    assert await store.followers(TENANT, RESPONSE) == {session.holder}
    if how == "left":
        await sessions.left(session)
    elif how == "lost":
        sessions.lost(session)
    else:
        sessions.on_taken(SessionState(TENANT, session.session_id, "there/1", 2, "block", {}))
    await asyncio.sleep(GRACE_S + 0.1)
    await sessions.rewrite()
    assert await store.followers(TENANT, RESPONSE) == frozenset()


async def test_one_of_two_followers_goes(sessions: Sessions, store: Held) -> None:
    """The other one still keeps the response from being cancelled."""
    sessions.follow(TENANT, RESPONSE, "http-1")
    sessions.follow(TENANT, RESPONSE, "http-2")
    sessions.unfollow(TENANT, RESPONSE, "http-2")
    await settled()
    assert await store.followers(TENANT, RESPONSE) == {"http-1"}


async def test_two_resume_at_once(sessions: Sessions, store: Held, router: Router) -> None:
    """The later term holds the session, also if the earlier one's answer comes after it."""
    session = opened(sessions)
    sessions.started(session, RESPONSE)
    sessions.lost(session)
    await settled()
    gate = asyncio.Event()
    store.gates = [gate]
    told: list[str] = []
    older = asyncio.create_task(
        sessions.resume(TENANT, session.session_id, lambda: told.append("older"))
    )
    await settled()
    newer = await sessions.resume(TENANT, session.session_id, lambda: told.append("newer"))
    gate.set()
    assert (await older).term < newer.term
    await settled()
    assert told == ["older"]
    sessions.lost(newer)  # it is the one that counts: what runs in it has the grace
    await asyncio.sleep(GRACE_S + 0.1)
    assert router.cancelled == [RESPONSE]


async def test_closed_on_purpose_in_the_middle_of_admission(
    sessions: Sessions, router: Router
) -> None:
    """A request that no fact is known of yet may be accepted a moment later: it is cancelled."""
    session = opened(sessions)
    sessions.started(session, RESPONSE)
    await sessions.left(session)
    await settled()
    assert router.cancelled == [RESPONSE]


async def test_a_peer_that_goes_before_it_is_accepted(sessions: Sessions) -> None:
    """Accepting fails then, and nothing stays behind."""
    tenant = SimpleNamespace(tenant=TENANT)
    caller = SimpleNamespace(tenant=tenant, require=lambda _: None, expires_at=None)
    counted: list[int] = []

    async def identify(_: str) -> Any:
        return caller

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(_: Any) -> None:
        raise RuntimeError("The connection is gone.")

    services: Any = SimpleNamespace(sessions=sessions, buffer_bytes=1)
    sockets = Sockets(
        SimpleNamespace(identify=identify),  # type: ignore[arg-type]
        SimpleNamespace(enter=lambda *_: counted.append(1), leave=lambda *_: counted.append(-1)),  # type: ignore[arg-type]
        services,
        Patience(1.0, 1.0, 1.0),
        SystemClock(),
    )
    scope = {
        "type": "websocket",
        "state": {"address": "192.0.2.1"},
        "headers": [(b"authorization", b"Bearer key")],
        "extensions": {WIRE: None},
    }
    with pytest.raises(RuntimeError):
        await sockets(scope, receive, send)
    assert sum(counted) == 0
    assert sessions._open == {}
