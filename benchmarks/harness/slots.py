"""A small scheduler over plain CTranslate2: batches in threads, and a policy that fills them.

It serves closed-loop streams (each has its next job waiting as soon as its last one has ended) and
stands for a worker without broker, sealing or frames, so that policies can be compared on the real
engine. Times are in seconds since the start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter, process_time
from typing import Any, Final

from benchmarks.harness.steady import Outcome, Produced, ramp_end_s, tokens_per_s
from benchmarks.harness.workload import Work

ALWAYS_ALIKE_TOKENS: Final = 16
SHORT_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """Who shares a batch, and when a batch is cut."""

    name: str
    slots: int = 2
    batch: int = 8
    prompt_spread: float | None = 0.25
    """How far a companion's prompt may be from the leader's, as a share; None: anybody."""
    limit_factor: float | None = None
    """By which factor a companion's remaining output may differ from the leader's."""
    cut_at: int = 0
    """So many items left over are stopped and put back while others wait; 0: never."""
    worth: float = 0.0
    """... if at least so many tokens remain per token that must be read again."""
    budget_tokens: int | None = None
    """How many tokens the companions' contexts may have together when they end."""
    reserved: bool = False
    """The first slot takes short outputs only while there are any."""


@dataclass(slots=True)
class Item:
    """One job of one stream, from its arrival to its end."""

    work: Work
    arrived_s: float
    generated: list[str] = field(default_factory=list)
    first_s: float = 0.0
    ended_s: float = 0.0
    cuts: int = 0

    @property
    def length(self) -> int:
        """What must be read before it goes on."""
        return len(self.work.tokens) + len(self.generated)

    @property
    def remaining(self) -> int:
        """What is left to generate."""
        return self.work.limit - len(self.generated)


class ClosedLoop:
    """The streams and those of their jobs that wait; every method may be called in any thread.

    It knows no generator: CTranslate2 drops a callback in a thread of its own, and a generator
    whose last reference goes with it would end there, joining itself, and abort the process.
    """

    def __init__(self, policy: Policy, works: Sequence[Work]) -> None:
        self.done: list[Item] = []
        self.token_times_s: list[list[float]] = [[] for _ in range(policy.slots)]
        self.handed_out_s = 0.0
        self._policy = policy
        self._works = iter(works)
        self._unfinished = 0
        self._waiting: list[Item] = []
        self._lock = threading.Condition()
        self._started_s = perf_counter()
        self._free = policy.slots

    @property
    def cuts(self) -> int:
        """How often an item was stopped and put back."""
        return sum(item.cuts for item in self.done)

    def begin(self, streams: int) -> None:
        """So many streams have their first job ready: the clock runs."""
        with self._lock:
            self._started_s = perf_counter()
            for _ in range(streams):
                self._arrive()

    def take(self, slot: int) -> list[Item]:
        """Wait for the next batch; empty once every job has ended."""
        with self._lock:
            while not self._waiting and self._unfinished:
                self._lock.wait()
            if not self._unfinished:
                return []
            batch = self._pick(slot)
            self._free -= 1
            return batch

    def release(self) -> None:
        """The batch of a slot has ended."""
        with self._lock:
            self._free += 1
            self._lock.notify_all()

    def end(self, item: Item, now_s: float) -> None:
        """The item has all its tokens; its stream asks for the next job."""
        item.ended_s = now_s
        with self._lock:
            self.done.append(item)
            self._unfinished -= 1
            self._arrive()
            self._lock.notify_all()

    def put_back(self, item: Item) -> bool:
        """Let the item go on in another batch, if there is anybody to make room for."""
        with self._lock:
            if not self._waiting:
                return False
            item.cuts += 1
            self._waiting.append(item)
            self._lock.notify_all()
            return True

    def now_s(self) -> float:
        """Seconds since the beginning."""
        return perf_counter() - self._started_s

    def _arrive(self) -> None:
        work = next(self._works, None)
        if work is not None:
            self.handed_out_s = self.now_s()
            self._waiting.append(Item(work, self.handed_out_s))
            self._unfinished += 1

    def _pick(self, slot: int) -> list[Item]:
        policy, waiting = self._policy, self._waiting
        size = min(policy.batch, -(-len(waiting) // max(self._free, 1)))
        leader = waiting[0]
        if policy.reserved and slot == 0:
            leader = next((one for one in waiting if one.remaining <= SHORT_TOKENS), leader)
        fitting = [one for one in waiting if one is leader or alike(policy, leader, one)]
        fitting.remove(leader)
        batch = within(policy.budget_tokens, [leader, *fitting[: size - 1]])
        self._waiting = [one for one in waiting if one not in batch]
        return batch


class SlotScheduler:
    """Runs one list of jobs under one policy. `generator` has as many replicas as slots."""

    def __init__(
        self, generator: Any, token_names: Sequence[str], policy: Policy, works: Sequence[Work]
    ) -> None:
        self._generator = generator
        self._token_names = token_names
        self._policy = policy
        self.loop = ClosedLoop(policy, works)

    def run(self, streams: int) -> Outcome:
        """Serve all jobs to so many streams; the rate is that of the steady part.

        Steady: from the end of the first tenth of the jobs until the last one was asked for.
        """
        loop, cpu_before_s = self.loop, process_time()
        loop.begin(streams)
        with ThreadPoolExecutor(self._policy.slots) as pool:
            for slot in [pool.submit(self._serve, n) for n in range(self._policy.slots)]:
                slot.result()
        cpu_s = process_time() - cpu_before_s
        produced = [Produced(at_s, at_s, 1) for slot in loop.token_times_s for at_s in slot]
        begin_s = ramp_end_s([item.ended_s for item in loop.done])
        return Outcome(
            tokens_per_s=tokens_per_s(produced, begin_s, loop.handed_out_s),
            cpu_us_per_token=cpu_s * 1e6 / len(produced),
            first_s=tuple(item.first_s - item.arrived_s for item in loop.done),
            total_s=tuple(item.ended_s - item.arrived_s for item in loop.done),
        )

    def _serve(self, slot: int) -> None:
        while batch := self.loop.take(slot):
            self._generator.generate_batch(
                [[*item.work.tokens, *item.generated] for item in batch],
                max_length=max(item.remaining for item in batch),
                include_prompt_in_result=False,
                # Without it the model's own would end an answer that happens to hit it.
                end_token=[],
                callback=_callback(self.loop, self._policy, batch, slot, self._token_names),
            )
            self.loop.release()


def _callback(
    loop: ClosedLoop, policy: Policy, batch: list[Item], slot: int, names: Sequence[str]
) -> Callable[[Any], bool]:
    times_s = loop.token_times_s[slot]
    running = started = len(batch)

    def on_token(result: Any) -> bool:
        nonlocal running
        item, now_s = batch[result.batch_id], loop.now_s()
        times_s.append(now_s)
        item.first_s = item.first_s or now_s
        item.generated.append(names[result.token_id])
        if item.remaining == 0:
            running -= 1
            loop.end(item, now_s)
            return True
        if running <= policy.cut_at < started and item.remaining >= policy.worth * item.length:
            return loop.put_back(item)
        return False

    return on_token


def within(budget_tokens: int | None, batch: list[Item]) -> list[Item]:
    """As many of the batch, from its leader on, as the budget has room for; at least the leader."""
    if budget_tokens is None:
        return batch
    whole = accumulate(item.length + item.remaining for item in batch)
    return batch[: max(sum(tokens <= budget_tokens for tokens in whole), 1)]


def alike(policy: Policy, leader: Item, other: Item) -> bool:
    """Whether the policy lets the two share a batch."""
    if policy.prompt_spread is not None:
        spread = max(ALWAYS_ALIKE_TOKENS, policy.prompt_spread * leader.length)
        if abs(other.length - leader.length) > spread:
            return False
    if policy.limit_factor is not None:
        small, large = sorted((leader.remaining, other.remaining))
        if large > max(policy.limit_factor * small, ALWAYS_ALIKE_TOKENS):
            return False
    return True
