"""The line in front of the slots: urgent lanes first, tenants by their share, nobody for ever.

Within a lane, tenants are served by start-time fair queueing: each has a virtual time, the
tokens it was given divided by its weight, and the one that is furthest behind leads the next
batch. Companions may run ahead of it by `lead_tokens` at most, so batching costs a bounded amount
of fairness (tests/properties/test_worker_line.py states the bound).
Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.

What has waited long moves up a lane, into its tenant's turn there. The over-share lane does not
age, since a flood is old by nature: it is served when the others are empty, and every
`_TRICKLE`-th batch otherwise.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from penstock_shared.contracts.subjects import Lane
from penstock_worker.domain.batching import Room, Size, alike

LANE_ORDER: Final = (Lane.INTERACTIVE, Lane.STANDARD, Lane.BATCH, Lane.OVER_SHARE)
_RANK: Final = {lane: rank for rank, lane in enumerate(LANE_ORDER)}
_LAST: Final = _RANK[Lane.OVER_SHARE]
_TRICKLE: Final = 8
_NOTHING: Final = 1e-6  # tokens: what rounding leaves
_REMEMBERED: Final = 4_096
"""Tenants whose virtual time is kept; the idle ones behind the line's are forgotten first."""


class Waiter(Protocol):
    """Somebody in line."""

    @property
    def lane(self) -> Lane:
        """Its lane."""
        ...

    @property
    def tenant(self) -> str:
        """Whose share it takes."""
        ...

    @property
    def weight(self) -> int:
        """The tenant's share, relative to the others'."""
        ...

    @property
    def company(self) -> Hashable:
        """Only equals share a batch: the loaded model and the sampling options."""
        ...

    @property
    def size(self) -> Size:
        """What it asks of a batch."""
        ...

    @property
    def alone(self) -> bool:
        """It may be the one that kills its process: it takes nobody along."""
        ...

    @property
    def since_s(self) -> float:
        """When it got in line, on the monotonic clock."""
        ...


W = TypeVar("W", bound=Waiter)


@dataclass(frozen=True, slots=True)
class LinePolicy:
    """How the line trades urgency, fairness and company."""

    promote_after_s: float = 5.0
    """Who has waited so long moves up a lane."""
    lead_tokens: int = 8_192
    """How far a companion's tenant may be ahead of the leader's, by weight."""


class Line(Generic[W]):
    """Everybody who waits, for all models of a process."""

    def __init__(self, policy: LinePolicy) -> None:
        self._policy = policy
        self._waiting: dict[W, None] = {}  # in order of arrival
        self._served: dict[str, float] = {}
        self._unsettled: dict[str, float] = {}
        """What each tenant is charged for and may get back. It moves nobody's time but its own:
        else newcomers would start behind a tenant whose answers turn out shorter than feared."""
        self._now_served = 0.0
        """The virtual time of the line: whoever comes back from idling starts here."""
        self._batches = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[W]:
        return iter(tuple(self._waiting))

    def enter(self, one: W) -> None:
        """Get in line."""
        self._waiting[one] = None
        self._served[one.tenant] = max(self._served.get(one.tenant, 0.0), self._now_served)

    def leave(self, one: W) -> None:
        """Give up waiting."""
        self._waiting.pop(one, None)

    def clear(self) -> None:
        """Everybody leaves."""
        self._waiting.clear()

    def count(self, eligible: Callable[[W], bool]) -> int:
        """How many of those wait."""
        return sum(map(eligible, self._waiting))

    def next_batch(
        self, now_s: float, room_of: Callable[[W], Room], eligible: Callable[[W], bool]
    ) -> list[W]:
        """Take the next batch out of the line; empty when nobody eligible waits or may start.

        `room_of` says what the batch that a leader leads may hold; no items at all when it leads
        and cannot start yet, which nobody else does before it. Everybody taken is charged what it
        is expected to cost; `settle` corrects that.
        """
        candidates = [one for one in self._waiting if eligible(one)]
        if not candidates:
            return []
        trickle = (self._batches + 1) % _TRICKLE == 0
        ranks = {one: self._rank(one, now_s, trickle=trickle) for one in candidates}
        leader = min(candidates, key=lambda one: (ranks[one], self._served[one.tenant]))
        room = room_of(leader)
        if not room.items:
            return []
        self._batches += 1
        floor = self._served[leader.tenant]
        self._now_served = max(self._now_served, floor - self._unsettled.get(leader.tenant, 0.0))
        batch = [leader]
        self._take(leader)
        for one in self._by_turns({one: ranks[one] for one in candidates if _fit(leader, one)}):
            if (
                len(batch) == room.items
                or self._served[one.tenant] > floor + self._policy.lead_tokens
            ):
                break
            if room.fits([taken.size for taken in batch], one.size):
                batch.append(one)
                self._take(one)
        self._forget_idle()
        return batch

    def settle(self, one: W, used_tokens: int) -> None:
        """What `one` really took, instead of what it was charged."""
        self._charge(one, used_tokens - one.size.cost)
        self._owe(one, -one.size.cost)

    def _take(self, one: W) -> None:
        del self._waiting[one]
        self._charge(one, one.size.cost)
        self._owe(one, one.size.cost)

    def _owe(self, one: W, tokens: int) -> None:
        owed = self._unsettled.get(one.tenant, 0.0) + tokens / one.weight
        if owed < _NOTHING:
            self._unsettled.pop(one.tenant, None)
        else:
            self._unsettled[one.tenant] = owed

    def _charge(self, one: W, tokens: int) -> None:
        served = self._served.get(one.tenant, self._now_served)
        self._served[one.tenant] = served + tokens / one.weight

    def _by_turns(self, order: Mapping[W, int]) -> Iterator[W]:
        """Whoever comes first in `order`; among equals the tenant that is furthest behind.

        Whoever is yielded is charged before the next one is chosen.
        """
        queues: dict[int, dict[str, deque[W]]] = defaultdict(dict)
        for one, place in order.items():
            queues[place].setdefault(one.tenant, deque()).append(one)
        for place in sorted(queues):
            tenants = queues[place]
            while tenants:
                tenant = min(tenants, key=self._served.__getitem__)
                yield tenants[tenant].popleft()
                if not tenants[tenant]:
                    del tenants[tenant]

    def _rank(self, one: W, now_s: float, *, trickle: bool) -> int:
        rank = _RANK[one.lane]
        if rank == _LAST:
            return -1 if trickle else rank
        return max(0, rank - int((now_s - one.since_s) / self._policy.promote_after_s))

    def _forget_idle(self) -> None:
        if len(self._served) <= _REMEMBERED:
            return
        waiting = {one.tenant for one in self._waiting}
        self._served = {
            tenant: served
            for tenant, served in self._served.items()
            if tenant in waiting or served > self._now_served
        }


def _fit(leader: Waiter, other: Waiter) -> bool:
    return (
        other is not leader
        and not other.alone
        and not leader.alone
        and other.company == leader.company
        and alike(leader.size, other.size)
    )
