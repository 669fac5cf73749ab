"""EVENTS on NATS: read without holes, and the board on which checkpoints are published."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

import nats.errors
import nats.js.errors
from pydantic import ValidationError

from penstock_audit.domain.events import LoggedEvent
from penstock_audit.errors import EventLogError, FencedError, ForkError
from penstock_audit.ports import StreamEvent
from penstock_shared.contracts import subjects
from penstock_shared.contracts.audit import (
    CHECKPOINTED_FACT,
    CHECKPOINTED_TOPIC,
    AuditCheckpointed,
    checkpointed_id,
)
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.ids import PLATFORM
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.telemetry import log, new_traceparent

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CREDIT: Final = 1_000
"""Events that may wait in memory; their data can be large."""
_WRITER_HEADER: Final = "Penstock-Audit-Writer"
CHECKPOINTED: Final = subjects.topic_event(PLATFORM, CHECKPOINTED_TOPIC, CHECKPOINTED_FACT)


class NatsEventFeed:
    """Every message of EVENTS in order; a hole is read again, and an error if it stays one."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._next_seq = 1
        self._reader: OrderedReader | None = None
        self._hole = False

    async def start(self, next_seq: int) -> None:
        """Begin to read at `next_seq`.

        Raises:
            UnavailableError: EVENTS does not answer.
        """
        self._next_seq = next_seq
        reader = OrderedReader(
            self._broker, EVENTS, subjects.EVERY_EVENT, start_seq=next_seq, credit=_CREDIT
        )
        try:
            await reader.start()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _unavailable() from error
        self._reader = reader
        self._hole = False

    async def stop(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            await self._reader.stop()

    async def get(self) -> StreamEvent:
        """The next event; waits for ever.

        Raises:
            EventLogError: the next sequence number is missing in EVENTS.
            UnavailableError: EVENTS does not answer.
        """
        while True:
            if self._hole:
                await self._read_again()
            event = self._accept(await self._started().get())
            if event is not None:
                return event

    def get_nowait(self) -> StreamEvent | None:
        """The next event if one is here; None also before a hole, which `get` looks into."""
        while not self._hole and (message := self._started().get_nowait()) is not None:
            event = self._accept(message)
            if event is not None:
                return event
        return None

    async def last_seq(self) -> int:
        """The sequence of EVENTS' last message.

        Raises:
            UnavailableError: EVENTS does not answer.
        """
        try:
            return (await self._broker.jetstream.stream_info(EVENTS)).state.last_seq
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _unavailable() from error

    async def require(self, last: LoggedEvent | None) -> None:
        """Make sure that EVENTS still has what the log ends with.

        A store that was lost or restored from an old copy gives its sequence numbers out again:
        reading on would skip events without a sign.

        Raises:
            EventLogError: it ends before, or has something else there.
            UnavailableError: EVENTS does not answer.
        """
        if last is None:
            return
        stored = await self._message(last.seq)
        if stored is None and await self.last_seq() < last.seq:
            msg = f"EVENTS ends before {last.seq}, the last event in the audit log: it lost events."
            raise EventLogError(msg, code="event_log_rewound")
        if stored is not None and (
            stored.subject != last.subject
            or sha256(stored.data).digest() != sha256(last.data).digest()
        ):
            msg = f"EVENTS has another message at {last.seq} than the audit log: it was replaced."
            raise EventLogError(msg, code="event_log_rewound")

    def _started(self) -> OrderedReader:
        if self._reader is None:
            msg = "the feed has not been started"
            raise RuntimeError(msg)
        return self._reader

    def _accept(self, message: StoredMessage) -> StreamEvent | None:
        if message.sequence < self._next_seq:
            return None
        if message.sequence > self._next_seq:
            self._hole = True
            return None
        self._next_seq += 1
        return StreamEvent(
            seq=message.sequence,
            time_us=((message.time or _EPOCH) - _EPOCH) // _MICROSECOND,
            subject=message.subject,
            headers=message.headers,
            data=message.data,
        )

    async def _read_again(self) -> None:
        if await self._message(self._next_seq) is None:
            msg = f"EVENTS lacks {self._next_seq}: the audit log cannot go on without it."
            raise EventLogError(msg)
        log().warning("feed.read_again", sequence=self._next_seq)
        await self.stop()
        await self.start(self._next_seq)

    async def _message(self, seq: int) -> StoredMessage | None:
        try:
            raw = await self._broker.jetstream.get_msg(EVENTS, seq=seq, direct=True)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _unavailable() from error
        return StoredMessage(raw.subject or "", seq, dict(raw.headers or {}), raw.data or b"")


class NatsCheckpointBoard:
    """The subject of the checkpoint facts. Expected-last-sequence lets one writer through."""

    def __init__(self, broker: Broker, clock: Clock, *, source: str, writer_id: str) -> None:
        """`writer_id` names this very process: no other, and no earlier one, has it."""
        self._broker = broker
        self._clock = clock
        self._source = source
        self._writer_id = writer_id
        self._last_seq = 0

    async def latest(self) -> AuditCheckpointed | None:
        """The last checkpoint published; ours must follow it.

        Raises:
            UnavailableError: EVENTS does not answer.
            ForkError: what stands there is no checkpoint.
        """
        message = await self._broker.last_message(EVENTS, CHECKPOINTED)
        self._last_seq = 0 if message is None else message.sequence
        if message is None:
            return None
        try:
            return AuditCheckpointed.model_validate_json(message.data)
        except ValidationError as error:
            msg = f"The last published checkpoint (EVENTS {message.sequence}) cannot be read."
            raise ForkError(msg) from error

    async def publish(self, fact: AuditCheckpointed) -> None:
        """Publish the next checkpoint; again after a failure is harmless.

        Raises:
            FencedError: somebody else has published since.
            UnavailableError: EVENTS does not answer.
        """
        envelope = Envelope(
            id=checkpointed_id(fact),
            source=self._source,
            type=AuditCheckpointed.TYPE,
            time=self._clock.now(),
            traceparent=new_traceparent(),
        )
        try:
            self._last_seq = await self._broker.publish(
                CHECKPOINTED,
                fact.model_dump_json().encode(),
                envelope,
                expected_last_seq=self._last_seq,
                extra_headers={_WRITER_HEADER: self._writer_id},
            )
        except SequenceConflictError:
            await self._adopt_own(envelope.id)

    async def _adopt_own(self, event_id: str) -> None:
        """A conflict with one's own write, whose ack was lost, is none."""
        message = await self._broker.last_message(EVENTS, CHECKPOINTED)
        ours = (
            message is not None
            and message.event_id == event_id
            and message.headers.get(_WRITER_HEADER) == self._writer_id
        )
        if message is None or not ours:
            msg = "Another audit writer has published a checkpoint: this one stops."
            raise FencedError(msg)
        self._last_seq = message.sequence


def _unavailable() -> UnavailableError:
    return UnavailableError("EVENTS does not answer.", code="event_log_unavailable")
