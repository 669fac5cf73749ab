"""Routed requests that have no terminal yet: a fold over EVENTS, and what of it has expired."""

from __future__ import annotations

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class OpenRequest:
    """One routed request; ordered by when it expires."""

    expires_unix_s: float
    subject: str
    sequence: int


class OpenRequests:
    """Which requests are open, and in which order they expire."""

    def __init__(self) -> None:
        self._open: dict[str, OpenRequest] = {}
        self._by_expiry: list[OpenRequest] = []

    def __len__(self) -> int:
        return len(self._open)

    def routed(self, subject: str, sequence: int, expires_unix_s: float) -> None:
        """A request was routed at `sequence`."""
        request = OpenRequest(expires_unix_s, subject, sequence)
        self._open[subject] = request
        heapq.heappush(self._by_expiry, request)

    def ended(self, subject: str) -> None:
        """Its terminal fact was seen."""
        self._open.pop(subject, None)
        # The heap forgets lazily; rebuild it when most of it is history.
        if len(self._by_expiry) > 2 * len(self._open) + 1_000:
            self._by_expiry = sorted(self._open.values())

    def take_expired(self, now_unix_s: float) -> list[OpenRequest]:
        """Remove and return what expired, oldest first."""
        expired = []
        while self._by_expiry and self._by_expiry[0].expires_unix_s <= now_unix_s:
            request = heapq.heappop(self._by_expiry)
            if self._open.get(request.subject) == request:
                del self._open[request.subject]
                expired.append(request)
        return expired
