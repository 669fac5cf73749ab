"""Routed requests that have no terminal yet: a fold over EVENTS, counted by tenant."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from operator import attrgetter


@dataclass(frozen=True, slots=True, order=True)
class OpenRequest:
    """One routed request; ordered by when it expires."""

    expires_unix_s: float
    subject: str
    sequence: int
    """Of its last fact."""


class OpenRequests:
    """Which requests are open, whose they are, and in which order they expire.

    A request is known by the subject of its facts. It counts for its tenant from the moment in
    which this router begins to decide it (`deciding`), or from the fold over EVENTS when another
    one has, until its terminal is folded. Facts are folded in the order of the log; what is not
    newer than the last folded sequence changes nothing, so that a repetition, or an admission
    that the fold has overtaken, is harmless.
    """

    def __init__(self, grace_s: float) -> None:
        """`grace_s`: how long after its deadline a request may be declared expired."""
        self._grace_s = grace_s
        self._open: dict[str, OpenRequest] = {}
        self._deciding: dict[str, int] = {}
        self._by_tenant: dict[str, int] = {}
        self._by_expiry: list[OpenRequest] = []
        self._folded = 0

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, subject: str) -> bool:
        return subject in self._open or subject in self._deciding

    def is_routed(self, subject: str) -> bool:
        """Whether the log holds a fact of this request, and no terminal, as far as is known."""
        return subject in self._open

    def of_tenant(self, tenant: str) -> int:
        """How many requests this tenant has open."""
        return self._by_tenant.get(tenant, 0)

    def begin(self, subject: str) -> None:
        """This router decides the request now; `finish` must follow, however it goes."""
        if subject not in self:
            self._count(subject, 1)
        self._deciding[subject] = self._deciding.get(subject, 0) + 1

    def finish(self, subject: str) -> None:
        """The decision is over: the request counts on only if it is open."""
        left = self._deciding[subject] - 1
        if left:
            self._deciding[subject] = left
            return
        del self._deciding[subject]
        if subject not in self._open:
            self._count(subject, -1)

    def admitted(self, subject: str, sequence: int, deadline_unix_s: float) -> None:
        """This router wrote `routed` at `sequence`; the fold will see it later, or has."""
        if sequence > self._folded:
            self._put(OpenRequest(deadline_unix_s + self._grace_s, subject, sequence))

    def fold_open(self, subject: str, sequence: int, deadline_unix_s: float) -> None:
        """EVENTS holds at `sequence` a fact of a request that goes on."""
        if self._advance(sequence):
            self._put(OpenRequest(deadline_unix_s + self._grace_s, subject, sequence))

    def fold_ended(self, subject: str, sequence: int) -> None:
        """EVENTS holds at `sequence` the terminal of a request."""
        if self._advance(sequence):
            self._drop(subject)

    def postpone(self, request: OpenRequest, until_unix_s: float) -> None:
        """Give back what `take_expired` took: it could not be ended, and is due again later."""
        if request.subject not in self._open:
            self._put(OpenRequest(until_unix_s, request.subject, request.sequence))

    def take_expired(self, now_unix_s: float) -> list[OpenRequest]:
        """Remove and return what expired, oldest first."""
        expired = []
        while self._by_expiry and self._by_expiry[0].expires_unix_s <= now_unix_s:
            request = heapq.heappop(self._by_expiry)
            if self._open.get(request.subject) == request:
                self._drop(request.subject)
                expired.append(request)
        return expired

    def _advance(self, sequence: int) -> bool:
        newer = sequence > self._folded
        self._folded = max(self._folded, sequence)
        return newer

    def _put(self, request: OpenRequest) -> None:
        if self._open.get(request.subject) == request:
            return
        if request.subject not in self:
            self._count(request.subject, 1)
        self._open[request.subject] = request
        heapq.heappush(self._by_expiry, request)
        self._forget_history()

    def _drop(self, subject: str) -> None:
        if self._open.pop(subject, None) is not None and subject not in self._deciding:
            self._count(subject, -1)
        self._forget_history()

    def _forget_history(self) -> None:
        """The heap forgets lazily; rebuild it when most of it is history."""
        if len(self._by_expiry) > 2 * len(self._open) + 1_000:
            # By the time alone, which takes a tenth as long: a sorted list is a heap.
            self._by_expiry = sorted(self._open.values(), key=attrgetter("expires_unix_s"))

    def _count(self, subject: str, change: int) -> None:
        tenant = subject.split(".", 2)[1]  # v1.<tenant>.…
        left = self._by_tenant.get(tenant, 0) + change
        if left:
            self._by_tenant[tenant] = left
        else:
            del self._by_tenant[tenant]
