"""The workload of the worker's benchmarks, and the schedulers that it is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import pytest
from benchmarks.harness import random_llama
from benchmarks.harness.slots import ClosedLoop, Item, Policy, SlotScheduler, alike, within
from benchmarks.harness.static_batches import Arrangement, Order, arranged, measure
from benchmarks.harness.steady import Produced, ramp_end_s, tokens_per_s
from benchmarks.harness.workload import BLOCK, Work, mixed, tokens_of
from hypothesis import given
from hypothesis import strategies as st

WORKS = st.lists(
    st.builds(
        lambda prompt, limit: Work((), ("x",) * prompt, limit),
        st.integers(1, 300),
        st.integers(1, 300),
    ),
    min_size=1,
    max_size=60,
)


def test_the_workload_is_the_same_each_time_and_each_block_as_mixed_as_the_whole() -> None:
    """Who gets only the first block gets the same work per job, within a fifth."""
    works = mixed(random_llama.directory(), 2 * BLOCK)
    assert works == mixed(random_llama.directory(), 2 * BLOCK)
    assert works != mixed(random_llama.directory(), 2 * BLOCK, seed=1)
    limits = [work.limit for work in works]
    assert min(limits) < 32
    assert max(limits) > 128
    assert all(len(work.tokens) <= 256 for work in works)
    first, second = tokens_of(works[:BLOCK]), tokens_of(works[BLOCK:])
    assert first == pytest.approx(second, rel=0.2)
    roles = [message.role for message in max(works, key=lambda work: len(work.tokens)).messages]
    assert len(roles) > 1
    assert roles[-1] == "user"
    assert all(one != other for one, other in pairwise(roles))


def test_a_rate_counts_only_what_lies_between() -> None:
    """A batch across the border counts in part, a token on it in whole."""
    produced = [Produced(0, 10, 100), Produced(3, 3, 1), Produced(9, 9, 1)]
    assert tokens_per_s(produced, 2, 4) == pytest.approx((20 + 1) / 2)
    assert ramp_end_s([float(n) for n in range(20, 0, -1)]) == 3.0
    with pytest.raises(ValueError, match="too short"):
        tokens_per_s(produced, 4, 4)


@given(
    WORKS,
    st.integers(1, 16),
    st.sampled_from(Order),
    st.one_of(st.none(), st.integers(1, 2000)),
)
def test_static_batches_hold_every_job_once_and_keep_their_bounds(
    works: list[Work], batch: int, order: Order, budget: int | None
) -> None:
    """No job is left out to look faster, and only a job alone may exceed the budget."""
    batches = arranged(works, Arrangement(1, 1, batch, order, budget))
    assert sorted(map(id, chain(*batches))) == sorted(map(id, works))
    for some in batches:
        assert len(some) <= batch
        held = sum(len(work.tokens) + work.limit for work in some)
        assert len(some) == 1 or budget is None or held <= budget


def test_static_batching_by_limit_puts_neighbours_together() -> None:
    """Sorted by limit, no two batches overlap in limits."""
    works = [Work((), ("x",), limit) for limit in (5, 1, 9, 3, 7, 11)]
    batches = arranged(works, Arrangement(1, 1, 2, Order.LIMIT))
    assert sorted(sorted(work.limit for work in some) for some in batches) == [
        [1, 3],
        [5, 7],
        [9, 11],
    ]


def test_plain_ctranslate2_serves_the_batches_of_both_slots() -> None:
    """The real engine, with each item's own limit and with one per batch."""
    works = mixed(random_llama.directory(), 8, prompt_tokens=(8, 12), output_tokens=(2, 6))
    for own_limits in (True, False):
        arrangement = Arrangement(2, 1, 2, Order.BOTH, own_limits=own_limits)
        assert measure(random_llama.directory(), works, arrangement).tokens_per_s > 0


@dataclass
class _Result:
    batch_id: int
    token_id: int


class _CountingEngine:
    """Answers the length of what it has read: a resumed answer shows whether it was put together.

    Like CTranslate2 it calls back for every running item in each step.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def generate_batch(
        self, prompts: list[list[str]], *, callback: Callable[[Any], bool], **_: Any
    ) -> None:
        self.batches.append([len(prompt) for prompt in prompts])
        read = [len(prompt) for prompt in prompts]
        running = list(range(len(prompts)))
        while running:
            for index in tuple(running):
                stop = callback(_Result(index, read[index]))
                read[index] += 1
                if stop:
                    running.remove(index)


def _answers(policy: Policy, works: Sequence[Work], streams: int) -> ClosedLoop:
    scheduler = SlotScheduler(_CountingEngine(), [str(n) for n in range(2000)], policy, works)
    outcome = scheduler.run(streams)
    assert len(outcome.first_s) == len(works)
    assert all(0 <= first <= total for first, total in zip(*_times(outcome), strict=True))
    for item in scheduler.loop.done:
        begin = len(item.work.tokens)
        assert item.generated == [str(begin + n) for n in range(item.work.limit)]
    return scheduler.loop


def _times(outcome: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return outcome.first_s, outcome.total_s


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_every_stream_is_served_to_its_limit(slots: int) -> None:
    """Whatever the slots, each job ends once, with as many tokens as it asked for."""
    works = [Work((), ("x",) * (1 + n % 7), 1 + 5 * n % 23) for n in range(60)]
    assert _answers(Policy("end", slots=slots), works, 8).cuts == 0


def test_what_was_cut_goes_on_where_it_stopped() -> None:
    """A straggler is stopped while others wait, and its answer is whole all the same."""
    works = [Work((), ("x",) * 3, 200 if n % 4 == 0 else 4) for n in range(40)]
    assert _answers(Policy("cut", slots=1, batch=4, cut_at=1, worth=0.1), works, 12).cuts > 0


def test_nothing_is_cut_that_is_not_worth_it() -> None:
    """Reading again costs more than what is left."""
    works = [Work((), ("x",) * 100, 20 if n % 4 == 0 else 4) for n in range(40)]
    assert _answers(Policy("cut", slots=1, batch=4, cut_at=1, worth=1), works, 12).cuts == 0


def test_who_may_share_a_batch() -> None:
    """Near in prompt length, near in what remains, and within the budget."""

    def item(prompt: int, limit: int) -> Item:
        return Item(Work((), ("x",) * prompt, limit), 0.0)

    policy = Policy("classes", prompt_spread=0.25, limit_factor=2)
    assert alike(policy, item(100, 100), item(125, 200))
    assert not alike(policy, item(100, 100), item(126, 100))
    assert not alike(policy, item(100, 100), item(100, 201))
    batch = [item(300, 100), item(50, 50), item(10, 10)]
    assert within(500, batch) == batch[:2]
    assert within(100, batch) == batch[:1]
    assert within(None, batch) == batch
