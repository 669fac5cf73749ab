"""Who makes good company in a batch, and when a batch is not worth running on.

A running batch admits nobody, shares its sampling options, and pays for mixed prompt lengths:
CTranslate2 prefills only the shortest common length and feeds the rest token by token, so eight
prompts of 16 and 256 tokens take longer together than eight of 256 (FIELD-NOTES). Mixed output
limits cost little: the batch only shrinks, and its last items run almost alone. Long contexts cost
much on a processor, since every step copies the keys and values of all items: a batch pays only
while they are less than the weights that it saves reading. Measured: docs/adr/0006.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_ALIKE_TOKENS: Final = 16
_ALIKE_SHARE: Final = 4
_LEAST_CONTEXT_TOKENS: Final = 512


@dataclass(frozen=True, slots=True)
class Size:
    """What one item asks of a batch, in tokens."""

    length: int
    """To be read before the first new token."""
    expected: int
    """To be generated, as far as one can know."""

    @property
    def cost(self) -> int:
        """What it is charged for until its true use is known."""
        return self.length + self.expected


@dataclass(frozen=True, slots=True)
class CutRule:
    """When the last items of a batch are better off in another one (docs/adr/0006)."""

    stragglers: int = 1
    """So few that they run almost alone; a batch that began with no more is left in peace."""
    worthwhile: float = 0.25
    """What is left to generate, as a share of what must be read again."""


@dataclass(frozen=True, slots=True)
class Room:
    """What one batch may hold."""

    items: int
    """0: it cannot start yet."""
    context_tokens: int | None
    """Of all items together, when they end; None where contexts cost nothing. One always fits."""

    def fits(self, batch: Collection[Size], other: Size) -> bool:
        """Whether `other` may join."""
        if len(batch) >= self.items:
            return False
        held = sum(size.cost for size in batch)
        return self.context_tokens is None or held + other.cost <= self.context_tokens


def context_budget_tokens(weights_bytes: int, cache_token_bytes: int) -> int | None:
    """How long the contexts of one batch may be together before company costs more than it saves.

    A step reads the weights once, whatever the batch, and copies the cache of every item; an item's
    context is at its full length, which is what counts here, only at its end. For a Llama of 30 M
    parameters (36 kB of cache per token) that gives 1,220 tokens (docs/adr/0006).
    """
    if not cache_token_bytes:
        return None
    return max(_LEAST_CONTEXT_TOKENS, weights_bytes * 3 // (cache_token_bytes * 2))


def alike(leader: Size, other: Size) -> bool:
    """Whether the two can be prefilled together."""
    spread = max(_ALIKE_TOKENS, leader.length // _ALIKE_SHARE)
    return abs(other.length - leader.length) <= spread


def batch_size(waiting: int, free_slots: int, max_batch: int) -> int:
    """How many to take into one slot, so that no free slot stays idle."""
    return min(max_batch, -(-waiting // max(free_slots, 1)))


def batch_window_s(longest_s: float, *, running: int, waiting: int, max_batch: int) -> float:
    """How long a free slot waits for companions.

    None when nothing runs or a batch is full already; the full window when nobody else waits,
    shrinking as company arrives.
    """
    if not running or waiting >= max_batch:
        return 0.0
    return longest_s * (1 - waiting / max_batch)


def worth_cutting(rule: CutRule, left: Collection[Size], waiting: int) -> bool:
    """Whether a batch's last items should stop here and go on in a new batch with others.

    `left` are the items that still run, as they would be in the new batch.
    """
    return (
        0 < len(left) <= rule.stragglers
        and waiting > 0
        and all(one.expected >= rule.worthwhile * one.length for one in left)
    )
