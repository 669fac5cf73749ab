"""Which text goes to the client next, whatever runs, duplicates and losses arrive (I6).

A job that is redelivered runs again under a new run id, from its first token. What the client
already has stays; a run may add to it only while its own text begins with all that was delivered.
The final frame names the winner and carries the whole text: it fills what was lost, and if the
delivered text is no beginning of it, that is an error and never silence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise

from penstock_realtime.errors import DivergedError
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import Delta, FinalFrame

Run = tuple[int, str]
"""(attempt, run id)."""


@dataclass(slots=True)
class _Progress:
    """What is known of one run, as far as it is contiguous from its first delta."""

    next_n: int = 0
    text: str = ""
    """Kept only once there is more than one run."""


@dataclass(slots=True)
class Continuation:
    """Turns the frames of one request into the JSON literals that the client gets, in order."""

    missing: bool = False
    """A frame came before its turn: those between may be fetched and fed again."""
    _leader: Run | None = None
    _runs: dict[Run, _Progress] = field(default_factory=dict)
    _text: str = ""
    _unparsed: list[bytes] = field(default_factory=list)
    """Literals sent after `_text`: parsed only when somebody needs the text."""

    @property
    def delivered(self) -> str:
        """All text that the client has."""
        if self._unparsed:
            # Literals are JSON strings of whole code points, so their insides join into one.
            joined = b"".join([literal[1:-1] for literal in self._unparsed])
            self._text += json.loads(b'"' + joined + b'"')
            self._unparsed.clear()
        return self._text

    def feed(self, delta: Delta) -> bytes | None:
        """Take one delta; returns the literal to send, or None."""
        run = (delta.attempt, delta.run)
        progress = self._runs.get(run)
        if progress is None:
            progress = self._meet(run)
        if delta.n != progress.next_n:
            self.missing = self.missing or delta.n > progress.next_n
            return None
        progress.next_n += 1
        if len(self._runs) == 1:  # the usual case: bytes pass through, nothing is parsed
            return self._send(delta.text_json)
        progress.text += delta.text
        return self._overtake(run, progress.text)

    def finish(self, final: FinalFrame) -> list[bytes]:
        """The literals that the client still lacks; none when the request failed.

        Raises:
            DivergedError: what the client has is no beginning of the final text.
        """
        if final.status is Status.FAILED:  # said explicitly, with or without a text
            return []
        delivered = self.delivered
        if not final.text.startswith(delivered):
            msg = (
                "The text streamed so far is not the beginning of the answer that took effect: "
                "retrieve the response by its id."
            )
            raise DivergedError(msg)
        start = len(delivered)
        cuts = [end for end in final.delta_ends if start < end < len(final.text)]
        bounds = [start, *cuts, len(final.text)]
        return [
            self._send(_literal(final.text[begin:end]))
            for begin, end in pairwise(bounds)
            if begin < end
        ]

    def _meet(self, run: Run) -> _Progress:
        if self._leader is not None and len(self._runs) == 1:
            self._runs[self._leader].text = self.delivered
        if self._leader is None:
            self._leader = run
        progress = self._runs[run] = _Progress()
        return progress

    def _overtake(self, run: Run, text: str) -> bytes | None:
        delivered = self.delivered
        if len(text) <= len(delivered) or not text.startswith(delivered):
            return None
        self._leader = run
        return self._send(_literal(text[len(delivered) :]))

    def _send(self, literal: bytes) -> bytes:
        self._unparsed.append(literal)
        return literal


def _literal(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
