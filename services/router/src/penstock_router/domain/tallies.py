"""How often a tenant's attempts failed, by task and model, and what an answer takes; decayed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Final, TypeAlias

MEMORY: Final = 50
"""Attempts of a kind after which one counts 1/e."""
_ENTRIES: Final = 512
"""The kinds that were seen least recently are forgotten first."""
_EVERY_SHAPE: Final = ""
_BORROWED: Final = 5.0
"""So many attempts' weight has what is known of the model's other tasks, or of models at all."""
_FAILURES_AT_FIRST: Final = 0.05

Key: TypeAlias = tuple[str, str]
"""Shape and model."""


@dataclass(slots=True)
class Tally:
    """Attempts of one kind; every number is a decayed sum."""

    attempts: float = 0.0
    failures: float = 0.0
    """Without an answer that could be used."""
    broken: float = 0.0
    """Of those, the ones that no check has found: the model's own errors."""
    answers: float = 0.0
    """With output."""
    output_tokens: float = 0.0
    timed: float = 0.0
    latency_ms: float = 0.0

    def add(
        self, *, failed: bool, broken: bool, output_tokens: int, latency_ms: float | None
    ) -> None:
        """One more attempt; `latency_ms` None: its time was not only its own."""
        keep = 1 - 1 / MEMORY
        self.attempts = self.attempts * keep + 1
        self.failures = self.failures * keep + failed
        self.broken = self.broken * keep + broken
        if output_tokens:
            self.answers = self.answers * keep + 1
            self.output_tokens = self.output_tokens * keep + output_tokens
        if latency_ms is not None:
            self.timed = self.timed * keep + 1
            self.latency_ms = self.latency_ms * keep + latency_ms


class Tallies:
    """The tallies of one tenant, bounded in number."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Tally] = {}

    def __iter__(self) -> Iterator[tuple[Key, tuple[float, ...]]]:
        """All of it, the least recently seen first: what `put` takes."""
        return ((key, astuple(tally)) for key, tally in self._by_key.items())

    def add(
        self,
        shape: str,
        model: str,
        *,
        failed: bool,
        broken: bool,
        output_tokens: int,
        latency_ms: float | None,
    ) -> None:
        """One more attempt of `model` at a task of this shape."""
        for key in dict.fromkeys(((shape, model), (_EVERY_SHAPE, model))):
            tally = self._by_key.pop(key, None) or Tally()
            tally.add(
                failed=failed, broken=broken, output_tokens=output_tokens, latency_ms=latency_ms
            )
            self.put(key, tally)

    def put(self, key: Key, tally: Tally) -> None:
        """Set one, as the most recently seen."""
        self._by_key[key] = tally
        if len(self._by_key) > _ENTRIES:
            del self._by_key[next(iter(self._by_key))]

    def models(self) -> set[str]:
        """Of which there are any."""
        return {model for _, model in self._by_key}

    def attempts(self, shape: str, model: str) -> float:
        """How many attempts stand behind `failure_rate`, decayed."""
        return self._of(shape, model).attempts

    def failure_rate(self, shape: str, model: str) -> float:
        """The share without a usable answer; drawn to the model's own where few are known."""
        everywhere = self._of(_EVERY_SHAPE, model)
        rate = _drawn(everywhere.failures, everywhere.attempts, _FAILURES_AT_FIRST)
        here = self._of(shape, model)
        return _drawn(here.failures, here.attempts, rate)

    def breakdown_rate(self, model: str) -> float:
        """The share of attempts that ended by an error of the model's own; 0 until it has some."""
        tally = self._of(_EVERY_SHAPE, model)
        return _drawn(tally.broken, tally.attempts, 0.0)

    def output_tokens(self, shape: str, model: str) -> float | None:
        """Mean of the answers; of the model's others where it has none of this shape."""
        return next(
            (
                tally.output_tokens / tally.answers
                for tally in (self._of(shape, model), self._of(_EVERY_SHAPE, model))
                if tally.answers
            ),
            None,
        )

    def latency_ms(self, shape: str, model: str) -> float | None:
        """Mean time from `routed` to the end of a first attempt, as above."""
        return next(
            (
                tally.latency_ms / tally.timed
                for tally in (self._of(shape, model), self._of(_EVERY_SHAPE, model))
                if tally.timed
            ),
            None,
        )

    def _of(self, shape: str, model: str) -> Tally:
        return self._by_key.get((shape, model)) or _NONE


_NONE: Final = Tally()


def _drawn(part: float, whole: float, to: float) -> float:
    return (part + _BORROWED * to) / (whole + _BORROWED)
