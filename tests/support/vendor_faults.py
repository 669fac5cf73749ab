"""Faults on demand or at random: before the request has an effect, or after it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the client sees."""

    RATE_LIMIT = "429"
    ERROR = "500"
    TIMEOUT = "timeout"
    RESET = "reset"


@dataclass
class Fault:
    """Strikes `times` requests to `path` (a prefix), after letting `skip` pass.

    With `effect` the request is done and its answer is lost or turned into an error, which is what
    idempotency keys and identifiers are for. A 429 never has an effect.
    """

    kind: Kind
    path: str = "/"
    method: str = "POST"
    effect: bool = False
    times: int = 1
    skip: int = 0

    def meets(self, method: str, path: str) -> bool:
        """Whether this request is struck; counts."""
        if method != self.method or not path.startswith(self.path) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Faults:
    """Those that are planned, then those by chance."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []
        self._share = 0.0
        self._random = random.Random()
        self.struck: list[tuple[Kind, str, str]] = []
        """Kind, method and path of what was struck."""

    def plan(self, fault: Fault) -> Fault:
        """Strike as it says."""
        self._planned.append(fault)
        return fault

    def at_random(self, share: float, seed: int) -> None:
        """From now on every POST is struck with probability `share`, by any kind."""
        self._share, self._random = share, random.Random(seed)

    def clear(self) -> None:
        """No more."""
        self._planned.clear()
        self._share = 0.0

    def next(self, method: str, path: str) -> Fault | None:
        """The fault of this request, if it has one."""
        found = next((fault for fault in self._planned if fault.meets(method, path)), None)
        if found is None and method == "POST" and self._random.random() < self._share:
            kind = self._random.choice(list(Kind))
            effect = kind is not Kind.RATE_LIMIT and self._random.random() < 0.5
            found = Fault(kind, path, method, effect)
        if found is not None:
            self.struck.append((found.kind, method, path))
        return found
