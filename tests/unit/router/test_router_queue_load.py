"""When a queue is too long: by depth, by age, and not at all while its speed is not known."""

from __future__ import annotations

import pytest

from penstock_router.domain.queue_load import LaneReading, QueueLoad
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.subjects import Lane


def reading(unfetched: int, *, held: int = 0, done: int = 0) -> LaneReading:
    return LaneReading(unfetched=unfetched, held=held, delivered=done + held)


def drained(per_s: float, left: int, *, seconds: int = 60) -> QueueLoad:
    """A queue that has drained at a steady rate, read every second, with `left` jobs in it."""
    load = QueueLoad()
    for second in range(seconds + 1):
        load.read({Lane.STANDARD: reading(left, done=round(second * per_s))}, float(second))
    return load


def refusal(
    load: QueueLoad, lane: Lane = Lane.STANDARD, *, limit: int = 10_000, deadline_s: float = 120
) -> UnavailableError | None:
    try:
        load.refuse_if_overloaded("small", lane, limit=limit, deadline_s=deadline_s)
    except UnavailableError as error:
        return error
    return None


def test_a_full_queue_is_refused_also_without_a_rate() -> None:
    """Depth alone decides while nobody drains: below the limit accepted, at it refused."""
    load = QueueLoad()
    load.read({Lane.STANDARD: reading(7, held=2)}, 0.0)
    assert refusal(load, limit=10) is None
    load.admitted(Lane.STANDARD)
    error = refusal(load, limit=10)
    assert error is not None
    assert (error.code, error.http_status, error.retry_after_s) == ("overloaded", 503, 5.0)
    load.read({}, 1.0)
    assert refusal(load, limit=1) is not None  # a look without figures is none that is empty


def test_what_would_expire_in_the_queue_is_refused() -> None:
    """200 jobs at 2 per second take 100 s: too long for 60, not for 120; come back in 40."""
    load = drained(2.0, 200)
    assert refusal(load, deadline_s=120) is None
    error = refusal(load, deadline_s=60)
    assert error is not None
    assert error.retry_after_s == pytest.approx(40)
    assert "100 s" in error.message


def test_a_full_queue_says_when_there_is_room() -> None:
    """With a rate known, the time is that of the jobs too many."""
    error = refusal(drained(2.0, 200), limit=100)
    assert error is not None
    assert error.retry_after_s == pytest.approx(101 / 2)


def test_only_what_comes_first_is_in_the_way() -> None:
    """A flood in the over-share lane or a batch backlog keeps no interactive request out."""
    load = QueueLoad()
    for lane, depth in ((Lane.OVER_SHARE, 500), (Lane.BATCH, 50), (Lane.STANDARD, 5)):
        load.read({lane: reading(depth)}, 0.0)
    ahead = [load.ahead_of(lane) for lane in Lane]
    assert ahead == [0, 5, 55, 555]
    assert refusal(load, Lane.INTERACTIVE, limit=5) is None
    assert refusal(load, Lane.OVER_SHARE, limit=555) is not None
    assert load.depth == 555


def test_demand_is_not_taken_for_speed() -> None:
    """One job a second that never waits says nothing of what 500 at once would take."""
    load = QueueLoad()
    for second in range(60):
        load.read({Lane.STANDARD: reading(0, held=1, done=second)}, float(second))
    for _ in range(500):
        load.admitted(Lane.STANDARD)
    assert load.rate_per_s is None
    assert refusal(load, deadline_s=10) is None


def test_the_rate_follows_smoothly() -> None:
    """One quiet second takes a tenth of the rate away, a quiet half minute nearly all of it."""
    load = drained(10.0, 100)
    assert load.rate_per_s == pytest.approx(10.0)
    load.read({Lane.STANDARD: reading(100, done=600)}, 61.0)
    assert load.rate_per_s == pytest.approx(9.05, abs=0.01)
    assert refusal(load, deadline_s=120) is None
    for second in range(62, 92):
        load.read({Lane.STANDARD: reading(100, done=600)}, float(second))
    assert refusal(load, deadline_s=120) is not None


def test_a_first_worker_that_loads_is_no_rate_of_zero() -> None:
    """From zero workers: nothing is done, nothing is known, and a burst is accepted."""
    load = drained(0.0, 400)
    assert load.rate_per_s is None
    assert refusal(load) is None


def test_a_consumer_that_was_made_anew_starts_over() -> None:
    """Its sequence falls back: no negative rate, and the next reading counts again."""
    load = drained(5.0, 50)
    load.read({Lane.STANDARD: reading(50, done=0)}, 61.0)
    assert load.rate_per_s is None
    for second in range(5):
        load.read({Lane.STANDARD: reading(50, done=5 + 5 * second)}, 62.0 + second)
    assert load.rate_per_s == pytest.approx(5.0)


def test_a_worker_that_has_just_begun_decides_nothing() -> None:
    """The first seconds are too short to judge by; after five the rate is their mean."""
    load = drained(0.0, 400, seconds=10)
    for second, done in enumerate((1, 9, 19, 29), 11):
        load.read({Lane.STANDARD: reading(400, done=done)}, float(second))
        assert load.rate_per_s is None
    load.read({Lane.STANDARD: reading(400, done=40)}, 15.0)
    assert load.rate_per_s == pytest.approx(8.0)
