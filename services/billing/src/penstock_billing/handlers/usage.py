"""Reading EVENTS: one Postgres transaction per batch, acknowledged after its commit."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from nats.aio.msg import Msg
from pydantic import ValidationError

from penstock_billing import metrics
from penstock_billing.domain.metering import METERED_TYPES, distinct, meter, reserved
from penstock_billing.handlers.batches import write_all
from penstock_billing.ports.usage import Added, EventPosition, MeteredUsage, Position, UsageLedger
from penstock_shared.contracts.errors import SchemaError, UnavailableError
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.reservations import RESERVED_HEADER
from penstock_shared.contracts.usage import UsageQuery, UsageReport
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.settlement import Reject, retry_delay_s, settle_error
from penstock_shared.runtime.telemetry import log

_TYPE: Final = "ce-type"
_MAX_PAUSE_S: Final = 2.0
F = TypeVar("F")


def wanted(msg: Msg) -> bool:
    """Facts with usage or with reservations, told by their headers.

    The other half of all events is passed over as it arrives.
    """
    headers = msg.headers or {}
    event_type = headers.get(_TYPE)
    if event_type in METERED_TYPES:
        return True
    if event_type == RequestRouted.TYPE and RESERVED_HEADER in headers:
        return True
    metrics.EVENTS.labels("skipped").inc()
    return False


class BatchSource(Protocol):
    """Where deliveries come from."""

    async def get_batch(self, limit: int, linger_s: float = 0.0) -> list[Delivery]:
        """At least one, and up to `limit` that are here within `linger_s`."""
        ...


class UsageIngest:
    """Turns facts that carry usage into settled usage (I2, I3)."""

    def __init__(
        self,
        ledger: UsageLedger,
        reject: Reject,
        rng: random.Random,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._reject = reject
        self._rng = rng
        self._pause = pause
        self._one_batch = asyncio.Lock()

    async def run(self, source: BatchSource, limit: int, linger_s: float) -> None:
        """Settle batch after batch, for ever."""
        while True:
            batch = await source.get_batch(limit, linger_s)
            async with self._one_batch:
                try:
                    await self.on_batch(batch)
                except Exception as error:  # noqa: BLE001  one bad batch must not end the reading
                    log().error("usage.failed", kind=type(error).__name__, exc_info=error)
                    await _hand_back(batch, _MAX_PAUSE_S)

    async def between_batches(self) -> None:
        """Return when no batch is being written."""
        async with self._one_batch:
            return

    async def on_batch(self, batch: Sequence[Delivery]) -> None:
        """Settle every delivery. Dying anywhere in here repeats the batch, which adds nothing.

        While Postgres is away the batch is held: heartbeats keep it ours, and the consumer's
        credit keeps further ones from coming. When cancelled, what is open is handed back.
        """
        try:
            with metrics.BATCH_SECONDS.time():
                await self._write(batch)
            for delivery in batch:
                if not delivery.settled:
                    await delivery.ack()
        except asyncio.CancelledError:
            await _hand_back(batch, 0)
            raise

    async def _write(self, batch: Sequence[Delivery]) -> None:
        """Usage first: what has been used is not reserved again."""
        metered: list[tuple[Delivery, MeteredUsage]] = []
        routed: list[tuple[Delivery, RequestRouted]] = []
        for delivery in batch:
            event_type = delivery.headers.get(_TYPE)
            try:
                if event_type in METERED_TYPES:
                    metered.append((delivery, _metered(event_type, delivery)))
                elif event_type == RequestRouted.TYPE and RESERVED_HEADER in delivery.headers:
                    routed.append((delivery, reserved(delivery.subject, delivery.data)))
            except SchemaError as error:
                await self._malformed(delivery, error)
        await self._store(metered, self._record)
        await self._store(routed, self._restore)

    async def _record(self, usages: Sequence[MeteredUsage]) -> None:
        _count(await self._ledger.record(distinct(usages)), len(usages))

    async def _restore(self, routed: Sequence[RequestRouted]) -> None:
        once = {(fact.tenant, fact.request_id): fact for fact in routed}
        await self._ledger.restore(list(once.values()))
        metrics.EVENTS.labels("reserved").inc(len(routed))

    async def _store(
        self,
        read: Sequence[tuple[Delivery, F]],
        write: Callable[[Sequence[F]], Awaitable[None]],
    ) -> None:
        """What cannot be written is buried."""

        async def write_them(some: Sequence[tuple[Delivery, F]]) -> None:
            await self._until_written(lambda: write([fact for _, fact in some]))

        async def bury(one: tuple[Delivery, F], error: SchemaError) -> None:
            await self._malformed(one[0], error)

        await write_all(read, write_them, bury)

    async def _until_written(self, write: Callable[[], Awaitable[None]]) -> None:
        tries = 0
        while True:
            try:
                await write()
            except SchemaError:
                raise
            except Exception as error:  # noqa: BLE001  nothing but bad data may lose its turn
                tries += 1
                metrics.LEDGER_RETRIES.inc()
                log().warning("usage.not_written", kind=type(error).__name__, tries=tries)
                await self._pause(min(retry_delay_s(tries, self._rng), _MAX_PAUSE_S))
            else:
                return

    async def _malformed(self, delivery: Delivery, error: SchemaError) -> None:
        """To DEAD, then terminated; its neighbours go on, also if DEAD does not take it."""
        metrics.EVENTS.labels("malformed").inc()
        try:
            await settle_error(delivery, error, self._reject, self._rng)
        except Exception as failure:  # noqa: BLE001  it comes again, and the failure is logged
            log().error("usage.not_buried", kind=type(failure).__name__, exc_info=failure)
            await delivery.nak(retry_delay_s(delivery.deliveries, self._rng))


class UsageDesk:
    """Answers the operator's usage query."""

    def __init__(self, ledger: UsageLedger, position: EventPosition) -> None:
        self._ledger = ledger
        self._position = position

    async def on_query(self, payload: bytes) -> UsageReport:
        """Usage that is settled, and how far EVENTS has been read.

        The position is read first: the sums hold at least everything up to it.

        Raises:
            SchemaError: the query is not of the contract's shape.
            UnavailableError: Postgres or NATS does not answer.
        """
        try:
            query = UsageQuery.model_validate_json(payload or b"{}")
        except ValidationError as error:
            msg = 'A usage query is {} for all tenants, or {"tenant": "…"}.'
            raise SchemaError(msg, param="tenant") from error
        position = await self._look()
        rows = await self._ledger.totals(query.tenant)
        return UsageReport(rows=tuple(rows), events_seq=position.events_seq)

    async def watch(self, interval_s: float) -> None:
        """Keep the metrics fresh, and see a rebuild to its end, for ever."""
        while True:
            with contextlib.suppress(UnavailableError):
                # Asked first: a position from before a replica's reset is not of this reading.
                until_seq = await self._ledger.rebuild_until()
                position = await self._look()
                whole = await self._ledger.rebuild_ended(min(until_seq, position.events_seq))
                metrics.REBUILDING.set(not whole)
                metrics.RESERVATIONS.set(await self._ledger.reservations())
            await asyncio.sleep(interval_s)

    async def _look(self) -> Position:
        position = await self._position.read()
        metrics.CONSUMER_LAG.set(position.lag)
        metrics.EVENTS_SEQ.set(position.events_seq)
        return position


def _metered(event_type: str, delivery: Delivery) -> MeteredUsage:
    return meter(event_type, delivery.subject, delivery.sequence, delivery.stored_at, delivery.data)


async def _hand_back(batch: Sequence[Delivery], delay_s: float) -> None:
    for delivery in batch:
        if not delivery.settled:
            await delivery.nak(delay_s)


def _count(added: Sequence[Added], offered: int) -> None:
    for model in added:
        metrics.METERED_MICROUSD.labels(model.model).inc(model.cost_microusd)
        metrics.METERED_TOKENS.labels(model.model, "input").inc(model.input_tokens)
        metrics.METERED_TOKENS.labels(model.model, "output").inc(model.output_tokens)
    metrics.LATE.inc(sum(model.late for model in added))
    new = sum(model.rows for model in added)
    metrics.EVENTS.labels("metered").inc(new)
    metrics.EVENTS.labels("duplicate").inc(offered - new)
