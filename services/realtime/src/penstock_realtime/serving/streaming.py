"""One response as a stream of events, for whatever wire."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from penstock_realtime import metrics
from penstock_realtime.domain.renderer import Gap, Piece, Renderer, Told, joined_literal
from penstock_realtime.errors import DivergedError, FeedClosedError
from penstock_realtime.serving.following import Following
from penstock_shared.contracts.errors import PenstockError, public_error
from penstock_shared.contracts.responses import FinalFrame


class DirectWay(Protocol):
    """A connection that takes events at once."""

    def ready(self) -> bool:
        """Whether its client has read enough, and nothing else waits to be written."""
        ...

    def write(self, texts: list[bytes]) -> None:
        """Write events; only when `ready`."""
        ...


_JOINED_BYTES: Final = 16 * 1024


async def events(
    following: Following,
    renderer: Renderer,
    *,
    after: int | None = None,
    direct: DirectWay | None = None,
    on_end: Callable[[FinalFrame], None] | None = None,
) -> AsyncGenerator[list[bytes], None]:
    """Batches of events from the first to the one that ends the stream.

    `after` as in `Following.pieces`. Events of single deltas may take the direct way, if there is
    one, and are not yielded then. What the edge itself cannot do ends the stream with an error
    event, never with silence.

    Raises:
        FeedClosedError: the client has gone.
    """
    started_s = time.perf_counter()
    first = True
    passage = None if direct is None else _Rendering(renderer, direct)
    with metrics.RUNNING.track_inprogress():
        try:
            yield renderer.opening()
            async for told in following.pieces(after=after, passage=passage):
                if told:
                    if first:
                        metrics.FIRST_BYTE_S.observe(time.perf_counter() - started_s)
                        first = False
                    yield _rendered(renderer, told, join=following.lagging)
            final = await following.final()
            if on_end is not None:
                on_end(final)
            yield renderer.closing(final)
        except FeedClosedError:
            raise
        except PenstockError as error:
            if isinstance(error, DivergedError):
                metrics.GAPS.labels("diverged").inc()
            known = public_error(error)
            yield renderer.failure(known.body(), known.http_status)
        finally:
            await following.close()


@dataclass(frozen=True, slots=True)
class _Rendering:
    """`Passage` that renders."""

    renderer: Renderer
    way: DirectWay

    def ready(self) -> bool:
        return self.way.ready()

    def tell(self, told: Told) -> None:
        batch = _rendered(self.renderer, told, join=False)
        if batch:
            self.way.write(batch)


def _rendered(renderer: Renderer, told: Told, *, join: bool) -> list[bytes]:
    if len(told) == 1 and isinstance(piece := told[0], Piece):
        return renderer.deltas([piece])
    batch: list[bytes] = []
    pieces: list[Piece] = []
    for one in told:
        if isinstance(one, Gap):
            metrics.GAPS_TOLD.labels(one.reason).inc()
            batch += renderer.deltas(_joined(pieces) if join else pieces)
            batch += renderer.gap(one)
            pieces = []
        else:
            pieces.append(one)
    return batch + renderer.deltas(_joined(pieces) if join else pieces)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """The same text in fewer events: a reader that lags gets it sooner."""
    joined: list[Piece] = []
    run: list[Piece] = []
    size = 0
    for piece in pieces:
        run.append(piece)
        size += len(piece.literal)
        if size >= _JOINED_BYTES:
            joined.append(_one(run))
            run, size = [], 0
    return [*joined, _one(run)] if run else joined


def _one(run: list[Piece]) -> Piece:
    return Piece(run[0].first, run[-1].last, joined_literal(piece.literal for piece in run))
