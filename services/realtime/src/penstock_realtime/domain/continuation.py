"""Which text goes to the client next, whatever runs, duplicates and losses arrive (I6).

A job that is redelivered runs again under a new run id, from its first token. What the client
already has stays; a run may add to it only while its own text begins with all that was delivered.
The final frame names the winner and carries the whole text: it fills what was lost, and if the
delivered text is no beginning of it, that is an error and never silence.

Deltas have numbers that mean the same on every instance (contracts/responses.py). So a client that
comes back names the last one it has: what lies before is fed here too, silently, and it goes on
after it. Where that is not possible a `Gap` says which numbers will not come.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from penstock_realtime.domain.renderer import Gap, GapReason, Piece, Told, joined_literal
from penstock_realtime.errors import DivergedError
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import RUN_NUMBERS, Delta, FinalFrame

Run = tuple[int, str]
"""(attempt, run id)."""


@dataclass(slots=True)
class _Progress:
    """What is known of one run, as far as it is contiguous from its first delta."""

    next_n: int
    text: str = ""
    """Kept only once there is more than one run."""


@dataclass(slots=True)
class Continuation:
    """Turns the frames of one request into what the client gets, in order."""

    last: int = -1
    """The number of the last delta that the client has, or was told it will not get."""
    missing: bool = False
    """A frame came before its turn: those between may be fetched and fed again."""
    _position: int = -1
    """The number up to which frames were taken; behind `last` while a beginning is fed again."""
    _torn: bool = False
    """What text the client has is not known, only its last number."""
    _waiting: bool = False
    """Nor where a run's text goes on from there: the end will show."""
    _leader: Run | None = None
    _runs: dict[Run, _Progress] = field(default_factory=dict)
    _text: str = ""
    _unparsed: list[bytes] = field(default_factory=list)
    """Literals that follow `_text`: parsed only when somebody needs the text."""

    @property
    def delivered(self) -> str:
        """All text up to `_position`."""
        if self._unparsed:
            self._text += json.loads(joined_literal(self._unparsed))
            self._unparsed.clear()
        return self._text

    @property
    def begun(self) -> bool:
        """Whether any run was met."""
        return self._leader is not None

    def expects(self, delta: Delta) -> bool:
        """Whether this is the next delta of a run that was met."""
        progress = self._runs.get((delta.attempt, delta.run))
        return progress is not None and progress.next_n == delta.n

    def feed(self, delta: Delta, lossy: GapReason | None = None) -> Told:
        """Take one delta; returns what the client gets for it, mostly one piece.

        With `lossy`, what is not there by now will not come: a gap is told instead of waiting.
        """
        run = (delta.attempt, delta.run)
        progress = self._runs.get(run)
        if progress is None:
            progress = self._meet(run, delta.n - delta.n % RUN_NUMBERS)
        if delta.n < progress.next_n:
            return []
        if delta.n > progress.next_n:
            if lossy is None or run != self._leader:
                self.missing = True
                return []
            gap = self._tear(delta.n, lossy)
            progress.next_n = delta.n + 1
            return gap + self._send(delta.n, delta.text_json)
        progress.next_n += 1
        if self._torn and run != self._leader:
            return []  # it cannot be compared with what the client has
        if self._torn or len(self._runs) == 1:  # bytes pass through, nothing is parsed
            return self._send(delta.n, delta.text_json)
        progress.text += delta.text
        return self._overtake(run, delta.n, progress.text)

    def finish(self, final: FinalFrame) -> Told:
        """What the client still lacks; nothing when the request failed, or called a function.

        Raises:
            DivergedError: what the client has is no beginning of the final text.
        """
        if final.status is Status.FAILED:  # said explicitly, with or without a text
            return []
        if self._torn or self._waiting or self._position < self.last:
            start = final.offset_after(self.last)
            if start is None:  # the client followed a run that did not win
                end = -1 if final.called is not None else final.end_number - 1
                return [Gap(self.last + 1, end, "expired")] if end > self.last else []
        else:
            if not final.text.startswith(self.delivered):
                msg = (
                    "The text streamed so far is not the beginning of the answer that took effect: "
                    "retrieve the response by its id."
                )
                raise DivergedError(msg)
            start = len(self.delivered)
        if final.called is not None:
            return []  # its end tells a call whole
        return self._rest(final, start)

    def _rest(self, final: FinalFrame, start: int) -> Told:
        told: Told = []
        marks = [*zip(final.delta_ends, final.numbers, strict=True), (len(final.text), 0)]
        for end, number in marks:
            if end > start:
                first, self.last = self.last + 1, max(number, self.last + 1)
                told.append(Piece(first, self.last, _literal(final.text[start:end])))
                start = end
        return told

    def _meet(self, run: Run, first_n: int) -> _Progress:
        if self._leader is not None and len(self._runs) == 1:
            self._runs[self._leader].text = self.delivered
        if self._leader is None:
            self._leader = run
        progress = self._runs[run] = _Progress(first_n)
        return progress

    def _tear(self, upcoming: int, reason: GapReason) -> Told:
        """The leader's deltas before `upcoming` are gone."""
        self._torn = True
        self._position = upcoming - 1
        if upcoming <= self.last + 1:
            return []
        gap = Gap(self.last + 1, upcoming - 1, reason)
        self.last = gap.last
        return [gap]

    def _overtake(self, run: Run, number: int, text: str) -> Told:
        delivered = self.delivered
        if len(text) <= len(delivered) or not text.startswith(delivered):
            return []
        self._leader = run
        return self._send(max(number, self._position + 1), _literal(text[len(delivered) :]))

    def _send(self, number: int, literal: bytes) -> Told:
        rebuilt, self._position = self._position >= self.last, number
        if not self._torn:
            self._unparsed.append(literal)
        if number <= self.last:
            return []  # the client has it from before
        # A run that begins after the client's last number repeats text of unknown extent.
        self._waiting = self._waiting or not rebuilt
        if self._waiting:
            return []
        first, self.last = self.last + 1, number
        return [Piece(first, number, literal)]


def _literal(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
