"""Which layout a model gets on this machine: what to try, in which order, and what to keep.

The wrong layout costs a factor of 7 to 50. On two virtual cores one thread per batch and a batch
per core beat two threads per batch up to fifty times, and the best batch is not the largest: a
30 M-parameter decoder gave 854, 1,351, 1,982, 2,172, 2,060 and 2,192 tokens/s with 1 to 32 items.
So the likely best is tried first, and whatever is clearly worse ends its direction.

Nothing here measures: `search` proposes a step, is told what it took, and proposes the next.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Final, Literal

from penstock_shared.contracts.models import ModelKind, ModelLayout, ModelLimits

Device = Literal["cpu", "cuda"]

GOOD_ENOUGH: Final = 0.95
"""Of the best speed: a difference that noise makes, too. The smaller batch is worth more then."""
HOPELESS: Final = 0.8
"""Of the best speed: a layout that begins below it is not pursued."""
WORTH_FEWER_SLOTS: Final = 1.25
"""Times the speed: with fewer slots newcomers wait longer, and a batch that is spread over threads
stops whenever one of them does, which a short trial does not show."""
UNTRIED_BATCH: Final = 8
"""Items per batch where no time was left to find out: fewer waste a slow model's memory reads."""
REGROW_AFTER_BATCHES: Final = 256
"""Good batches after which one that was halved for want of memory is tried larger again."""
_BATCHES: Final[dict[Device, tuple[int, ...]]] = {
    "cpu": (1, 2, 4, 8, 16, 32, 64),
    "cuda": (1, 4, 16, 64, 256),  # a GPU's step takes about as long for many as for one
}
_CUDA_SLOTS: Final = (1, 2, 4)
_PAST_THE_BEST: Final = 2
"""So many larger batches that are no better end the search for a batch size."""
_WINDOWS: Final = 10
"""Measurements that a budget is divided into."""
_FOR_OTHER_LAYOUTS: Final = 0.3
"""Of the budget: batch sizes of the likely best layout do not use it up."""
_PROBE_ROUNDS: Final = 2  # the first one pays for cold caches
_MOST_ROUNDS: Final = 16


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What may be tried, the likely best first."""

    layouts: tuple[ModelLayout, ...]
    """Slots and threads; `max_batch` is what they get untried."""
    batches: tuple[int, ...]
    """Ascending."""
    least_tokens: int
    """Of each item in a trial: generated, or read by an encoder."""
    most_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """Run this: `rounds` times, in each slot of the layout, a batch of so many items."""

    layout: ModelLayout
    batch: int
    tokens: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a step took."""

    round_s: float
    """The fastest round; infinite when there was not enough memory."""
    load_s: float
    """To load this layout; 0 when it was loaded already."""
    left_s: float
    """Of the budget, now."""


Search = Generator[Step, Reading, ModelLayout]


def candidates(
    processors: int, device: Device, kind: ModelKind, limits: ModelLimits, compute_type: str
) -> SearchSpace:
    """Every layout worth trying within the limits; none takes more threads than processors."""
    most_batch = min(limits.max_batch or math.inf, _BATCHES[device][-1])
    batches = (*(size for size in _BATCHES[device] if size < most_batch), int(most_batch))
    shapes = (
        _cpu_shapes(processors, limits.slots)
        if device == "cpu"
        else [(slots, 1) for slots in _CUDA_SLOTS if slots <= (limits.slots or math.inf)]
    )
    layouts = tuple(
        ModelLayout(
            device=device,
            compute_type=compute_type,
            slots=slots,
            threads=threads,
            max_batch=min(UNTRIED_BATCH, batches[-1]),
        )
        for slots, threads in shapes
    )
    embedding = kind is ModelKind.EMBEDDING  # its trial reads texts; the others generate
    return SearchSpace(
        layouts, batches, least_tokens=16 if embedding else 1, most_tokens=64 if embedding else 32
    )


def search(space: SearchSpace, budget_s: float) -> Search:
    """Propose steps until the budget is used or nothing promises more; returns the layout.

    A step is proposed only if its prediction fits into what is left. What cannot be predicted
    is the first step of a layout, which is therefore as small as the comparison allows.
    """
    standing = space.layouts[0]
    if budget_s <= 0:
        return standing
    window_s = budget_s / _WINDOWS
    best = yield from _sweep(_first_sweep(space, budget_s), window_s)
    left_s = best.left_s
    for layout in space.layouts[1:]:
        if not best.speed or left_s < best.load_s + 2 * window_s:
            break
        found = yield from _sweep(_rival_sweep(space, layout, best), window_s)
        left_s = found.left_s
        if found.speed <= HOPELESS * best.speed:
            break
        if found.speed > WORTH_FEWER_SLOTS * best.speed:
            again = yield from _again(standing, best, found)
            left_s = again.left_s
            if found.speed > WORTH_FEWER_SLOTS * again.speed:
                standing, best = layout, found
    return best.layout


def halved(layout: ModelLayout, items: int) -> ModelLayout:
    """After a batch of `items` found too little memory: at most half as many from now on."""
    most = min(layout.max_batch, max(1, items // 2))
    return layout.model_copy(update={"max_batch": most})


def regrown(layout: ModelLayout, tuned: ModelLayout) -> ModelLayout:
    """After `REGROW_AFTER_BATCHES` good ones: twice as many items, at most what was tuned.

    What was too much may have been two long prompts, or another process's appetite.
    """
    return layout.model_copy(update={"max_batch": min(tuned.max_batch, layout.max_batch * 2)})


def _cpu_shapes(processors: int, most_slots: int | None) -> list[tuple[int, int]]:
    """Slots and threads of each: most slots first, threads only where processors are left over."""
    slots = min(processors, most_slots or processors)
    shapes = [(slots, 1)]
    while slots:
        shapes.append((slots, processors // slots))
        slots //= 2
    return list(dict.fromkeys(shapes))


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Larger and larger batches of one layout."""

    layout: ModelLayout
    batches: tuple[int, ...]
    least_tokens: int
    most_tokens: int
    first_s: float = math.inf
    """What the first measurement may take."""
    spare_s: float = 0.0
    """To be left for other layouts."""
    hopeless_speed: float = 0.0
    """Tokens/s; what is slower is not pursued."""


@dataclass(frozen=True, slots=True)
class _Found:
    layout: ModelLayout
    speed: float
    """Tokens/s; 0 when not even the first measurement did fit into the budget."""
    tokens: int
    """Of each item, in every measurement."""
    load_s: float
    left_s: float


def _first_sweep(space: SearchSpace, budget_s: float) -> _Sweep:
    return _Sweep(
        space.layouts[0],
        space.batches,
        space.least_tokens,
        space.most_tokens,
        first_s=budget_s / _WINDOWS,
        spare_s=budget_s * _FOR_OTHER_LAYOUTS if len(space.layouts) > 1 else 0.0,
    )


def _rival_sweep(space: SearchSpace, layout: ModelLayout, best: _Found) -> _Sweep:
    """With fewer slots, and so with batches that are no smaller; compared at the same length."""
    return _Sweep(
        layout,
        tuple(size for size in space.batches if size >= best.layout.max_batch),
        space.least_tokens,
        best.tokens,
        hopeless_speed=HOPELESS * best.speed,
    )


def _sweep(sweep: _Sweep, window_s: float) -> Generator[Step, Reading, _Found]:
    """Measure batches until they get slower, or until there is no time for the next.

    All of them run the same number of tokens, since what precedes the first one weighs more in a
    short run. More items take at most proportionally longer: that predicts the next step.
    """
    layout, batches, least = sweep.layout, sweep.batches, sweep.least_tokens
    reading = yield Step(layout, batches[0], least, _PROBE_ROUNDS)
    load_s = reading.load_s
    token_s = reading.round_s / least
    fitting = int(min(sweep.first_s, reading.left_s) / token_s)
    tokens = max(least, min(sweep.most_tokens, fitting))
    predicted_s = token_s * tokens
    speeds: dict[int, float] = {}
    for batch, larger in zip(batches, (*batches[1:], 0), strict=True):
        if predicted_s > reading.left_s - sweep.spare_s:
            untried = _untried(layout, speeds)
            return _Found(untried, _top(speeds), tokens, load_s, reading.left_s)
        rounds = int(min(window_s, reading.left_s) / predicted_s)
        reading = yield Step(layout, batch, tokens, max(1, min(_MOST_ROUNDS, rounds)))
        speeds[batch] = layout.slots * batch * tokens / reading.round_s
        if _is_past_the_best(speeds) or speeds[batch] <= sweep.hopeless_speed:
            break
        predicted_s = reading.round_s * larger / batch
    return _Found(_tried(layout, speeds), _top(speeds), tokens, load_s, reading.left_s)


def _again(standing: ModelLayout, best: _Found, rival: _Found) -> Generator[Step, Reading, _Found]:
    """Measure the best so far once more, as its rival was: neighbours may have disturbed it.

    Its speed is infinite when there is no time for that: who cannot be compared cannot be beaten.
    """
    batch = best.layout.max_batch
    tokens = standing.slots * batch * rival.tokens
    if rival.load_s + _PROBE_ROUNDS * tokens / best.speed > rival.left_s:
        return replace(best, speed=math.inf, left_s=rival.left_s)
    reading = yield Step(standing, batch, rival.tokens, _PROBE_ROUNDS)
    return replace(best, speed=max(best.speed, tokens / reading.round_s), left_s=reading.left_s)


def _top(speeds: dict[int, float]) -> float:
    return max(speeds.values(), default=0.0)


def _good_batch(speeds: dict[int, float]) -> int:
    """The smallest that is good enough: its items wait less for one another."""
    return min(size for size, speed in speeds.items() if speed >= GOOD_ENOUGH * _top(speeds))


def _is_past_the_best(speeds: dict[int, float]) -> bool:
    latest = next(reversed(speeds))
    larger = [size for size in speeds if size > _good_batch(speeds)]
    return speeds[latest] == 0 or len(larger) >= _PAST_THE_BEST


def _tried(layout: ModelLayout, speeds: dict[int, float]) -> ModelLayout:
    batch = _good_batch(speeds)
    return layout.model_copy(update={"max_batch": batch, "tokens_per_s": round(speeds[batch], 1)})


def _untried(layout: ModelLayout, speeds: dict[int, float]) -> ModelLayout:
    """When the time was up while larger batches still paid off."""
    if speeds and _good_batch(speeds) >= layout.max_batch:
        return _tried(layout, speeds)
    return layout
