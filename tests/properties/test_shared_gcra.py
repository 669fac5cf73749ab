"""The laws of the rate limit's arithmetic, and of the limits of one instance alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.support.limits import demand

from penstock_shared.runtime import gcra
from penstock_shared.runtime.local_rate_limit import LocalBuckets
from penstock_shared.runtime.rate_tiers import PlatformLimits, allowance, limits_of

LIMITS = st.integers(1, 10_000_000)
LEVELS = st.integers(0, 10**15)


@given(st.integers(1, 5_000), st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 50))))
def test_never_more_than_the_limit(per_minute: int, steps: list[tuple[int, int]]) -> None:
    """From an empty bucket nothing lets through more than a minute's worth plus rate times time."""
    level, elapsed_us, passed = 0, 0, 0
    for pause_us, cost in steps:
        elapsed_us += pause_us
        level = gcra.drained(level, per_minute, pause_us)
        if gcra.fits(level, per_minute, cost):
            level += cost * gcra.UNIT
            passed += cost
        assert passed * gcra.UNIT <= per_minute * (gcra.UNIT + elapsed_us)


@given(LEVELS, LIMITS, st.integers(1, 10_000))
def test_waiting_as_told_makes_it_fit_and_less_does_not(
    level: int, per_minute: int, cost: int
) -> None:
    """`wait_us` is the truth, to the microsecond."""
    wait_us = gcra.wait_us(level, per_minute, cost)
    if cost <= per_minute:
        assert gcra.fits(gcra.drained(level, per_minute, wait_us), per_minute, cost)
    if wait_us:
        assert not gcra.fits(gcra.drained(level, per_minute, wait_us - 1), per_minute, cost)


@given(LEVELS, LIMITS)
def test_what_is_left_fits_and_one_more_does_not(level: int, per_minute: int) -> None:
    """`free_units` tells exactly how much goes in, and `reset_us` when all of it does."""
    left = gcra.free_units(level, per_minute)
    assert gcra.fits(level, per_minute, left) or left == 0
    assert not gcra.fits(level, per_minute, left + 1)
    assert gcra.drained(level, per_minute, gcra.reset_us(level, per_minute)) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 30_000_000), st.sampled_from("ab"), st.integers(0, 40)),
        max_size=40,
    )
)
def test_refused_by_one_counted_in_none(steps: list[tuple[int, str, int]]) -> None:
    """A request that one limit refuses leaves every bucket as it was: all or nothing."""
    platform = PlatformLimits(global_requests=12, global_tokens=100)
    buckets, now_us = LocalBuckets(), 0
    asked = demand(requests_per_minute=10, tokens_per_minute=90, user_requests_per_minute=6)
    for pause_us, user, tokens in steps:
        now_us += pause_us
        limits = limits_of(replace(asked, user=user, tokens=tokens), platform)
        before = buckets.take([limit._replace(cost=0) for limit in limits], now_us)[1]
        fits, after = buckets.take(limits, now_us)
        charged = [old + limit.cost * gcra.UNIT for old, limit in zip(before, limits, strict=True)]
        assert after == (charged if fits else before)
        told = allowance(limits, after, fits=fits)
        assert told.allowed == fits
        assert (told.retry_after_s > 0) is not fits


@given(
    st.integers(1, 1_000),
    st.lists(
        st.tuples(
            st.integers(0, 40_000_000),  # after the one before
            st.integers(0, 800),  # charged
            st.floats(0, 1),  # of which used
            st.integers(0, 120_000_000),  # held
        ),
        max_size=12,
    ),
)
def test_giving_back_never_opens_the_gate(
    per_minute: int, requests: list[tuple[int, int, float, int]]
) -> None:
    """The bucket is never lower than if each request's true use had been known at its start."""
    steps: list[tuple[int, int, int]] = []  # when, into the one bucket, into the other
    now_us = 0
    for pause_us, charged, share, held_us in requests:
        now_us += pause_us
        used = int(charged * share)
        steps.append((now_us, charged, used))
        back = gcra.returnable(charged - used, per_minute, held_us)
        steps.append((now_us + held_us, -back, 0))
    level = known = at_us = 0
    for when_us, units, used in sorted(steps, key=lambda step: step[0]):
        level = max(0, gcra.drained(level, per_minute, when_us - at_us) + units * gcra.UNIT)
        known = gcra.drained(known, per_minute, when_us - at_us) + used * gcra.UNIT
        at_us = when_us
        assert level >= known
