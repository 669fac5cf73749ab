"""What a router still does when the platform is not whole: from everything to nothing new."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_shared.contracts.routing import Mode, PolicyRules
from penstock_shared.contracts.subjects import Lane


@dataclass(frozen=True, slots=True)
class Signs:
    """What a router sees of the platform, once a second."""

    dearer_away: bool
    """Models are registered that are dearer than the cheapest, and none of them can be used."""
    batch_wait_s: float | None
    """For how long a job of the batch lane would wait for the least loaded model; None: unknown."""
    events_lag_s: float
    """How old the oldest fact is that the fold has not seen."""


class Modes:
    """The mode that a router is in; it changes slowly back, so that it does not flap."""

    @property
    def mode(self) -> Mode:
        """The mode now."""
        raise NotImplementedError

    @property
    def why(self) -> str:
        """In words."""
        raise NotImplementedError

    def wrote(self, *, confirmed: bool) -> None:
        """The event log has confirmed a write of this router's, or not."""
        raise NotImplementedError

    def look(self, signs: Signs, now_s: float) -> bool:
        """Take in what is seen; whether the mode is another one now."""
        raise NotImplementedError

    def refuse(self, lane: Lane) -> None:
        """Refuse what this mode does not take.

        Raises:
            UnavailableError: `read_only` or `batch_refused`, with the time to come back.
        """
        raise NotImplementedError

    def rules(self, rules: PolicyRules) -> PolicyRules:
        """A tenant's rules as far as this mode follows them."""
        raise NotImplementedError
