"""Rate limits on a real Redis: exact, all or nothing, and of no harm when Redis is away."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from tests.support.limits import demand, limiter
from tests.support.tcp_proxy import TcpProxy

from penstock_shared.contracts.errors import RateLimitedError, TooLargeError
from penstock_shared.runtime.local_rate_limit import LocalBuckets
from penstock_shared.runtime.rate_tiers import PlatformLimits, allowance, limits_of

ANOTHER_PROCESS = """
import asyncio, sys
from tests.support.limits import demand, limiter
async def main():
    limits = limiter(sys.argv[1])
    asked = demand(tenant=sys.argv[2], requests_per_minute=100)
    await limits.take(demand())  # connected
    print("ready", flush=True)
    sys.stdin.readline()
    taken = await asyncio.gather(*(limits.take(asked) for _ in range(120)))
    print(sum(one.allowed for one in taken))
asyncio.run(main())
"""


async def test_instances_at_once_let_through_exactly_the_limit(redis_url: str) -> None:
    """120 takes each in two limiters and in a process of its own, 100 allowed: 100 pass."""
    asked = demand(requests_per_minute=100)
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ANOTHER_PROCESS,
        redis_url,
        asked.tenant.tenant,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert await other.stdout.readline() == b"ready\n"
    other.stdin.write(b"\n")
    limiters = [limiter(redis_url) for _ in range(2)]
    taken = await asyncio.gather(*(limiters[n % 2].take(asked) for n in range(240)))
    passed = sum(one.allowed for one in taken) + int(await other.stdout.readline())
    await other.wait()
    # The bucket drains while this runs, by 1.7 a second.
    assert 100 <= passed <= 115


@pytest.mark.parametrize(
    ("given", "platform", "name"),
    [
        ({"requests_per_minute": 3}, {}, "3 requests per minute of this tenant"),
        ({"user_requests_per_minute": 3}, {}, "3 requests per minute of this user"),
        ({}, {"global_requests_per_minute": 3}, "3 requests per minute of the whole platform"),
        ({}, {"address_requests_per_minute": 3}, "3 requests per minute of your address"),
        ({"tokens_per_minute": 30}, {}, "30 tokens per minute of this tenant"),
        ({"user_tokens_per_minute": 30}, {}, "30 tokens per minute of this user"),
        ({}, {"global_tokens_per_minute": 30}, "30 tokens per minute of the whole platform"),
        ({}, {"address_tokens_per_minute": 30}, "30 tokens per minute of your address"),
    ],
)
async def test_each_tier_refuses_and_says_so(
    redis_url: str, given: dict[str, Any], platform: dict[str, Any], name: str
) -> None:
    """The fourth of three, in any tier and either unit, is refused with the limit's name."""
    async with Redis.from_url(redis_url) as redis:
        for unit in ("requests", "tokens"):
            await redis.delete(f"{{penstock:rate}}:{unit}:g")
    limits = limiter(redis_url, **platform)
    address = f"192.0.2.{random.randrange(256)}/{random.random()}"
    asked = demand(**given, address=address, tokens=10)
    for _ in range(3):
        (await limits.take(asked)).require()
    refused = await limits.take(asked)
    with pytest.raises(RateLimitedError, match=name) as caught:
        refused.require()
    assert 15 < caught.value.retry_after_s <= 20
    shared = "platform" in name or "address" in name
    untold = shared or "tokens" in name
    assert refused.requests.remaining > 50_000 if untold else not refused.requests.remaining  # I8


async def test_refused_by_one_tier_counted_in_none(redis_url: str) -> None:
    """A user over his limit takes nothing from his tenant: all or nothing."""
    limits = limiter(redis_url)
    asked = demand(requests_per_minute=5, user_requests_per_minute=2, tokens_per_minute=1000)
    greedy = [await limits.take(replace(asked, tokens=7)) for _ in range(10)]
    assert [one.allowed for one in greedy] == [True] * 2 + [False] * 8
    others = [await limits.take(replace(asked, user=f"key_{n}")) for n in range(2, 6)]
    assert [one.allowed for one in others] == [True] * 3 + [False]
    assert others[0].tokens is not None
    assert others[0].tokens.remaining == 1000 - 2 * 7


async def test_waiting_as_told_makes_it_fit(redis_url: str) -> None:
    """`retry_after_s` is the truth: a little before it does not fit, after it does."""
    limits = limiter(redis_url)
    asked = demand(requests_per_minute=40)
    await asyncio.gather(*(limits.take(asked) for _ in range(40)))
    refused = await limits.take(asked)
    assert 0 < refused.retry_after_s <= 1.5
    await asyncio.sleep(refused.retry_after_s / 2)
    assert not (await limits.take(asked)).allowed
    await asyncio.sleep(refused.retry_after_s / 2 + 0.01)
    assert (await limits.take(asked)).allowed


async def test_what_was_not_used_is_given_back(redis_url: str) -> None:
    """The most is charged; the rest comes back; what was used beyond it is charged later."""
    limits = limiter(redis_url)
    asked = demand(tokens_per_minute=6000, tokens=4000)
    assert (await limits.take(asked)).allowed
    assert not (await limits.take(asked)).allowed
    limits.settle(asked, 100, held_s=0.0)
    after = await limits.take(replace(asked, tokens=1000))
    assert after.tokens is not None
    assert 6000 - 1100 <= after.tokens.remaining <= 6000 - 1100 + 400
    limits.settle(replace(asked, tokens=1000), 3000, held_s=0.0)
    later = await limits.take(replace(asked, tokens=1))
    assert later.tokens is not None
    assert 6000 - 3101 <= later.tokens.remaining <= 6000 - 3101 + 800


async def test_what_has_drained_is_not_given_back_twice(redis_url: str) -> None:
    """A charge that lay in the bucket for a minute is gone: giving it back would open the gate."""
    limits = limiter(redis_url)
    asked = demand(tokens_per_minute=600, tokens=500)
    (await limits.take(asked)).require()
    limits.settle(replace(asked, tokens=500), 0, held_s=60.0)
    after = await limits.take(replace(asked, tokens=0))
    assert after.tokens is not None
    assert after.tokens.remaining < 200


async def test_without_redis_it_is_given_back_all_the_same() -> None:
    """An instance that limits on its own settles on its own, and remembers nothing for Redis."""
    limits = limiter(None, monotonic_s=lambda: 0.0)
    asked = demand(tokens_per_minute=6000, tokens=4000)
    for used in (100, 5000):
        assert (await limits.take(asked)).allowed
        assert not (await limits.take(asked)).allowed
        limits.settle(asked, used, held_s=0.0)
    after = await limits.take(replace(asked, tokens=900))
    assert after.tokens is not None
    assert after.tokens.remaining == 6000 - 100 - 5000 - 900
    assert not (await limits.take(replace(asked, tokens=1))).allowed


async def test_a_request_that_never_fits_is_told_so(redis_url: str) -> None:
    """More than the whole limit: 413, not "come back later"."""
    asked = demand(tokens_per_minute=100, tokens=101)
    refused = await limiter(redis_url).take(asked)
    with pytest.raises(TooLargeError, match="100 tokens per minute of this tenant"):
        refused.require()


async def test_redis_and_the_local_rule_agree(redis_url: str) -> None:
    """The script computes what the pure functions compute, step for step."""
    rng = random.Random(seed := random.randrange(2**32))
    print("seed", seed)
    limits, buckets = limiter(redis_url), LocalBuckets()
    asked = demand(requests_per_minute=7, tokens_per_minute=60, user_tokens_per_minute=40)
    started_s, steps = time.monotonic(), 0
    # Within half a second not one of them drains, so both clocks may stand still.
    while steps < 60 and time.monotonic() - started_s < 0.5:
        one = replace(asked, user=rng.choice("ab"), tokens=rng.randint(0, 9))
        found = limits_of(one, PlatformLimits())
        fits, levels = buckets.take(found, 0)
        rule = allowance(found, levels, fits=fits)
        real = await limits.take(one)
        assert (real.allowed, real.limit_name) == (rule.allowed, rule.limit_name)
        assert real.requests.remaining == rule.requests.remaining
        assert real.retry_after_s == pytest.approx(rule.retry_after_s, abs=1)
        assert real.requests.reset_s == pytest.approx(rule.requests.reset_s, abs=1)
        steps += 1
    assert steps > 10


async def test_keys_expire(redis_url: str) -> None:
    """What nobody uses is gone after the minute in which it matters; all lie in one slot."""
    asked = demand(requests_per_minute=60, user_tokens_per_minute=60, tokens=60)
    (await limiter(redis_url).take(asked)).require()
    async with Redis.from_url(redis_url) as redis:
        keys = [key async for key in redis.scan_iter(f"*{asked.tenant.tenant}*", count=1000)]
        assert len(keys) == 2
        assert all(key.startswith(b"{penstock:rate}:") for key in keys)
        lives = sorted([await redis.pttl(key) for key in keys])
    assert 0 < lives[0] <= 1000
    assert 50_000 < lives[1] <= 60_000


async def test_a_flush_forgets_and_goes_on(redis_url: str) -> None:
    """Flushed, with its scripts: the limits begin anew, no request fails (I9)."""
    alone: list[None] = []
    limits = limiter(redis_url, on_alone=lambda: alone.append(None))
    asked = demand(requests_per_minute=2)
    for _ in range(2):
        (await limits.take(asked)).require()
    async with Redis.from_url(redis_url) as redis:
        for key in [key async for key in redis.scan_iter(f"*{asked.tenant.tenant}*")]:
            await redis.delete(key)
        await redis.script_flush()
    assert (await limits.take(asked)).allowed
    assert not alone


async def test_redis_cut_off_and_back(redis_url: str) -> None:
    """Each instance limits alone, says so, and asks Redis again by itself."""
    host, _, port = redis_url.rpartition("@")[2].partition("/")[0].partition(":")
    alone: list[None] = []
    async with TcpProxy(host, int(port)) as proxy:
        through = redis_url.replace(f"{host}:{port}", f"127.0.0.1:{proxy.port}")
        limits = limiter(through, on_alone=lambda: alone.append(None))
        asked = demand(requests_per_minute=5)
        assert (await limits.take(asked)).requests.remaining == 4
        await proxy.cut()
        away = await asyncio.gather(*(limits.take(asked) for _ in range(10)))
        assert sum(one.allowed for one in away) == 5
        assert len(alone) == 10
        await proxy.mend()
        async with asyncio.timeout(10):
            while True:
                counted = len(alone)
                again = await limits.take(asked)
                if len(alone) == counted:
                    break
                await asyncio.sleep(0.1)
        assert again.requests.remaining == 3


async def test_redis_that_hangs_delays_one_step_only(redis_url: str) -> None:
    """A server that accepts and never answers costs one timeout, not one for each request."""
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(30), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    steps: list[None] = []
    limits = limiter(
        f"redis://127.0.0.1:{port}/0",
        redis_timeout_s=0.2,
        monotonic_s=lambda: 0.0,
        on_alone=lambda: steps.append(None),
    )
    asked = demand(requests_per_minute=20)
    async with asyncio.timeout(1):  # five steps' timeouts, or 30 of one each, would be more
        taken = await asyncio.gather(*(limits.take(asked) for _ in range(300)))
        taken += [await limits.take(asked) for _ in range(30)]
    assert sum(one.allowed for one in taken) == 20
    assert len(steps) == 330
    silent.close()
