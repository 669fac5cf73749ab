"""What a router still does when the platform is not whole: from everything to nothing new.

A worse mode comes when it has been called for during some seconds, and read-only at once; a better
one only after a longer quiet time, so that nothing flaps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.models import Engine, ModelKind, ModelRecord
from penstock_shared.contracts.requests import MAX_DEADLINE_S
from penstock_shared.contracts.routing import Choose, Mode, PolicyRules
from penstock_shared.contracts.subjects import Lane

WORSE_AFTER_S: Final = 2.0
BETTER_AFTER_S: Final = 10.0
READ_ONLY_AFTER: Final = 3
"""Unconfirmed writes in a row."""
WRITABLE_AFTER_S: Final = 3.0
"""How long the log must be there again before new requests are taken."""
_FACTS_BEHIND: Final = 10_000
_SLOW_WRITE_S: Final = 1.0
_WRITE_WEIGHT: Final = 0.1
_WRITE_FADES: Final = 0.95
"""With each look: a slow write of long ago says nothing."""
_CALMER: Final = 0.5
"""What a mode came for must fall to this share of its limit before it ends."""
_WHOLE: Final = (Mode.FULL, "everything works")
_RANK: Final = {mode: rank for rank, mode in enumerate(Mode)}
"""`Mode` names them from all to least."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What a router sees of the platform, once a second."""

    connected: bool
    """To the broker."""
    dearer_away: bool
    """There are models that are dearer than the cheapest, and none of them can be used."""
    batch_wait_s: float | None
    """For how long a job of the batch lane would wait for the least loaded text model; None: not
    known."""
    facts_behind: int
    """How many facts of the event log this router has not read yet."""


def text_models(models: Collection[ModelRecord]) -> list[ModelRecord]:
    """Those that `auto` is for, quarantined ones included; cheapest first."""
    every = (
        model
        for model in models
        if model.kind is ModelKind.TEXT and model.engine is not Engine.ECHO
    )
    return sorted(every, key=lambda model: (model.price.output_microusd_per_1k, model.name))


def dearer_away(models: Collection[ModelRecord], is_usable: Callable[[ModelRecord], bool]) -> bool:
    """Whether there are dearer models than the cheapest, and none of them can be used."""
    cheapest_first = text_models(models)
    if not cheapest_first:
        return False
    least = cheapest_first[0].price.output_microusd_per_1k
    dearer = [each for each in cheapest_first if each.price.output_microusd_per_1k > least]
    return bool(dearer) and not any(is_usable(model) for model in dearer)


class Modes:
    """The mode that a router is in. Times are seconds of a monotonic clock."""

    def __init__(self, *, batch_wait_limit_s: float) -> None:
        """`batch_wait_limit_s`: the estimated wait from which on the batch lane is refused."""
        self._batch_wait_limit_s = batch_wait_limit_s
        self._mode = Mode.FULL
        self._why = _WHOLE[1]
        self._unconfirmed = 0
        self._write_s = 0.0
        self._called_for = _WHOLE
        self._called_since_s: float | None = None
        """Since when a worse mode, or a better one, is called for; None: neither is."""
        self._relief_in_s = 0.0

    @property
    def mode(self) -> Mode:
        """The mode now."""
        return self._mode

    @property
    def why(self) -> str:
        """In words, for operators."""
        return self._why

    @property
    def wants_proof(self) -> bool:
        """Whether it is unknown if the event log takes writes, so that one must be tried."""
        return self._unconfirmed >= READ_ONLY_AFTER

    def wrote(self, took_s: float | None) -> None:
        """The event log has answered a write after so long; None: it has not."""
        if took_s is None:
            self._unconfirmed += 1
            return
        self._unconfirmed = 0
        self._write_s += _WRITE_WEIGHT * (took_s - self._write_s)

    def look(self, signs: Signs, now_s: float) -> bool:
        """Take in what is seen; whether the mode is another one now."""
        called_for, why = self._wanted(signs)
        self._write_s *= _WRITE_FADES
        self._relief_in_s = (signs.batch_wait_s or 0) - _CALMER * self._batch_wait_limit_s
        if called_for is self._mode:
            self._called_since_s = None
            self._why = why
            return False
        self._call(called_for, why, now_s)
        if self._due_in_s(now_s) > 0:
            return False
        (self._mode, self._why), self._called_since_s = self._called_for, None
        return True

    def refuse(self, lane: Lane, now_s: float) -> None:
        """Refuse what this mode does not take.

        Raises:
            UnavailableError: `read_only` or `batch_refused`; `retry_after_s` is when that may be
                over at the earliest.
        """
        if self._mode is Mode.READ_ONLY:
            msg = (
                "The event log does not take writes, so that no new request is accepted; answers "
                "that exist can be read: try again later."
            )
            raise UnavailableError(msg, code="read_only", retry_after_s=self._back_in_s(now_s))
        if self._mode is Mode.NO_BATCH and lane is Lane.BATCH:
            msg = "There is more to do than gets done, and the batch lane waits: try again later."
            raise UnavailableError(msg, code="batch_refused", retry_after_s=self._back_in_s(now_s))

    def rules(self, rules: PolicyRules) -> PolicyRules:
        """A tenant's rules as far as this mode follows them."""
        if self._mode is Mode.FULL:
            return rules
        return rules.model_copy(update={"choose": Choose.CHEAPEST, "max_attempts": 1})

    def _wanted(self, signs: Signs) -> tuple[Mode, str]:
        most = _CALMER if _RANK[self._mode] >= _RANK[Mode.NO_BATCH] else 1.0
        wait_s, behind, write_s = signs.batch_wait_s or 0.0, signs.facts_behind, self._write_s
        reasons = (
            (not signs.connected, Mode.READ_ONLY, "the broker does not answer"),
            (self.wants_proof, Mode.READ_ONLY, "the event log does not confirm writes"),
            (
                wait_s > most * self._batch_wait_limit_s,
                Mode.NO_BATCH,
                f"a job of the batch lane would wait for {wait_s:.0f} s",
            ),
            (
                behind > most * _FACTS_BEHIND,
                Mode.NO_BATCH,
                f"{behind} facts of the event log are not read yet",
            ),
            (
                write_s > most * _SLOW_WRITE_S,
                Mode.NO_BATCH,
                f"a write to the event log takes {write_s:.1f} s",
            ),
            (signs.dearer_away, Mode.CHEAP_ONLY, "no model but the cheapest can be used"),
        )
        return next(((mode, why) for seen, mode, why in reasons if seen), _WHOLE)

    def _call(self, wanted: Mode, why: str, now_s: float) -> None:
        """Note what is called for: of several better modes the worst, of worse ones the best.

        Read-only does not wait.
        """
        before = _RANK[self._called_for[0]]
        better = _RANK[wanted] < _RANK[self._mode]
        turned = better != (before < _RANK[self._mode])
        if self._called_since_s is None or turned:
            self._called_since_s, self._called_for = now_s, (wanted, why)
        elif wanted is Mode.READ_ONLY or better == (_RANK[wanted] > before):
            self._called_for = wanted, why

    def _due_in_s(self, now_s: float) -> float:
        """Until the mode that is called for may follow."""
        if self._called_since_s is None:
            return WRITABLE_AFTER_S if self._mode is Mode.READ_ONLY else BETTER_AFTER_S
        return self._called_since_s + self._patience_s() - now_s

    def _patience_s(self) -> float:
        called_for = self._called_for[0]
        if called_for is Mode.READ_ONLY:
            return 0.0
        if self._mode is Mode.READ_ONLY:
            return WRITABLE_AFTER_S
        return WORSE_AFTER_S if _RANK[called_for] > _RANK[self._mode] else BETTER_AFTER_S

    def _back_in_s(self, now_s: float) -> float:
        relief_in_s = self._relief_in_s if self._mode is Mode.NO_BATCH else 0.0
        return min(max(1.0, self._due_in_s(now_s) + max(0.0, relief_in_s)), MAX_DEADLINE_S)
