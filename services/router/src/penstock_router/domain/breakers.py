"""Models whose machinery fails are left alone, and tried now and then.

Counted is what went wrong on the platform's side, never wrong answers. A fold over the facts of
requests in log order, so that replicas agree.

A tenant's own failures open its own breaker of a model. The breaker for all is decided by a vote
of the tenants that used the model lately, each with the weight of one request at most: what one
tenant does to a model with its own requests shuts nobody else out (I8).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from penstock_router.domain.breaker import Breaker, BreakerState, Tally
from penstock_shared.contracts.errors import UnavailableError, http_status_of
from penstock_shared.contracts.requests import (
    AttemptFailed,
    RequestEnded,
    RequestFact,
    RequestRouted,
    Status,
)

_VOTES: Final = 2.0
"""The least weight of the votes against a model: of more tenants than one, whatever they count."""
_MAJORITY: Final = 0.75
_VOTE_EVERY_S: Final = 1.0
_FORGOTTEN: Final = 0.05
_FEW: Final = 1_000
"""Tenants of a model that are not worth looking through for those that are forgotten."""
_PLATFORMS_FAULT: Final = frozenset({500, 503})


def broke(fact: RequestEnded | AttemptFailed) -> bool | None:
    """Whether the platform failed at this attempt; None where the fact does not tell.

    A request that expired says nothing: it may have waited for its turn, or have had too little
    time. A queue that does not move is refused by its estimated wait.
    """
    if isinstance(fact, AttemptFailed):
        return False  # a wrong answer is an answer
    if fact.error is not None and http_status_of(fact.error) in _PLATFORMS_FAULT:
        return True
    worked = fact.status in {Status.COMPLETED, Status.INCOMPLETE} or fact.usage.output_tokens > 0
    return False if worked else None


@dataclass(slots=True)
class _Own:
    """One tenant's breaker of one model, and the counts that open it."""

    breaker: Breaker = field(default_factory=Breaker)
    tally: Tally = field(default_factory=Tally)


@dataclass(slots=True)
class _Model:
    """The breakers of one model."""

    everybody: Breaker = field(default_factory=Breaker)
    tenants: dict[str, _Own] = field(default_factory=dict)
    doubted_by: set[str] = field(default_factory=set)
    """Whose probes have failed since the breaker for all is half-open."""
    voted_s: float = 0.0
    crowded_at: int = _FEW
    """So many tenants are looked through for those that have not used it for minutes."""

    def forget(self, now_s: float) -> None:
        """Bring all counts up to that time, and drop the tenants of which nothing is left."""
        for own in self.tenants.values():
            own.tally.fade(now_s)
        self.tenants = {
            tenant: own
            for tenant, own in self.tenants.items()
            if own.tally.total >= _FORGOTTEN or own.breaker.state(now_s) is not BreakerState.CLOSED
        }
        self.crowded_at = 2 * len(self.tenants) + _FEW


class Breakers:
    """Each tenant's own breaker of each model, and the one for all.

    Not part of any snapshot: after a restart they are closed, and open by what the log tells then.
    """

    def __init__(self) -> None:
        self._models: defaultdict[str, _Model] = defaultdict(_Model)

    def observe(self, fact: RequestFact, at: datetime) -> None:
        """Fold the next fact of the log; `at` is the time it was stored."""
        now_s = at.timestamp()
        if isinstance(fact, RequestRouted):
            for breaker in self._breakers(fact.tenant, fact.model):
                breaker.routed(now_s)
            return
        failed = broke(fact)
        if failed is not None:
            model = self._models[fact.model]
            if len(model.tenants) >= model.crowded_at:
                model.forget(now_s)
            self._observe_own(model.tenants.setdefault(fact.tenant, _Own()), now_s, failed=failed)
            self._observe_all(model, fact.tenant, now_s, failed=failed)

    def allows(self, tenant: str, model: str, request_id: str, now: datetime) -> bool:
        """Whether this request may go to `model`; `auto` passes over one that it may not."""
        now_s = now.timestamp()
        return all(each.allows(request_id, now_s) for each in self._breakers(tenant, model))

    def require(self, tenant: str, model: str, request_id: str, now: datetime) -> None:
        """Refuse a request that named a model behind an open breaker.

        Raises:
            UnavailableError: `model_failing`; `retry_after_s` is when the next requests are let
                through, to see whether it works again.
        """
        if self.allows(tenant, model, request_id, now):
            return
        waits_s = (each.retry_after_s(now.timestamp()) for each in self._breakers(tenant, model))
        msg = (
            f"The model {model!r} has failed on several requests and is left alone for a while: "
            "try again later, or with another model."
        )
        raise UnavailableError(msg, code="model_failing", retry_after_s=max(waits_s))

    def state(self, model: str, now: datetime) -> BreakerState:
        """Of the breaker for all tenants."""
        known = self._models.get(model)
        if known is None:
            return BreakerState.CLOSED
        return known.everybody.state(now.timestamp())

    def _breakers(self, tenant: str, model: str) -> tuple[Breaker, ...]:
        known = self._models.get(model)
        if known is None:
            return ()
        own = known.tenants.get(tenant)
        return (known.everybody,) if own is None else (own.breaker, known.everybody)

    @staticmethod
    def _observe_own(own: _Own, now_s: float, *, failed: bool) -> None:
        """An open breaker hears nothing: what ends now was routed before it opened."""
        state = own.breaker.state(now_s)
        if state is BreakerState.HALF_OPEN and not failed:
            own.breaker.close()
            own.tally = Tally()
        own.tally.count(now_s, failed=failed)
        closed_and_fails = state is BreakerState.CLOSED and own.tally.fails
        if failed and (state is BreakerState.HALF_OPEN or closed_and_fails):
            own.breaker.trip(now_s)

    def _observe_all(self, model: _Model, tenant: str, now_s: float, *, failed: bool) -> None:
        """As above; but one tenant's failed probes alone do not open it again."""
        state = model.everybody.state(now_s)
        if state is BreakerState.HALF_OPEN:
            if not failed:
                model.everybody.close()
                model.doubted_by.clear()
                return
            model.doubted_by.add(tenant)
            opens = len(model.doubted_by) >= _VOTES
        else:
            opens = state is BreakerState.CLOSED and failed and self._voted_down(model, now_s)
        if opens:
            model.everybody.trip(now_s)
            model.doubted_by.clear()

    @staticmethod
    def _voted_down(model: _Model, now_s: float) -> bool:
        """Whether the tenants that used the model lately have seen it fail."""
        if 0 <= now_s - model.voted_s < _VOTE_EVERY_S:
            return False
        model.voted_s = now_s
        model.forget(now_s)
        against = votes = 0.0
        for own in model.tenants.values():
            total = own.tally.total
            if total > 0:
                weight = min(1.0, total)
                votes += weight
                against += weight * own.tally.failed / total
        return against >= _VOTES and against >= _MAJORITY * votes
