"""Who shares a batch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_shared.contracts.subjects import Lane
from penstock_worker.domain.batching import LANE_ORDER, batch_size, length_spread, pick
from penstock_worker.ports import SamplingOptions

_GREEDY = SamplingOptions()
_WARM = SamplingOptions(temperature=0.8, top_p=0.9)


@dataclass(frozen=True, eq=False)
class Waiting:
    prompt_tokens: int = 20
    lane: Lane = Lane.STANDARD
    options: SamplingOptions = _GREEDY
    alone: bool = False


waiting_lists = st.lists(
    st.builds(
        Waiting,
        prompt_tokens=st.integers(0, 2000),
        lane=st.sampled_from(Lane),
        options=st.sampled_from([_GREEDY, _WARM]),
        alone=st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@given(waiting_lists, st.integers(1, 16))
def test_a_batch_is_led_by_the_first_of_the_most_urgent_lane_and_is_alike(waiting, size):
    """Its laws: the leader is in it, all fit the leader, it is no larger than asked for."""
    batch = pick(waiting, size)
    leader = min(waiting, key=lambda one: LANE_ORDER.index(one.lane))
    assert leader in batch
    assert len(batch) <= size
    assert len(set(batch)) == len(batch)
    if len(batch) > 1:
        assert not any(one.alone for one in batch)
    for one in batch:
        assert one.options == leader.options
        spread = length_spread(leader.prompt_tokens)
        assert abs(one.prompt_tokens - leader.prompt_tokens) <= spread


@given(waiting_lists, st.integers(1, 16))
def test_everybody_gets_a_turn(waiting, size):
    """Taking batch after batch empties any line: nobody is left out."""
    left = list(waiting)
    for _ in range(len(waiting)):
        if not left:
            break
        batch = pick(left, size)
        left = [one for one in left if one not in batch]
    assert left == []


def test_an_urgent_lane_comes_first_and_takes_others_along():
    """Interactive leads; an older batch job of its length fills the free place."""
    slow, urgent = Waiting(lane=Lane.BATCH), Waiting(lane=Lane.INTERACTIVE)
    assert pick([slow, urgent], 1) == [urgent]
    assert pick([slow, urgent], 2) == [urgent, slow]


def test_a_redelivered_job_runs_alone():
    """It may be the one that kills its process: whoever shares its batch would die with it."""
    suspect = Waiting(alone=True)
    assert pick([suspect, Waiting(), Waiting()], 8) == [suspect]
    first = Waiting()
    assert pick([first, suspect], 8) == [first]


def test_lengths_that_do_not_fit_wait_for_a_batch_of_their_own():
    """Mixed lengths are fed token by token: 16 and 256 stay apart, 256 and 300 do not."""
    short, long, longer = Waiting(16), Waiting(256), Waiting(300)
    assert pick([short, long, longer], 8) == [short]
    assert pick([long, short, longer], 8) == [long, longer]


@pytest.mark.parametrize(
    ("waiting", "free", "most", "size"),
    [(1, 2, 8, 1), (2, 2, 8, 1), (20, 2, 8, 8), (9, 2, 8, 5), (3, 1, 8, 3)],
)
def test_free_slots_share_what_waits(waiting, free, most, size):
    """Two slots and two items: one each, for a slot is a processor."""
    assert batch_size(waiting, free, most) == size
