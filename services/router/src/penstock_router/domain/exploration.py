"""What a tenant may spend on exploring: an account that its own decisions fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_DECISIONS_AT_ONCE: Final = 32
"""One decision spends at most this part of the balance: so many that do not know of one another
cannot overdraw it, and what more of them overdraw is paid back before any explores again."""
_MEMORY: Final = 1_000
"""Decisions after which what was not spent is worth 1/e."""
_UNJUDGED: Final = 200
"""Decisions in a row of which nothing was learned; from then on exploring would be for nothing."""


@dataclass(slots=True)
class ExplorationAccount:
    """A share of each decision's expected loss comes in, what exploring costs goes out."""

    balance_microusd: float = 0.0
    unjudged: int = 0
    """Decisions since the last answer that was judged."""

    @property
    def budget_microusd(self) -> float:
        """For the next decision."""
        return max(0.0, self.balance_microusd / _DECISIONS_AT_ONCE)

    def decided(self, *, loss_microusd: float, share: float, spent_microusd: float) -> None:
        """A decision whose best known choice is expected to cost `loss_microusd`."""
        self.balance_microusd -= self.balance_microusd / _MEMORY if self.balance_microusd > 0 else 0
        if self.unjudged < _UNJUDGED:
            self.balance_microusd += share * loss_microusd
        self.balance_microusd -= spent_microusd
        self.unjudged += 1

    def judged(self) -> None:
        """It became known how right an answer was."""
        self.unjudged = 0
