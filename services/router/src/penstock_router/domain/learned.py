"""What the router has learned of each tenant: a fold over EVENTS, in the order of the log.

Two replicas that have folded the same facts hold the same state, whenever either was restarted:
nothing comes from a clock, from chance, or from the process. A fact at or before the sequence up
to which a tenant is folded changes nothing, so that facts may be read again.
"""

from __future__ import annotations

from collections.abc import Collection

from penstock_router.domain.outcome import Outcome
from penstock_router.domain.outcome_facts import (
    failed_its_check,
    outcome_of_end,
    outcome_of_failure,
    outcome_of_feedback,
)
from penstock_router.domain.snapshot import CorruptSnapshotError, dumped, loaded
from penstock_router.domain.tenant_learned import TenantLearned
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import AttemptFailed, Decision, RequestEnded, RequestRouted
from penstock_shared.contracts.routing import PolicySet

__all__ = ["CorruptSnapshotError", "Learned", "TenantLearned"]


class Learned:
    """The state of every tenant; `decision` is always that of the request's `routed`."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantLearned] = {}

    def of(self, tenant: str) -> TenantLearned:
        """What is known of this tenant; nothing yet, where it is new."""
        return self._tenants.get(tenant) or TenantLearned(tenant)

    def tenants(self) -> Collection[str]:
        """Of whom anything is known."""
        return self._tenants.keys()

    def adopt_policy(self, fact: PolicySet, seq: int) -> None:
        """A policy's copy: the log holds the fact no more."""
        self._state(fact.tenant).set_policy(fact, seq)

    def foresee_policy(self, fact: PolicySet, seq: int) -> None:
        """A policy's copy: the log has not been read as far yet."""
        self._state(fact.tenant).foresee_policy(fact, seq)

    def fold_policy(self, fact: PolicySet, seq: int) -> None:
        """A policy was set."""
        if state := self._advanced(fact.tenant, seq):
            state.set_policy(fact, seq)

    def fold_routed(self, fact: RequestRouted, seq: int) -> None:
        """A request was routed."""
        if state := self._advanced(fact.tenant, seq):
            state.decided(fact.decision)

    def fold_attempt_failed(
        self, fact: AttemptFailed, decision: Decision, seq: int
    ) -> Outcome | None:
        """An answer failed its check; returns what was learned, None if it was known before."""
        state = self._advanced(fact.tenant, seq)
        if state is None:
            return None
        outcome = outcome_of_failure(fact, decision)
        state.attempted(outcome, decision, checked=True)
        state.escalated(outcome)
        return outcome

    def fold_ended(self, fact: RequestEnded, decision: Decision, seq: int) -> Outcome | None:
        """A request ended; None also where that says nothing of the model."""
        state = self._advanced(fact.tenant, seq)
        outcome = outcome_of_end(fact, decision)
        if state is None or outcome is None:
            return None
        if fact.run is not None or outcome.correct is not None:  # else it only waited
            state.attempted(outcome, decision, checked=failed_its_check(fact))
        state.ended(outcome)
        return outcome

    def fold_feedback(self, fact: ResponseFeedback, decision: Decision, seq: int) -> Outcome | None:
        """A client judged an answer."""
        state = self._advanced(fact.tenant, seq)
        if state is None:
            return None
        outcome = outcome_of_feedback(fact, decision)
        state.judged(outcome, decision)
        return outcome

    def dump(self, tenant: str) -> bytes:
        """The tenant's state: versioned, checksummed, below 1 MB."""
        return dumped(self.of(tenant))

    def load(self, tenant: str, data: bytes) -> None:
        """Replace the tenant's state by what was dumped; a newer policy stays.

        Raises:
            CorruptSnapshotError: it cannot be used; the state stays as it is.
        """
        before, state = self.of(tenant), loaded(tenant, data)
        if before.policy is not None:
            state.set_policy(before.policy, before.policy_seq)
        self._tenants[tenant] = state

    def _advanced(self, tenant: str, seq: int) -> TenantLearned | None:
        """The state that takes the fact in; None: it has."""
        state = self._state(tenant)
        if seq <= state.seq:
            return None
        state.seq = seq
        return state

    def _state(self, tenant: str) -> TenantLearned:
        if tenant not in self._tenants:
            self._tenants[tenant] = TenantLearned(tenant)
        return self._tenants[tenant]
