"""Follows EVENTS and learns: one fold, in the order of the log, over the facts that teach."""

from __future__ import annotations

from collections.abc import Callable

from penstock_router.adapters.learned_snapshots import LearnedSnapshots
from penstock_router.adapters.tasks import Tasks
from penstock_router.domain.learned import Learned
from penstock_router.domain.outcome import Outcome
from penstock_router.ports import RequestLog
from penstock_shared.runtime.broker import Broker


class Learner:
    """Keeps `learned` up to date with the event log."""

    def __init__(
        self,
        broker: Broker,
        request_log: RequestLog,
        learned: Learned,
        snapshots: LearnedSnapshots,
        *,
        save_every_s: float,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        """`on_outcome` hears what became of attempts and answers, right after it was learned."""
        self._broker = broker
        self._log = request_log
        self._learned = learned
        self._snapshots = snapshots
        self._save_every_s = save_every_s
        self._on_outcome = on_outcome
        self._tasks = Tasks()

    @property
    def learned(self) -> Learned:
        """What was learned so far."""
        return self._learned

    @property
    def events_seq(self) -> int:
        """The sequence of the last fact of EVENTS that was folded."""
        raise NotImplementedError

    @property
    def behind(self) -> int:
        """How many facts are in EVENTS and not yet folded, as far as this replica knows."""
        raise NotImplementedError

    async def start(self) -> None:
        """Load the snapshots, read what follows them (for ten seconds at most), then follow."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """Which of its tasks are gone."""
        return self._tasks.gone()

    async def stop(self) -> None:
        """Save once more, and stop."""
        raise NotImplementedError
