"""The contract of the session stores, Redis' and the one in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from penstock_realtime.adapters.memory_sessions import MemorySessions
from penstock_realtime.adapters.redis_sessions import RedisSessions
from penstock_realtime.ports import RunningResponse, SessionState, SessionStore
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.clock import IdSource, SystemClock

IDS = IdSource(SystemClock())
RUNNING = {"r1": RunningResponse("lane", kept=False), "r2": RunningResponse(None, kept=True)}


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(params=["redis", "memory"])
def store(request: pytest.FixtureRequest, redis: Redis) -> SessionStore:
    if request.param == "redis":
        return RedisSessions(redis, 2.0)
    return MemorySessions(SystemClock().monotonic_s)


def session(**given: object) -> SessionState:
    fields = {
        "tenant": f"t{os.urandom(4).hex()}",
        "session_id": IDS.new(),
        "holder": f"{IDS.new()}/1",
        "term": 1,
        "policy": "block",
        "responses": RUNNING,
        **given,
    }
    return SessionState(**fields)  # type: ignore[arg-type]


async def test_what_was_put_is_read(store: SessionStore) -> None:
    """Whole, and nothing but for its own tenant (I8)."""
    state = session()
    assert await store.put([(state, 5)]) == []
    assert await store.read(state.tenant, state.session_id) == state
    assert await store.read("other", state.session_id) is None
    assert await store.claim("other", state.session_id, "x/1", 5) is None


async def test_the_later_term_wins(store: SessionStore) -> None:
    """An earlier holder's writes, whatever they are, change nothing."""
    old = session()
    await store.put([(old, 5)])
    claimed = await store.claim(old.tenant, old.session_id, "new/1", 5)
    assert claimed is not None
    new, before = claimed
    assert (new, before) == (replace(old, holder="new/1", term=2), old.holder)
    late = replace(old, responses={})
    assert await store.put([(late, 5)]) == [late]
    await store.forget(old)
    await store.settle(old)
    assert await store.read(old.tenant, old.session_id) == new
    await store.forget(new)
    assert await store.read(old.tenant, old.session_id) is None


async def test_it_expires(store: SessionStore) -> None:
    """A session lives for as long as its last writer said."""
    state = session()
    await store.put([(state, 5)])
    await store.put([(state, 0.05)])
    await asyncio.sleep(0.1)
    assert await store.claim(state.tenant, state.session_id, "x/1", 5) is None


async def test_all_who_follow(store: SessionStore) -> None:
    """Each for as long as it said; one that goes takes no other along."""
    tenant = f"t{os.urandom(4).hex()}"
    assert await store.followers(tenant, "r") == frozenset()
    await store.follow(tenant, "r", "one", 5)
    await store.follow(tenant, "r", "two", 5)
    await store.unfollow(tenant, "r", "two", 0)
    await store.unfollow(tenant, "r", "never there", 5)
    await asyncio.sleep(0.01)
    assert await store.followers(tenant, "r") == {"one"}
    assert await store.followers("other", "r") == frozenset()
    await store.unfollow(tenant, "r", "one", 0.1)
    assert await store.followers(tenant, "r") == {"one"}
    await asyncio.sleep(0.15)
    assert await store.followers(tenant, "r") == frozenset()


async def test_what_an_instance_holds(redis: Redis) -> None:
    """Only sessions with something to cancel, until they are settled, forgotten or taken."""
    store, instance = RedisSessions(redis, 2.0), IDS.new()
    holder = f"{instance}/1"
    idle = session(holder=holder, responses={"r2": RUNNING["r2"]})
    settled, forgotten, taken, ended, stays = (session(holder=holder) for _ in range(5))
    states = [idle, settled, forgotten, taken, ended, stays]
    await store.put([(state, 5) for state in states])
    await store.settle(settled)
    await store.forget(forgotten)
    await store.claim(taken.tenant, taken.session_id, "other/1", 5)
    assert await store.put([(taken, 5), (replace(ended, responses={}), 5)]) == [taken]
    assert await store.held(instance) == [(stays.tenant, stays.session_id)]


async def test_who_is_silent(redis: Redis) -> None:
    """One at a time looks after an instance without heartbeats, until it is buried."""
    store, dead, alive = RedisSessions(redis, 2.0), IDS.new(), IDS.new()
    assert (await store.beat(dead, 5)).forgotten
    assert not (await store.beat(dead, 5)).forgotten
    await asyncio.sleep(0.1)
    heard = await store.beat(alive, 0.05)
    assert 0.1 <= heard.silent[dead] < 5
    assert alive not in heard.silent
    assert await store.adopt(dead, alive, 0.1)
    assert not await store.adopt(dead, "another", 0.1)
    await asyncio.sleep(0.15)
    assert await store.adopt(dead, "another", 0.1)
    await store.bury(dead)
    assert dead not in (await store.beat(alive, 0.05)).silent
    assert (await store.beat(dead, 5)).forgotten
    await store.bury(dead)
    await store.bury(alive)


async def test_redis_away() -> None:
    """Every question ends soon, with an error that says what to do."""
    async with Redis.from_url("redis://127.0.0.1:1/0", decode_responses=True) as client:
        store = RedisSessions(client, 0.5)
        with pytest.raises(UnavailableError) as raised:
            await store.read("t", "s")
    assert raised.value.code == "sessions_unavailable"
