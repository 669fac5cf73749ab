"""Key-value buckets: writes with expectations, and a mirror in memory kept fresh by a watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from pydantic import ValidationError

from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import ErasedError, UnavailableError
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.telemetry import log

_OPERATION: Final = "KV-Operation"
_ROLLUP: Final = "Nats-Rollup"
_CATCH_UP_ATTEMPTS: Final = 100
_CATCH_UP_WAIT_S: Final = 0.01
V = TypeVar("V")


def bucket_stream(bucket: Bucket) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket.value}"


def bucket_subjects(bucket: Bucket) -> str:
    """Every key of a bucket."""
    return f"$KV.{bucket.value}.>"


def _subject(bucket: Bucket, key: str) -> str:
    return f"$KV.{bucket.value}.{key}"


def _envelope(bucket: Bucket, key: str) -> Envelope:
    return Envelope(id=f"{bucket.value}/{key}", source="/penstock/kv", type="penstock.kv.put.v1")


async def put(
    broker: Broker, bucket: Bucket, key: str, value: bytes, *, expected_revision: int | None = None
) -> int:
    """Store a value; returns its revision. `expected_revision` is the key's last one (0: none).

    Raises:
        SequenceConflictError: the key has another revision by now.
    """
    return await broker.publish(
        _subject(bucket, key),
        value,
        _envelope(bucket, key),
        expected_last_seq=expected_revision,
    )


async def purge(
    broker: Broker, bucket: Bucket, key: str, *, expected_revision: int | None = None
) -> None:
    """Destroy a value and its history; a marker stays, so that it can be told from 'never'.

    Raises:
        SequenceConflictError: the key has another revision than `expected_revision` by now.
    """
    await broker.publish(
        _subject(bucket, key),
        b"",
        _envelope(bucket, key),
        expected_last_seq=expected_revision,
        extra_headers={_OPERATION: "PURGE", _ROLLUP: "sub"},
    )


async def last_entry(broker: Broker, bucket: Bucket, key: str) -> StoredMessage | None:
    """A key's last entry with its revision; None when there never was one."""
    return await broker.last_message(bucket_stream(bucket), _subject(bucket, key))


async def read_bucket(broker: Broker, bucket: Bucket) -> dict[str, StoredMessage]:
    """Every key's last entry, markers of destroyed ones (without data) included."""
    reader = OrderedReader(
        broker, bucket_stream(bucket), bucket_subjects(bucket), last_per_subject=True
    )
    await reader.start()
    try:
        entries = [await reader.get() for _ in range(reader.pending_at_start)]
    finally:
        await reader.stop()
    return {entry.subject.split(".", 2)[2]: entry for entry in entries}


class BucketStore:
    """Reads and first-writes of one bucket; a `WrappedKeyStore` for the keyring."""

    def __init__(self, broker: Broker, bucket: Bucket) -> None:
        self._broker = broker
        self._bucket = bucket

    async def get(self, name: str) -> bytes | None:
        """The value; None when there never was one.

        Raises:
            ErasedError: it was destroyed.
        """
        message = await self._broker.last_message(
            bucket_stream(self._bucket), _subject(self._bucket, name)
        )
        if message is None:
            return None
        if message.headers.get(_OPERATION):
            raise ErasedError("This content was erased: its key was destroyed.")
        return message.data

    async def create(self, name: str, value: bytes) -> bytes:
        """Store `value` unless the name was ever taken; the first one wins and is returned.

        Raises:
            UnavailableError: the name is taken, and the winner cannot be read yet.
        """
        with contextlib.suppress(SequenceConflictError):
            await self._broker.publish(
                _subject(self._bucket, name),
                value,
                _envelope(self._bucket, name),
                expected_last_seq=0,
            )
            return value
        for _ in range(_CATCH_UP_ATTEMPTS):
            stored = await self.get(name)
            if stored is not None:
                return stored
            # Any replica answers, and this one lags behind: what it lacks is not "nothing". Whoever
            # sealed with a key that lost would seal what nobody can open.
            await asyncio.sleep(_CATCH_UP_WAIT_S)
        msg = "A key that was just made cannot be read yet: try again."
        raise UnavailableError(msg, code="event_log_unavailable")


class BucketMirror(Generic[V]):
    """A whole bucket in memory. `on_change` hears every key with its new value, or None.

    The watch survives reconnects: it is an `OrderedReader` and resumes after what it has seen.
    """

    def __init__(
        self,
        broker: Broker,
        bucket: Bucket,
        parse: Callable[[bytes], V],
        on_change: Callable[[str, V | None], None] | None = None,
    ) -> None:
        self._parse = parse
        self._on_change = on_change
        self._bucket = bucket
        self._values: dict[str, V] = {}
        self._reader = OrderedReader(
            broker, bucket_stream(bucket), bucket_subjects(bucket), last_per_subject=True
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is there, then follow."""
        await self._reader.start()
        for _ in range(self._reader.pending_at_start):
            self._apply(await self._reader.get())
        self._task = asyncio.create_task(self._follow(), name=f"mirror-{self._bucket.value}")

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._reader.stop()

    def get(self, key: str) -> V | None:
        """The value of a key, from memory."""
        return self._values.get(key)

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> Iterator[V]:
        """Every value."""
        return iter(tuple(self._values.values()))

    async def _follow(self) -> None:
        while True:
            self._apply(await self._reader.get())

    def _apply(self, message: StoredMessage) -> None:
        key = message.subject.split(".", 2)[2]
        value: V | None = None
        if not message.headers.get(_OPERATION):
            try:
                value = self._parse(message.data)
            except ValidationError:
                log().error("kv.unreadable", bucket=self._bucket.value, sequence=message.sequence)
                return
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        if self._on_change is not None:
            self._on_change(key, value)
