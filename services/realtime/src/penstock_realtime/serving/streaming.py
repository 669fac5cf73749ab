"""One admitted response as a stream of events, for whatever wire."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from penstock_realtime import metrics
from penstock_realtime.domain.rendering import EventStream, Framing
from penstock_realtime.errors import DivergedError, FeedClosedError
from penstock_realtime.serving.admission import Admitted
from penstock_shared.contracts.errors import PenstockError, public_error


async def events(admitted: Admitted, framing: Framing) -> AsyncGenerator[list[bytes], None]:
    """Batches of events from `response.created` to the event that ends the stream.

    What the edge itself cannot do ends it with an `error` event, never with silence.

    Raises:
        FeedClosedError: the client has gone.
    """
    stream = EventStream(admitted.head, framing)
    started_s = time.perf_counter()
    first = True
    with metrics.RUNNING.track_inprogress():
        yield stream.opening()
        try:
            async for literals in admitted.following.pieces(started_before=admitted.keyed):
                if literals:
                    if first:
                        metrics.FIRST_BYTE_S.observe(time.perf_counter() - started_s)
                        first = False
                    yield stream.deltas(literals)
            yield stream.closing(await admitted.following.final())
        except FeedClosedError:
            raise
        except PenstockError as error:
            if isinstance(error, DivergedError):
                metrics.GAPS.labels("diverged").inc()
            known = public_error(error)
            yield [stream.failure(known.body(), known.http_status)]
        finally:
            await admitted.following.close()
