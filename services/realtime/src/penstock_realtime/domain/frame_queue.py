"""What a slow reader has not taken yet: bounded in bytes, with a policy for what does not fit.

A queue holds no promise. RESPONSES keeps the same frames for minutes and the event log the whole
answer for good, so what does not fit is not copied elsewhere: with `block` it is read again from
there once the reader has caught up (ADR 9), with the other policies it is a gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from penstock_realtime.ports import Budget, Policy
from penstock_shared.contracts.responses import DELTA_START


@dataclass(slots=True)
class FrameQueue:
    """Frames of one response, in the order of their arrival."""

    budget: Budget
    policy: Policy = Policy.BLOCK
    overflowed: bool = False
    """Frames after the last one here were refused: they are to be read again."""
    dropped: int = 0
    """Deltas that the policy gave up since the last `take`."""
    _first: deque[bytes] = field(default_factory=deque)
    """`drop_intermediate` keeps these."""
    _first_bytes: int = 0
    _rest: deque[bytes] = field(default_factory=deque)

    def __bool__(self) -> bool:
        """Whether there is anything to take, or to read again."""
        return bool(self._first or self._rest or self.overflowed)

    @property
    def lossy(self) -> bool:
        """Whether a frame that is not here is given up."""
        return self.policy is not Policy.BLOCK

    def push(self, frame: bytes) -> None:
        """Take a frame in, or give one up."""
        if self.overflowed:
            return  # an order without the refused one would be none
        budget, size = self.budget, len(frame)
        is_delta = frame.startswith(DELTA_START)
        while budget.used + size > budget.limit:
            if not is_delta or self.policy is Policy.BLOCK:
                self.overflowed = True  # the final frame, too: the event log has it
                return
            self.dropped += 1
            if self.policy is Policy.DROP_NEWEST or not self._rest:
                return
            budget.used -= len(self._rest.popleft())
        budget.used += size
        half = budget.limit // 2
        if (
            self.policy is Policy.DROP_INTERMEDIATE
            and not self._rest
            and self._first_bytes + size <= half
        ):
            self._first.append(frame)
            self._first_bytes += size
        else:
            self._rest.append(frame)

    def take(self) -> list[bytes]:
        """All that is here."""
        frames = [*self._first, *self._rest]
        self.budget.used -= sum(map(len, frames))
        self._first.clear()
        self._rest.clear()
        self._first_bytes = self.dropped = 0
        return frames
