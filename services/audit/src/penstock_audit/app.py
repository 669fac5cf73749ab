"""The composition root of audit."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import Final

import nats.errors
from nats.aio.msg import Msg

from penstock_audit import metrics
from penstock_audit.adapters.key_file import load_or_create_signer
from penstock_audit.adapters.nats_events import NatsCheckpointBoard, NatsEventFeed
from penstock_audit.adapters.posix_files import DirectoryLock, PosixFiles
from penstock_audit.adapters.tile_log import TileLog
from penstock_audit.errors import AuditError, DiskRefusedError, EventLogError
from penstock_audit.handlers import AuditWriter, BatchPolicy
from penstock_audit.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.audit import SignedCheckpoint
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import Clock, IdSource, SystemClock
from penstock_shared.runtime.provision import provision, provision_volatile
from penstock_shared.runtime.telemetry import log

LOG_DIRECTORY: Final = "log"
_WATCH_S: Final = 1.0


class App:
    """Audit as a service."""

    name = "audit"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._lock = DirectoryLock(settings.state_dir / "lock")
        self._broker: Broker | None = None
        self._feed: NatsEventFeed | None = None
        self._writer: AuditWriter | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the log, compare it with EVENTS, and write on.

        Raises:
            PenstockError: another process has the log, it is damaged, it contradicts EVENTS, the
                directory cannot be used, or NATS does not answer.
        """
        try:
            await self._start()
        except AuditError as error:
            metrics.FAILURES.labels(error.code).inc()
            raise
        except (nats.errors.Error, TimeoutError) as error:
            msg = "NATS went away while audit started: start it again."
            raise UnavailableError(msg, code="nats_unavailable") from error

    async def _start(self) -> None:
        event_log, vkey = await asyncio.to_thread(self._open_log)
        broker = await Broker.connect(
            self.settings.nats_url, name=f"audit-{self.settings.instance}"
        )
        self._broker = broker
        await provision(broker, self.settings.stream_replicas)
        self._feed = feed = NatsEventFeed(broker)
        self._writer = writer = self._make_writer(broker, feed, event_log)
        await feed.require(event_log.last_event())
        # Before the feed's own hook, which makes its consumer anew.
        broker.on_reconnect(lambda: self._after_reconnect(broker, feed, event_log))
        await broker.client.subscribe(
            subjects.audit_checkpoint(), cb=partial(_answer, event_log, vkey)
        )
        await feed.start(event_log.size + 1)
        await writer.start()
        self._watch = asyncio.create_task(self._measure(feed, event_log), name="audit-lag")

    def problems(self) -> list[str]:
        """Why it is not ready."""
        if self._broker is None or self._writer is None:
            return ["starting"]
        found = [] if self._broker.is_connected else ["NATS does not answer"]
        return found + ([self._writer.problem] if self._writer.problem else [])

    async def drain(self) -> None:
        """Finish the batch that is being written."""
        if self._writer is not None:
            await self._writer.drain()

    async def stop(self) -> None:
        """Close everything, the lock last."""
        if self._watch is not None:
            self._watch.cancel()
        if self._writer is not None:
            await self._writer.stop()
        if self._feed is not None and self._broker is not None and self._broker.is_connected:
            await self._feed.stop()
        if self._broker is not None:
            await self._broker.close()
        self._lock.release()

    def _open_log(self) -> tuple[TileLog, str]:
        """The log and its verifier key.

        Raises:
            DiskRefusedError: the directory cannot be used.
        """
        try:
            return self._open_files()
        except OSError as error:
            msg = f"The audit log in {self.settings.state_dir} cannot be used: {error.strerror}."
            raise DiskRefusedError(msg) from error

    def _open_files(self) -> tuple[TileLog, str]:
        state_dir = self.settings.state_dir
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        signer = load_or_create_signer(state_dir, self.settings.audit_origin, os.urandom)
        event_log = TileLog(PosixFiles(state_dir / LOG_DIRECTORY), signer)
        event_log.open()
        log().info("log.opened", size=event_log.size, vkey=str(signer.verifier))
        return event_log, str(signer.verifier)

    def _make_writer(self, broker: Broker, feed: NatsEventFeed, event_log: TileLog) -> AuditWriter:
        settings = self.settings
        board = NatsCheckpointBoard(
            broker,
            self._clock,
            source=f"/penstock/audit/{settings.instance}",
            writer_id=IdSource(self._clock).new(),
        )
        policy = BatchPolicy(settings.audit_batch_events, settings.audit_linger_ms / 1000)
        return AuditWriter(event_log, feed, board, policy, self._clock)

    async def _after_reconnect(
        self, broker: Broker, feed: NatsEventFeed, event_log: TileLog
    ) -> None:
        await provision_volatile(broker)
        try:
            await feed.require(await asyncio.to_thread(event_log.last_event))
        except EventLogError as error:
            if self._writer is not None:
                self._writer.halt(error)

    async def _measure(self, feed: NatsEventFeed, event_log: TileLog) -> None:
        while True:
            if self._writer is not None:
                age_s = self._clock.monotonic_s() - self._writer.signed_at_s
                metrics.CHECKPOINT_AGE.set(age_s)
            with contextlib.suppress(UnavailableError):
                metrics.LAG.set(max(0, await feed.last_seq() - event_log.size))
            await asyncio.sleep(_WATCH_S)


async def _answer(event_log: TileLog, vkey: str, msg: Msg) -> None:
    """Serve the latest checkpoint to an operator."""
    checkpoint = event_log.checkpoint
    reply = SignedCheckpoint(
        tree_size=checkpoint.size,
        root_hash=checkpoint.root_base64,
        checkpoint=checkpoint.note,
        vkey=vkey,
    )
    with contextlib.suppress(nats.errors.Error):  # whoever asked without a reply address
        await msg.respond(reply.model_dump_json().encode())


def create_app(settings: Settings) -> App:
    """The service, not yet started."""
    return App(settings, SystemClock())
