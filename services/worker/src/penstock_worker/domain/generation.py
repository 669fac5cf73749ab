"""One run of one job: its tokens, its text, and why it stopped.

Two threads meet here without a lock. The engine's thread appends tokens and sets `ended`; the
event loop's thread reads behind it and sets `stop`. Each field has one writer, except `stop`,
where either outcome is true; `ended` is set after the last token, and read before the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from penstock_shared.contracts.subjects import Lane
from penstock_worker.ports import Detokenizer, SamplingOptions


class Stop(Enum):
    """Why a run was stopped from outside; a run that ended by itself has none."""

    LIMIT = "limit"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    ABANDONED = "abandoned"


@dataclass(slots=True, eq=False)
class Generation:
    """The state of one run. `stop_at_s` is on the monotonic clock."""

    prompt: list[str]
    options: SamplingOptions
    lane: Lane
    limit: int
    stop_at_s: float
    detokenizer: Detokenizer
    alone: bool = False

    tokens: list[int] = field(default_factory=list)
    stop: Stop | None = None
    ended: bool = False
    delta_ends: list[int] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _read: int = 0
    _flushed: bool = False

    @property
    def prompt_tokens(self) -> int:
        """The prompt's length."""
        return len(self.prompt)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._parts)

    def accept(self, token: int, now_s: float) -> bool:
        """Engine's thread: one more token; True when the run stops with it.

        The token counts whatever stopped the run: it was generated (I3).
        """
        self.tokens.append(token)
        if self.stop is None:
            if len(self.tokens) >= self.limit:
                self.stop = Stop.LIMIT
            elif now_s >= self.stop_at_s:
                self.stop = Stop.EXPIRED
            else:
                return False
        self.ended = True
        return True

    def request_stop(self, why: Stop) -> None:
        """Loop's thread: stop with the next token."""
        if not self.ended and self.stop is None:
            self.stop = why

    def take(self) -> tuple[str, bool]:
        """Loop's thread: the text since the last call, and whether it was the last."""
        ended = self.ended
        fresh = self.tokens[self._read :]
        self._read += len(fresh)
        text = self.detokenizer.feed(fresh) if fresh else ""
        if ended and not self._flushed:
            self._flushed = True
            text += self.detokenizer.finish()
        if text:
            self._parts.append(text)
            self.delta_ends.append((self.delta_ends[-1] if self.delta_ends else 0) + len(text))
        return text, ended
