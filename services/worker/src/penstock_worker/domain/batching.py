"""Who shares a batch.

A running batch admits nobody, shares its sampling options, and pays for mixed prompt lengths:
CTranslate2 prefills only the shortest common length and feeds the rest token by token, so eight
prompts of 16 and 256 tokens take longer together than eight of 256 (FIELD-NOTES).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from penstock_shared.contracts.subjects import Lane
from penstock_worker.ports import SamplingOptions

LANE_ORDER: Final = (Lane.INTERACTIVE, Lane.STANDARD, Lane.BATCH)
"""The first lane that has something waiting leads."""

_RANK: Final = {lane: rank for rank, lane in enumerate(LANE_ORDER)}
_ALWAYS_ALIKE_TOKENS: Final = 16
_ALIKE_SHARE: Final = 4


class Candidate(Protocol):
    """What decides over company."""

    @property
    def lane(self) -> Lane:
        """Its lane."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Its prompt's length."""
        ...

    @property
    def options(self) -> SamplingOptions:
        """How it samples."""
        ...

    @property
    def alone(self) -> bool:
        """A redelivered job may be the one that kills its process: it takes nobody along."""
        ...


C = TypeVar("C", bound=Candidate)


def length_spread(prompt_tokens: int) -> int:
    """How far in length a companion may be from a leader of `prompt_tokens`."""
    return max(_ALWAYS_ALIKE_TOKENS, prompt_tokens // _ALIKE_SHARE)


def batch_size(waiting: int, free_slots: int, max_batch: int) -> int:
    """How many to take into one slot, so that no free slot stays idle."""
    return min(max_batch, -(-waiting // max(free_slots, 1)))


def pick(waiting: Sequence[C], size: int) -> list[C]:
    """The next batch of at most `size` out of `waiting`, which is in order of arrival.

    The longest-waiting item of the most urgent lane leads, so nobody starves within a lane;
    whoever fits it comes along, urgent lanes first.
    """
    leader = min(waiting, key=lambda one: _RANK[one.lane])
    if leader.alone:
        return [leader]
    spread = length_spread(leader.prompt_tokens)
    fitting = [
        one
        for one in waiting
        if not one.alone
        and one.options == leader.options
        and abs(one.prompt_tokens - leader.prompt_tokens) <= spread
    ]
    fitting.sort(key=lambda one: _RANK[one.lane])
    return fitting[:size]
