"""The yardstick of a scheduler: plain CTranslate2 that knows every job before it begins.

It may sort all jobs as it likes and never waits for one. It needs no fairness, no order of
arrival, and nobody reads along. A slot takes the next ready-made batch when its last one is done.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import ctranslate2

from benchmarks.harness.plain_engine import loaded
from benchmarks.harness.steady import Outcome, Produced, tokens_per_s
from benchmarks.harness.workload import Work, tokens_of

_SEED: Final = 7
_GROUP: Final = 32
"""So many prompts of neighbouring lengths are sorted by limit, in the order `both`."""


class Order(StrEnum):
    """By what the jobs are sorted before they are cut into batches."""

    ARRIVAL = "arrival"
    PROMPT = "prompt"
    LIMIT = "limit"
    BOTH = "prompt and limit"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Threads, and how the jobs become batches."""

    slots: int
    threads: int
    batch: int
    order: Order
    context_budget: int | None = None
    """How many tokens a batch may hold when its answers are complete; None: any number."""
    own_limits: bool = True
    """Each item stops at its own limit (by the callback); else all run to the batch's longest."""

    def __str__(self) -> str:
        budget = "" if self.context_budget is None else f" or {self.context_budget} tokens"
        limits = "" if self.own_limits else ", one limit"
        threads = f"{self.slots} by {self.threads} threads"
        return f"{threads}, {self.batch}{budget} by {self.order}{limits}"


def arranged(works: Sequence[Work], arrangement: Arrangement) -> list[list[Work]]:
    """The batches, shuffled: which of them is cut off by the end of the measurement is chance."""
    batches = list(_cut(_sorted(works, arrangement.order), arrangement))
    random.Random(_SEED).shuffle(batches)
    return batches


def measure(directory: Path, works: Sequence[Work], arrangement: Arrangement) -> Outcome:
    """All jobs; the rate counts until the first slot finds nothing more to do."""
    with loaded(directory, arrangement.slots, arrangement.threads) as generator:
        _generate(generator, list(works[: arrangement.batch]), own_limits=True)  # warms up
        return _Run(generator, arranged(works, arrangement), arrangement).outcome(tokens_of(works))


def measure_defaults(directory: Path, works: Sequence[Work]) -> Outcome:
    """`Generator(path)` and `generate_batch` of everything at once, as the quick start has it.

    Items stop at their own limits, which a quick start would not do: else it would be slower yet.
    """
    generator = ctranslate2.Generator(str(directory))
    try:
        before_s, started_s = process_time(), perf_counter()
        _generate(generator, list(works), own_limits=True)
        tokens = tokens_of(works)
        return Outcome(
            tokens_per_s=tokens / (perf_counter() - started_s),
            cpu_us_per_token=(process_time() - before_s) * 1e6 / tokens,
        )
    finally:
        generator.unload_model()


class _Run:
    """Slots that work through one list of batches."""

    def __init__(
        self, generator: Any, batches: Sequence[list[Work]], arrangement: Arrangement
    ) -> None:
        self._generator = generator
        self._arrangement = arrangement
        self._batches = iter(batches)
        self._lock = threading.Lock()
        self._produced: list[Produced] = []

    def outcome(self, tokens: int) -> Outcome:
        before_s, started_s = process_time(), perf_counter()
        with ThreadPoolExecutor(self._arrangement.slots) as pool:
            idle_s = list(pool.map(lambda _: self._serve(), range(self._arrangement.slots)))
        cpu_s = process_time() - before_s
        return Outcome(
            tokens_per_s=tokens_per_s(self._produced, started_s, min(idle_s)),
            cpu_us_per_token=cpu_s * 1e6 / tokens,
        )

    def _serve(self) -> float:
        """Run batches until there are none; returns when that was."""
        while True:
            with self._lock:
                batch = next(self._batches, None)
            begin_s = perf_counter()
            if batch is None:
                return begin_s
            _generate(self._generator, batch, own_limits=self._arrangement.own_limits)
            self._produced.append(Produced(begin_s, perf_counter(), tokens_of(batch)))


def _generate(generator: Any, batch: Sequence[Work], *, own_limits: bool) -> None:
    generator.generate_batch(
        [list(work.tokens) for work in batch],
        max_length=max(work.limit for work in batch),
        include_prompt_in_result=False,
        callback=_stop_at([work.limit for work in batch]) if own_limits else None,
    )


def _stop_at(limits: list[int]) -> Callable[[Any], bool]:
    left = list(limits)

    def on_token(result: Any) -> bool:
        index: int = result.batch_id
        left[index] -= 1
        return left[index] == 0

    return on_token


def _sorted(works: Sequence[Work], order: Order) -> list[Work]:
    if order is Order.ARRIVAL:
        return list(works)
    if order is Order.LIMIT:
        return sorted(works, key=lambda work: (work.limit, len(work.tokens)))
    by_prompt = sorted(works, key=lambda work: (len(work.tokens), work.limit))
    if order is Order.PROMPT:
        return by_prompt
    groups = (by_prompt[start : start + _GROUP] for start in range(0, len(works), _GROUP))
    return [work for group in groups for work in sorted(group, key=lambda one: one.limit)]


def _cut(works: Sequence[Work], arrangement: Arrangement) -> Iterator[list[Work]]:
    batch: list[Work] = []
    held = 0
    for work in works:
        whole = len(work.tokens) + work.limit
        budget = arrangement.context_budget
        if len(batch) == arrangement.batch or (
            batch and budget is not None and held + whole > budget
        ):
            yield batch
            batch, held = [], 0
        batch.append(work)
        held += whole
    if batch:
        yield batch
