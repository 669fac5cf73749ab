"""Sessions in Redis: one hash each, that expires; a sorted set of who else follows a response.

Scripts touch two keys, so they ask for one Redis or Valkey, not for a cluster of several. All that
is kept are ids and numbers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock_realtime.ports import Heartbeat, RunningResponse, SessionState
from penstock_shared.contracts.errors import UnavailableError

_INSTANCES: Final = "penstock:instances"
"""Sorted set: instance to its last heartbeat, in milliseconds of Redis's own clock."""

_CLAIM: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local before = redis.call('HGET', KEYS[1], 'holder')
redis.call('HINCRBY', KEYS[1], 'term', 1)
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {before, redis.call('HGETALL', KEYS[1])}
"""
_FORGET: Final = """
redis.call('SREM', KEYS[2], ARGV[2])
if tonumber(redis.call('HGET', KEYS[1], 'term') or 0) <= tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
end
"""
_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
_FOLLOW: Final = f"""{_NOW}
if ARGV[3] == '0' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2])))
"""
_FOLLOWERS: Final = f"""{_NOW}
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
"""
_BEAT: Final = f"""{_NOW}
local fresh = redis.call('ZADD', KEYS[1], now, ARGV[1])
local late = now - tonumber(ARGV[2])
return {{fresh, now, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', late, 'WITHSCORES')}}
"""


class RedisSessions:
    """`SessionStore` and `InstanceRegistry` over Redis (`decode_responses` on)."""

    def __init__(self, redis: Redis, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        put = files("penstock_realtime.adapters").joinpath("redis_sessions.lua").read_text()
        self._put = redis.register_script(put)
        self._claim = redis.register_script(_CLAIM)
        self._forget = redis.register_script(_FORGET)
        self._follow = redis.register_script(_FOLLOW)
        self._followers = redis.register_script(_FOLLOWERS)
        self._beat = redis.register_script(_BEAT)

    async def put(self, states: Sequence[tuple[SessionState, float]]) -> Sequence[SessionState]:
        """Write sessions in one round trip; returns those that were refused."""
        async with self._exchange():
            pipeline = self._redis.pipeline(transaction=False)
            for state, ttl_s in states:
                keys, name = _keys(state), _name(state)
                fields = (state.term, state.holder, state.policy, _running(state))
                args = (*fields, _ms(ttl_s), name, int(bool(state.cancellable)))
                await self._put(keys, args, client=pipeline)
            written = await pipeline.execute()
        return [state for (state, _), done in zip(states, written, strict=True) if not done]

    async def claim(
        self, tenant: str, session_id: str, holder: str, ttl_s: float
    ) -> tuple[SessionState, str] | None:
        """Take a session over, in a new term."""
        async with self._exchange():
            found = await self._claim([_session(tenant, session_id)], [holder, _ms(ttl_s)])
        if found is None:
            return None
        before, flat = found
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return _state(tenant, session_id, fields), before

    async def read(self, tenant: str, session_id: str) -> SessionState | None:
        """A session as it was last written."""
        async with self._exchange():
            fields: Any = await self._redis.hgetall(_session(tenant, session_id))
        return _state(tenant, session_id, fields) if fields else None

    async def forget(self, state: SessionState) -> None:
        """Delete a session, unless somebody has claimed it since."""
        async with self._exchange():
            await self._forget(_keys(state), [state.term, _name(state)])

    async def settle(self, state: SessionState) -> None:
        """Strike it off what its instance holds."""
        async with self._exchange():
            await self._redis.srem(_held(state.instance), _name(state))

    async def follow(self, tenant: str, request_id: str, follower: str, ttl_s: float) -> None:
        """Note who delivers a response."""
        async with self._exchange():
            await self._follow([_followers(tenant, request_id)], [follower, _ms(ttl_s), 1])

    async def unfollow(self, tenant: str, request_id: str, follower: str, within_s: float) -> None:
        """Undo `follow` after so many seconds."""
        async with self._exchange():
            await self._follow([_followers(tenant, request_id)], [follower, _ms(within_s), 0])

    async def followers(self, tenant: str, request_id: str) -> frozenset[str]:
        """Who follows a response."""
        async with self._exchange():
            return frozenset(await self._followers([_followers(tenant, request_id)]))

    async def beat(self, instance: str, silent_after_s: float) -> Heartbeat:
        """Say that this instance lives, and hear who does not."""
        async with self._exchange():
            fresh, now_ms, flat = await self._beat([_INSTANCES], [instance, _ms(silent_after_s)])
        pairs = zip(flat[::2], flat[1::2], strict=True)
        silent = {name: (now_ms - float(beat_ms)) / 1000 for name, beat_ms in pairs}
        return Heartbeat(bool(fresh), silent)

    async def adopt(self, dead: str, instance: str, for_s: float) -> bool:
        """Whether this instance looks after a dead one."""
        async with self._exchange():
            key = f"penstock:adopted:{dead}"
            return bool(await self._redis.set(key, instance, nx=True, px=_ms(for_s)))

    async def held(self, instance: str) -> Sequence[tuple[str, str]]:
        """The sessions that an instance held with something to cancel in them."""
        async with self._exchange():
            names: Any = await self._redis.smembers(_held(instance))
        return [(tenant, session_id) for tenant, _, session_id in (n.partition(" ") for n in names)]

    async def bury(self, dead: str) -> None:
        """All that it held is dealt with."""
        async with self._exchange():
            await self._redis.delete(_held(dead))
            await self._redis.zrem(_INSTANCES, dead)

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (RedisError, TimeoutError, OSError) as error:
            msg = "The store of sessions does not answer: try again in a moment."
            raise UnavailableError(msg, code="sessions_unavailable") from error


def _session(tenant: str, session_id: str) -> str:
    return f"penstock:session:{tenant}:{session_id}"


def _held(instance: str) -> str:
    return f"penstock:held:{instance}"


def _followers(tenant: str, request_id: str) -> str:
    return f"penstock:followers:{tenant}:{request_id}"


def _keys(state: SessionState) -> list[str]:
    return [_session(state.tenant, state.session_id), _held(state.instance)]


def _name(state: SessionState) -> str:
    return f"{state.tenant} {state.session_id}"


def _running(state: SessionState) -> str:
    return json.dumps({id_: [r.stream_id, r.kept] for id_, r in state.responses.items()})


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _state(tenant: str, session_id: str, fields: Mapping[str, str]) -> SessionState:
    running = {
        request_id: RunningResponse(stream_id, kept)
        for request_id, (stream_id, kept) in json.loads(fields["responses"]).items()
    }
    return SessionState(
        tenant, session_id, fields["holder"], int(fields["term"]), fields["policy"], running
    )
