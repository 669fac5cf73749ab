"""Who shares a batch, how long one waits for company, and when the last ones should move on."""

from __future__ import annotations

import pytest

from penstock_worker.domain.batching import (
    CutRule,
    Room,
    Size,
    alike,
    batch_size,
    batch_window_s,
    context_budget_tokens,
    worth_cutting,
)

SHORT = Size(length=16, expected=16)
LONG = Size(length=256, expected=256)


def test_only_prompts_of_similar_length_are_prefilled_together():
    """Mixed lengths are fed token by token, which costs more than two batches."""
    assert alike(SHORT, Size(32, 500))
    assert not alike(SHORT, Size(33, 16))
    assert alike(LONG, Size(320, 16))
    assert alike(LONG, Size(192, 16))
    assert not alike(LONG, Size(321, 16))


@pytest.mark.parametrize(
    ("waiting", "free_slots", "max_batch", "size"),
    [(1, 2, 8, 1), (2, 2, 8, 1), (3, 2, 8, 2), (16, 2, 8, 8), (100, 2, 8, 8), (5, 0, 8, 5)],
)
def test_no_free_slot_stays_idle(waiting: int, free_slots: int, max_batch: int, size: int):
    """Those who wait are spread over the free slots before batches are filled."""
    assert batch_size(waiting, free_slots, max_batch) == size


def test_the_window_adapts_to_load():
    """None when nothing runs, none when a batch is full, and shorter as company arrives."""
    windows_s = [batch_window_s(0.01, running=1, waiting=n, max_batch=8) for n in range(1, 9)]
    assert windows_s == sorted(windows_s, reverse=True)
    assert windows_s[-1] == 0
    assert batch_window_s(0.01, running=0, waiting=1, max_batch=8) == 0


def test_long_contexts_leave_less_room():
    """A batch holds as many tokens as pay off, and one item in any case."""
    room = Room(items=8, context_tokens=800)
    assert room.fits([], LONG)
    assert not room.fits([LONG], LONG)
    assert room.fits([SHORT] * 7, SHORT)
    assert not room.fits([SHORT] * 8, SHORT)
    assert Room(items=2, context_tokens=None).fits([LONG], LONG)


def test_the_context_budget_is_what_the_weights_cost_to_read():
    """30 MB of weights and 36 kB of cache per token: half as much again as would be equal."""
    assert context_budget_tokens(30_000_000, 36_864) == 1_220
    assert context_budget_tokens(1_000_000, 8_192) == 512  # steps have other costs, too
    assert context_budget_tokens(30_000_000, 0) is None


def test_stragglers_move_on_only_when_it_pays():
    """Few are left, somebody waits, and more is to be generated than half of what is read again."""
    rule = CutRule(stragglers=2, worthwhile=0.5)
    left = Size(length=100, expected=50)
    assert worth_cutting(rule, [left], 1)
    assert worth_cutting(rule, [left, left], 1)
    assert not worth_cutting(rule, [left, left, left], 1)
    assert not worth_cutting(rule, [left], 0)
    assert not worth_cutting(rule, [], 1)
    assert not worth_cutting(rule, [left, Size(length=100, expected=49)], 1)
