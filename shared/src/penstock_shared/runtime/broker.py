"""The connection to NATS: publishing with expectations, direct gets, and the reconnect hook.

The hook is the only place that recreates what a server restart took (memory streams, watches,
ephemeral consumers): whoever owns such a thing registers a callback with `on_reconnect`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import nats
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from pydantic import SecretStr

from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import (
    PenstockError,
    RateLimitedError,
    TransientError,
    UnavailableError,
)
from penstock_shared.runtime.quick_client import QuickClient
from penstock_shared.runtime.telemetry import log

PUBLISH_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 10.0
_WRONG_LAST_SEQUENCE: Final = 10071
_UNDECIDED: Final = 10164
"""Replicated streams only: another expected write to this subject is in flight, so this one was
not stored, and which sequence it lost against is not known yet (most conflicts on R3)."""
_UNDECIDED_WAIT_S: Final = 0.02
_UNDECIDED_ATTEMPTS: Final = 100
_NO_MESSAGE_FOUND: Final = 10037
_LOOK_AGAIN_S: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0)
"""Until what nobody acknowledges is seen in its stream."""
_PENDING_BYTES: Final = 16 * 1024 * 1024


class SequenceConflictError(PenstockError):
    """Another message stands on the subject already (error 10071): read the last, compare ids."""

    default_code = "sequence_conflict"


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message as a stream holds it."""

    subject: str
    sequence: int
    headers: dict[str, str]
    data: bytes
    time: datetime | None = None

    @property
    def event_id(self) -> str | None:
        """Its CloudEvents id."""
        return self.headers.get("ce-id")

    @property
    def event_type(self) -> str | None:
        """Its CloudEvents type."""
        return self.headers.get("ce-type")


class Broker:
    """One NATS connection of one service."""

    def __init__(self, client: QuickClient) -> None:
        self.client = client
        self.jetstream: JetStreamContext = client.jetstream(timeout=PUBLISH_TIMEOUT_S)
        self._hooks: list[Callable[[], Awaitable[None]]] = []
        self._reconnecting: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, url: SecretStr | str, *, name: str, inbox_prefix: str = "_INBOX"
    ) -> Self:
        """Connect, and keep reconnecting for ever after.

        Raises:
            UnavailableError: no server answered within ten seconds.
        """
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        client = QuickClient()
        broker: list[Self] = []

        async def reconnected() -> None:
            if broker:
                broker[0].schedule_hooks()

        async def failed(error: Exception) -> None:
            # FIELD-NOTES: a refused publish shows only here and as a timeout of the ack.
            log().warning("nats.error", kind=type(error).__name__)

        try:
            await asyncio.wait_for(
                client.connect(
                    servers=text.split(","),
                    name=name,
                    inbox_prefix=inbox_prefix.encode(),
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type] # slept, so a float works
                    ping_interval=5,
                    max_outstanding_pings=2,
                    connect_timeout=2,
                    pending_size=_PENDING_BYTES,
                    reconnected_cb=reconnected,
                    error_cb=failed,
                ),
                CONNECT_TIMEOUT_S,
            )
        except (TimeoutError, OSError, nats.errors.Error) as error:
            msg = "NATS does not answer: check PENSTOCK_NATS_URL and that the server runs."
            raise UnavailableError(msg, code="nats_unavailable") from error
        if not client.is_connected:  # seen when no auth responder runs (FIELD-NOTES)
            msg = "NATS let us in but did not connect us: check the credentials."
            raise UnavailableError(msg, code="nats_unavailable")
        broker.append(cls(client))
        return broker[0]

    @property
    def is_connected(self) -> bool:
        """Whether a server is there right now."""
        return bool(self.client.is_connected)

    def on_reconnect(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Run `hook` after every reconnect, in the order of registration, until it succeeds."""
        self._hooks.append(hook)

    def forget_hook(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Whoever registered `hook` is gone."""
        with contextlib.suppress(ValueError):
            self._hooks.remove(hook)

    def schedule_hooks(self) -> None:
        """Run every hook again, from the first."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        self._reconnecting = asyncio.create_task(self._run_hooks(), name="reconnect-hooks")

    async def _run_hooks(self) -> None:
        log().info("nats.reconnected")
        for hook in tuple(self._hooks):
            while True:
                try:
                    await hook()
                    break
                except Exception as error:  # noqa: BLE001  a hook may only be tried again
                    log().warning("nats.hook_failed", kind=type(error).__name__)
                    await asyncio.sleep(0.2)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        envelope: Envelope,
        *,
        expected_last_seq: int | None = None,
        deduplicate: bool = False,
        extra_headers: dict[str, str] | None = None,
    ) -> int:
        """Publish durably; returns the stream sequence once the server has it on disk.

        `expected_last_seq` is the last sequence that the subject may have (0: none yet).

        Raises:
            SequenceConflictError: the subject has another last sequence.
            UnavailableError: no acknowledgement in time; the message may be stored or not.
        """
        headers = envelope.headers()
        if deduplicate:
            headers["Nats-Msg-Id"] = envelope.id
        if expected_last_seq is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected_last_seq)
        if extra_headers:
            headers.update(extra_headers)
        for _ in range(_UNDECIDED_ATTEMPTS):
            sequence = await self._store(subject, payload, headers)
            if sequence is not None:
                return sequence
            await asyncio.sleep(_UNDECIDED_WAIT_S)
        msg = "The event log does not decide between two writes: try again."
        raise UnavailableError(msg, code="event_log_unavailable")

    async def _store(self, subject: str, payload: bytes, headers: dict[str, str]) -> int | None:
        try:
            ack = await self.client.request(
                subject, payload, timeout=PUBLISH_TIMEOUT_S, headers=headers
            )
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _unavailable(error) from error
        return _sequence(ack.data)

    async def publish_silent(
        self, stream: str, subject: str, payload: bytes, envelope: Envelope
    ) -> None:
        """Publish to a stream that acknowledges nothing; returns once it is stored.

        For subjects where any message does: whose it is that was found is not asked.

        Raises:
            UnavailableError: it may be stored or not.
        """
        try:
            await self.client.publish(subject, payload, headers=envelope.headers())
        except (nats.errors.Error, OSError) as error:
            raise _unavailable(error) from error
        for pause_s in (*_LOOK_AGAIN_S, None):
            if await self.last_message(stream, subject) is not None:
                return
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        raise UnavailableError("What was published is not stored.", code="broker_unavailable")

    async def publish_core(self, subject: str, payload: bytes) -> None:
        """Publish without waiting for anybody: deltas and frames."""
        await self.client.publish(subject, payload)

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of a subject by direct get (0.2 ms); None when there is none.

        Raises:
            UnavailableError: the server does not answer.
        """
        return await self._message(stream, subject)

    async def first_message(self, stream: str, subject: str) -> StoredMessage | None:
        """The first message of a subject that the stream still has; otherwise as `last_message`.

        Raises:
            UnavailableError: the server does not answer.
        """
        return await self._message(stream, subject, seq=1, next=True)

    async def _message(self, stream: str, subject: str, **where: Any) -> StoredMessage | None:
        try:
            raw = await self.jetstream.get_msg(stream, subject=subject, direct=True, **where)
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.APIError as error:
            if error.err_code == _NO_MESSAGE_FOUND:
                return None
            raise _unavailable(error) from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _unavailable(error) from error
        return StoredMessage(
            subject=raw.subject or subject,
            sequence=raw.seq or 0,
            headers=dict(raw.headers or {}),
            data=raw.data or b"",
            time=raw.time,
        )

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> Msg:
        """Ask whoever serves `subject`.

        Raises:
            UnavailableError: nobody serves it, or the answer did not come in time.
        """
        try:
            return await self.client.request(subject, payload, timeout=timeout_s)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _unavailable(error) from error

    async def flush(self) -> None:
        """Return once the server has processed everything sent before, subscriptions too."""
        await self.client.flush()

    async def close(self) -> None:
        """Send what is pending, then close."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await asyncio.wait_for(self.flush(), 1.0)
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self.client.close()


def _sequence(ack: bytes) -> int | None:
    """Where the message stands, by the server's answer to a publish (ADR-1 of NATS).

    None: it was not stored, and whether it may be is decided in a moment.

    Raises:
        SequenceConflictError: the subject has another last sequence.
        UnavailableError: the stream refused.
    """
    answer = json.loads(ack)
    if "error" not in answer:
        return int(answer["seq"])
    error = nats.js.errors.APIError(**answer["error"])
    if error.err_code == _WRONG_LAST_SEQUENCE:
        raise SequenceConflictError(str(error.description)) from error
    if error.err_code == _UNDECIDED:
        return None
    raise _unavailable(error) from error


def _unavailable(error: Exception) -> TransientError:
    """What a failed exchange with the broker means to the caller."""
    if isinstance(error, nats.js.errors.APIError) and "exceeded" in str(error.description):
        msg = "The event log is full: free disk space or raise its limit."
        return UnavailableError(msg, code="event_log_full", retry_after_s=5.0)
    if isinstance(error, nats.errors.OutboundBufferLimitError):
        return RateLimitedError("Too much is waiting for the broker.", code="overloaded")
    msg = "The event log did not confirm in time."
    return UnavailableError(msg, code="event_log_unavailable")
