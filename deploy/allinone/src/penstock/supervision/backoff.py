"""How long to wait before a process that died is started again. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackOff:
    """Exponential back-off that forgets once a process has held out."""

    first_s: float = 0.1
    longest_s: float = 5.0
    # A process that was ready for so long starts from `first_s` again when it dies.
    forgiven_after_s: float = 10.0

    def next_streak(self, streak: int, ready_for_s: float) -> int:
        """Count the deaths in a row, this one included, after `ready_for_s` of good health."""
        return 1 if ready_for_s >= self.forgiven_after_s else streak + 1

    def delay_s(self, streak: int) -> float:
        """Return the pause before the next start, given the deaths in a row (1 or more)."""
        # Beyond 2**30 the doubling has long met its bound, and floats would overflow.
        doubled: float = self.first_s * 2 ** min(streak - 1, 30)
        return min(self.longest_s, doubled)
