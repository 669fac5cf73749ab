"""What was learned, kept in the bucket `router`: a start reads it, and only the log's tail."""

from __future__ import annotations

from penstock_router.domain.learned import Learned
from penstock_shared.runtime.broker import Broker


class LearnedSnapshots:
    """One key per tenant, and a manifest that says up to which fact all of them together reach."""

    def __init__(self, broker: Broker, learned: Learned) -> None:
        self._broker = broker
        self._learned = learned

    async def restore(self) -> int:
        """Load what can be used; returns the sequence from which EVENTS has to be read."""
        raise NotImplementedError

    async def save(self, through: int, *, at_once: bool = False) -> None:
        """Keep what was learned from all facts up to `through`; never goes backwards.

        Of several routers one saves; `at_once` does so even if another one has just done it.

        Raises:
            UnavailableError: the bucket did not confirm; what it holds can be used all the same.
        """
        raise NotImplementedError
