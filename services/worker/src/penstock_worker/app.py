"""Composition root of the worker: the only file that constructs clients and binds subjects."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketStore, last_entry, put
from penstock_shared.runtime.provision import provision, provision_volatile
from penstock_shared.runtime.telemetry import log
from penstock_worker.adapters.cancellations import ControlCancellations
from penstock_worker.adapters.ctranslate2_engine import CTranslate2Engine
from penstock_worker.adapters.echo_engine import ECHO_RECORD, EchoEngine
from penstock_worker.adapters.model_directory import model_directories, read_model
from penstock_worker.adapters.nats_responses import NatsResponses
from penstock_worker.adapters.processors import available_processors
from penstock_worker.handlers.jobs import JobHandler
from penstock_worker.handlers.lanes import Lanes
from penstock_worker.handlers.runner import ModelRunner
from penstock_worker.handlers.terminals import Terminals
from penstock_worker.ports import TextEngine
from penstock_worker.settings import Settings

_ECHO_SLOTS: Final = 4
_ECHO_BATCH: Final = 64
_STOP_GRACE_S: Final = 2.0


class App:
    """The worker."""

    name = "worker"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._broker: Broker | None = None
        self._broken: list[str] = []
        self._models: list[tuple[ModelRunner, Lanes]] = []
        self._cancellations: ControlCancellations | None = None

    async def start(self) -> None:
        """Load the models, connect, say which models there are, and pull.

        Raises:
            PermanentError: there is not one model that can be run.
            UnavailableError: NATS does not answer.
        """
        settings, clock = self.settings, SystemClock()
        loaded = await asyncio.to_thread(self._load)
        broker = await Broker.connect(settings.nats_url, name=settings.instance)
        self._broker = broker
        await provision(broker, settings.stream_replicas)
        broker.on_reconnect(lambda: provision_volatile(broker))
        keyring = Keyring(
            read_root_key(settings.root_key_file), BucketStore(broker, Bucket.DATA_KEYS), clock
        )
        source = f"/penstock/worker/{settings.instance}"
        self._cancellations = ControlCancellations(broker)
        await self._cancellations.start()  # before the first job is pulled
        sink = NatsResponses(broker)
        rng = random.Random()  # noqa: S311  jitter, no secret
        terminals = Terminals(broker, sink, clock, rng, source)
        dead = DeadLetters(broker, keyring, clock, source)
        for record, engine in loaded:
            runner = ModelRunner(
                record.name,
                engine,
                sink,
                clock,
                batch_window_s=settings.batch_window_ms / 1000,
                delta_interval_s=settings.delta_interval_ms / 1000,
            )
            handler = JobHandler(
                record.name,
                engine,
                runner,
                terminals,
                self._cancellations,
                keyring,
                dead,
                clock,
                IdSource(clock),
            )
            seats = engine.slots * engine.max_batch
            lanes = Lanes(broker, record.name, handler, rng, seats=seats)
            self._models.append((runner, lanes))
            await _announce(broker, record)
            await lanes.start()

    def problems(self) -> list[str]:
        """Models that could not be loaded, and a broker that is away."""
        connected = self._broker is not None and self._broker.is_connected
        return [*self._broken, *([] if connected else ["NATS does not answer"])]

    async def drain(self) -> None:
        """Hand back what waits, at once; finish what runs."""
        await asyncio.gather(*(lanes.stop_pulling() for _, lanes in self._models))
        for runner, _ in self._models:
            runner.hand_back_waiting()
        await asyncio.gather(*(lanes.finish() for _, lanes in self._models))

    async def stop(self) -> None:
        """Hand back what still runs, and close everything; without a drain before, too."""
        await asyncio.gather(*(lanes.stop_pulling() for _, lanes in self._models))
        await asyncio.gather(*(runner.stop() for runner, _ in self._models))
        await asyncio.gather(*(lanes.stop(_STOP_GRACE_S) for _, lanes in self._models))
        if self._cancellations is not None:
            await self._cancellations.stop()
        if self._broker is not None:
            await self._broker.close()

    def _load(self) -> list[tuple[ModelRecord, TextEngine]]:
        settings = self.settings
        slots = available_processors()
        loaded: list[tuple[ModelRecord, TextEngine]] = []
        for directory in model_directories(settings.models_dir) if settings.models_dir else ():
            try:
                manifest = read_model(directory)
                engine = CTranslate2Engine(
                    directory,
                    context_tokens=manifest.context_tokens,
                    slots=slots,
                    max_batch=settings.max_batch,
                    device=settings.device,
                )
            except PermanentError as error:
                log().error("model.broken", directory=directory.name, message=error.message)
                self._broken.append(error.message)
                continue
            log().info("model.loaded", model=manifest.name, version=manifest.version, slots=slots)
            loaded.append((manifest.record(), engine))
        if settings.echo_model:
            echo = EchoEngine(
                slots=_ECHO_SLOTS, max_batch=_ECHO_BATCH, tokens_per_s=settings.echo_tokens_per_s
            )
            loaded.append((ECHO_RECORD, echo))
        if not loaded:
            where = settings.models_dir or "PENSTOCK_MODELS_DIR, which is not set"
            msg = (
                f"There is no model to run in {where}: put one there (a directory with "
                "penstock.json), or set PENSTOCK_ECHO_MODEL=1 to try the platform without one."
            )
            raise PermanentError(" ".join([msg, *self._broken]), code="no_model")
        return loaded


async def _announce(broker: Broker, record: ModelRecord) -> None:
    """Put the record into the `models` bucket, unless it says just that already."""
    value = record.model_dump_json().encode()
    standing = await last_entry(broker, Bucket.MODELS, record.name)
    if standing is None or standing.data != value:
        await put(broker, Bucket.MODELS, record.name, value)


def create_app(settings: Settings) -> App:
    """The worker, not yet started."""
    return App(settings)
