"""Laws of the queue in front of a slow reader (I6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.domain.frame_queue import FrameQueue
from penstock_realtime.ports import Budget, Policy
from penstock_shared.contracts.responses import decode_delta, encode_delta

LIMIT = 4000
RUN = "0190e0f0-0000-7000-8000-000000000000"
LOSSY = (Policy.DROP_OLDEST, Policy.DROP_NEWEST, Policy.DROP_INTERMEDIATE)
bursts = st.lists(st.lists(st.integers(0, 600), max_size=40), max_size=6)
"""Sizes of texts; each burst comes while nobody reads, then everything is taken."""


def frame(n: int, size: int) -> bytes:
    return encode_delta(1, RUN, n, "x" * size)


def numbers(frames: list[bytes]) -> list[int]:
    return [delta.n for delta in map(decode_delta, frames) if delta is not None]


@pytest.mark.parametrize("policy", LOSSY)
@given(bursts)
def test_what_is_not_taken_was_counted_as_dropped(policy: Policy, sizes: list[list[int]]) -> None:
    """In order, none twice, within the budget; what the policy gave up is counted to the frame."""
    queue, n = FrameQueue(Budget(LIMIT), policy), 0
    for burst in sizes:
        first = n
        for size in burst:
            queue.push(frame(n, size))
            assert queue.budget.used <= LIMIT
            n += 1
        dropped = queue.dropped
        taken = numbers(queue.take())
        assert taken == sorted(set(taken))
        assert set(taken) <= set(range(first, n))
        assert len(taken) + dropped == n - first
        assert queue.budget.used == 0


@given(bursts)
def test_block_refuses_a_tail_and_nothing_else(sizes: list[list[int]]) -> None:
    """What is taken is a beginning of what came; the rest is announced as to be read again."""
    for burst in sizes:
        queue = FrameQueue(Budget(LIMIT), Policy.BLOCK)
        for n, size in enumerate(burst):
            queue.push(frame(n, size))
        overflowed, taken = queue.overflowed, numbers(queue.take())
        assert taken == list(range(len(taken)))
        assert overflowed == (len(taken) < len(burst))


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (Policy.DROP_OLDEST, "last"),
        (Policy.DROP_NEWEST, "first"),
        (Policy.DROP_INTERMEDIATE, "both"),
    ],
)
def test_which_end_survives(policy: Policy, kept: str) -> None:
    """A hundred equal frames into room for a few: the first, the last, or both ends remain."""
    size = len(frame(100, 10))
    queue = FrameQueue(Budget(10 * size), policy)
    for n in range(100, 200):
        queue.push(frame(n, 10))
    assert (
        numbers(queue.take())
        == {
            "first": [*range(100, 110)],
            "last": [*range(190, 200)],
            "both": [*range(100, 105), *range(195, 200)],
        }[kept]
    )
