"""Finds the arrangements in which static batching is fastest on this machine, by trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Final

from benchmarks.harness.static_batches import Arrangement, Order, measure
from benchmarks.harness.workload import BLOCK, Work

SAMPLE: Final = BLOCK // 2
"""Jobs that tell good threads from bad ones."""
_FIRST_TRY: Final = Arrangement(slots=2, threads=1, batch=8, order=Order.BOTH)
_THREADS: Final = ((2, 1), (1, 2), (1, 1))
_SIZES: Final = ((4, None), (8, None), (16, None), (8, 800), (16, 800), (16, 1600))
"""Items of a batch, and its context budget."""
_OTHER_ORDERS: Final = (Order.PROMPT, Order.LIMIT)
_FINALISTS: Final = 2


def finalists(directory: Path, tried: Sequence[Work]) -> list[Arrangement]:
    """The best few of all arrangements by a short trial; the best once more without the callback.

    First the threads, then the sizes, then the orders, each with the best of those before.
    """

    def speed(arrangement: Arrangement) -> float:
        return measure(directory, tried, arrangement).tokens_per_s

    slots, threads = _threads(directory, tried[:SAMPLE])
    sized = [Arrangement(slots, threads, size, Order.BOTH, budget) for size, budget in _SIZES]
    speeds = {arrangement: speed(arrangement) for arrangement in sized}
    for sizes, order in product(_best(speeds), _OTHER_ORDERS):
        arrangement = replace(sizes, order=order)
        speeds[arrangement] = speed(arrangement)
    best = _best(speeds)
    return [*best, replace(best[0], own_limits=False)]


def _threads(directory: Path, sample: Sequence[Work]) -> tuple[int, int]:
    """Slots and threads of each; a wrong choice is slow by a factor, so few jobs tell."""

    def speed(slots_and_threads: tuple[int, int]) -> float:
        slots, threads = slots_and_threads
        first = replace(_FIRST_TRY, slots=slots, threads=threads)
        return max(measure(directory, sample, first).tokens_per_s for _ in range(2))

    return max(_THREADS, key=speed)


def _best(speeds: Mapping[Arrangement, float]) -> list[Arrangement]:
    return sorted(speeds, key=lambda one: -speeds[one])[:_FINALISTS]
