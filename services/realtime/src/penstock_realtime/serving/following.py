"""Follows one accepted request to its end, whatever dies on the way.

Three sources, from fast to sure: live frames; frames that RESPONSES still keeps, when a gap shows;
and the event log, asked whenever nothing was heard for a while. So a lost subscription, a
restarted broker or a dead worker costs time, never an answer.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from pydantic import ValidationError

from penstock_realtime import metrics
from penstock_realtime.domain.continuation import Continuation
from penstock_realtime.domain.renderer import GapReason, Passage, Told
from penstock_realtime.ports import ContentVault, FrameFeed, FrameSource, RequestLog
from penstock_shared.contracts.errors import ErasedError, TransientError, UnavailableError
from penstock_shared.contracts.requests import (
    AttemptFailed,
    RequestEnded,
    RequestRouted,
    Status,
)
from penstock_shared.contracts.responses import DELTA_START, FinalFrame, decode_delta
from penstock_shared.contracts.streams import DEFAULT_REQUEST_DEADLINE_S, SWEEP_GRACE_S
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_SLACK_S: Final = 15.0
"""After deadline and sweep: time for the sweeper's own fact to be written and found."""
_MAX_SILENCE_S: Final = 5.0
_LAGS_FROM: Final = 16
"""Frames that wait at once."""
_ENDED_WITHOUT_FACT: Final = (
    "No end of this response is known although its deadline has passed: retrieve it by its id."
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a request's frames and facts come from."""

    frames: FrameSource
    facts: RequestLog
    vault: ContentVault
    clock: Clock
    silence_s: float = 1.0

    async def open_final(self, ended: RequestEnded) -> FinalFrame:
        """The final frame that goes with a terminal fact.

        Raises:
            TransientError: the key that opens the output is not there.
            ErasedError: it was destroyed.
        """
        text = b""
        if ended.output is not None:
            text = await self.vault.open(
                ended.tenant, ended.data_subject, ended.request_id, "output", ended.output
            )
        return FinalFrame.from_terminal(ended, text.decode())


class Following:
    """One request on its way to its end; owns its feed."""

    def __init__(self, sources: Sources, tenant: str, request_id: str, feed: FrameFeed) -> None:
        self._sources = sources
        self._tenant = tenant
        self._request_id = request_id
        self._feed = feed
        self.lagging = False
        """Much had come while the client was busy with what came before."""
        self._final: FinalFrame | None = None
        self._waited_s = 0.0
        self._caught_up_s = -math.inf
        self._kept_position = 0
        self._overdue_at = sources.clock.now() + timedelta(
            seconds=DEFAULT_REQUEST_DEADLINE_S + SWEEP_GRACE_S + _SLACK_S
        )

    async def close(self) -> None:
        """Listen no more; safe to call twice."""
        await self._feed.close()

    def end(self, final: FinalFrame) -> None:
        """Its end is known already."""
        self._final = final

    async def final(self, *, ended: bool = False) -> FinalFrame:
        """Wait for the end only.

        Raises:
            UnavailableError: no end is known long after the deadline.
        """
        if ended:
            await self._ask_log()
        while self._final is None:
            # Deltas only break the silence: waking up for each would cost 9 µs a token.
            for frame in await self._next_frames(until_final=True):
                if not frame.startswith(DELTA_START):
                    self._take_final(frame)
            if self._feed.overflowed():  # a final frame of an enormous answer
                await self._ask_log()
        return self._final

    async def pieces(
        self, *, after: int | None = None, passage: Passage | None = None
    ) -> AsyncIterator[Told]:
        """Batches of text in order, and of gaps, until the end.

        `after` is the number of the last delta that the client has, -1 when it has none; None for
        a request that has only just been accepted. A delta that comes in its turn while nobody is
        busy with an earlier one is told through the passage, and not yielded: that takes half the
        time. Afterwards `final()` returns at once.

        Raises:
            DivergedError: what was yielded is no beginning of the answer that took effect.
            UnavailableError: no end is known long after the deadline.
        """
        text = Continuation(-1 if after is None else after)
        returns = after is not None
        direct = None if passage is None else partial(_told_directly, text, passage)
        if returns and self._final is None:
            await self._ask_log()
        if returns and self._final is None:
            async for told in self._catch_up(text, "expired"):
                yield told
        while self._final is None:
            frames = await self._next_frames(direct=direct)
            self.lagging = len(frames) >= _LAGS_FROM
            yield self._feed_all(text, frames, "slow_reader" if self._feed.lossy else None)
            if self._final is not None:
                break
            if self._feed.overflowed():
                metrics.WS_REREAD.inc()
                self.lagging = True
                await self._ask_log()  # what was refused may have been the end
            elif not text.missing or not self._may_catch_up():
                continue
            async for told in self._catch_up(
                text, "expired" if returns and text.last == after else None
            ):
                yield told
        yield text.finish(self._final)

    def _feed_all(
        self, text: Continuation, frames: list[bytes], lossy: GapReason | None = None
    ) -> Told:
        deltas = []
        for frame in frames:
            delta = decode_delta(frame)
            if delta is None:
                self._take_final(frame)
            else:
                deltas.append(delta)
        if self._final is not None and not text.begun:
            return []  # all of it comes from the final text: nothing of a run that lost
        if len(deltas) == 1:
            return text.feed(deltas[0], lossy)
        return [told for delta in deltas for told in text.feed(delta, lossy)]

    def _may_catch_up(self) -> bool:
        # What a restarted broker has lost stays lost: not every later delta may ask for it again.
        return self._sources.clock.monotonic_s() - self._caught_up_s >= self._sources.silence_s

    async def _catch_up(self, text: Continuation, lossy: GapReason | None) -> AsyncIterator[Told]:
        """Feed what RESPONSES keeps, a page at a time: a slow reader holds one page at most.

        What it does not have comes from the final text; with `lossy` a gap is told at once.
        """
        text.missing = False
        self._caught_up_s = self._sources.clock.monotonic_s()
        found, more = False, True
        while more and self._final is None:
            try:
                kept = await self._sources.frames.kept(
                    self._tenant, self._request_id, self._kept_position
                )
            except TransientError:
                break
            self._kept_position, more = kept.position, kept.more
            told = self._feed_all(text, kept.frames, lossy)
            found = found or bool(told)
            yield told
        metrics.GAPS.labels("filled" if found else "waiting").inc()

    async def _next_frames(
        self, *, until_final: bool = False, direct: Callable[[bytes], bool] | None = None
    ) -> list[bytes]:
        """Frames, or none after a silence; then the log has been asked."""
        # A queue of thousands must not turn into thousands of look-ups a second: the interval
        # grows with the time waited, up to five seconds.
        silence_s = min(self._sources.silence_s + self._waited_s / 10, _MAX_SILENCE_S)
        frames = await self._feed.get(silence_s, until_final=until_final, direct=direct)
        if frames:
            self._waited_s = 0.0
            return frames
        self._waited_s += silence_s
        await self._ask_log()
        if self._final is None and self._sources.clock.now() > self._overdue_at:
            raise UnavailableError(_ENDED_WITHOUT_FACT, code="response_overdue")
        return []

    async def _ask_log(self) -> None:
        metrics.LOG_LOOKUPS.inc()
        with suppress(TransientError):  # a broker that restarts is asked again a second later
            fact = await self._sources.facts.last_fact(self._tenant, self._request_id)
            if isinstance(fact, RequestEnded):
                self._final = await self._open(fact)
            elif fact is not None:
                await self._expect_end(fact)

    async def _open(self, ended: RequestEnded) -> FinalFrame:
        try:
            return await self._sources.open_final(ended)
        except ErasedError as error:
            failed = ended.model_copy(
                update={"status": Status.FAILED, "reason": "error", "error": error.body()}
            )
            return FinalFrame.from_terminal(failed, "")

    async def _expect_end(self, fact: RequestRouted | AttemptFailed) -> None:
        """Whichever attempt it has come to, its deadline is that of its first fact."""
        routed = (
            fact
            if isinstance(fact, RequestRouted)
            else await self._sources.facts.routed(self._tenant, self._request_id)
        )
        if routed is not None:
            self._overdue_at = routed.deadline + timedelta(seconds=SWEEP_GRACE_S + _SLACK_S)

    def _take_final(self, frame: bytes) -> None:
        try:
            self._final = FinalFrame.model_validate_json(frame)
        except ValidationError:
            log().error("frame.unreadable", request_id=self._request_id)


def _told_directly(text: Continuation, passage: Passage, frame: bytes) -> bool:
    if not passage.ready():
        return False
    delta = decode_delta(frame)
    if delta is None or not text.expects(delta):
        return False
    passage.tell(text.feed(delta))
    return True
