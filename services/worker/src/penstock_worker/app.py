"""Composition root of the worker: the only file that constructs clients and binds subjects."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace

from nats.aio.msg import Msg

from penstock_shared.contracts import subjects
from penstock_shared.contracts.models import ModelKind, ModelRecord, ModelState, WorkerModels
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketMirror, BucketStore
from penstock_shared.runtime.model_catalog import ModelCatalog, announce, seed
from penstock_shared.runtime.provision import provision, provision_volatile
from penstock_worker.adapters.cancellations import ControlCancellations
from penstock_worker.adapters.ctranslate2_devices import Target, choose_target
from penstock_worker.adapters.echo_engine import ECHO_RECORD
from penstock_worker.adapters.json_schema import CachedAnswerSchemas
from penstock_worker.adapters.layout_store import LayoutStore
from penstock_worker.adapters.machine import Machine, read_machine
from penstock_worker.adapters.model_crashes import NatsModelCrashes
from penstock_worker.adapters.model_shelf import DiskShelf, ShelfWithEcho
from penstock_worker.adapters.nats_delivered import NatsDeliveredFrames
from penstock_worker.adapters.nats_responses import NatsResponses
from penstock_worker.adapters.nats_returns import NatsReturns
from penstock_worker.adapters.tuner import Tuner
from penstock_worker.domain.batching import CutRule
from penstock_worker.domain.line import LinePolicy
from penstock_worker.domain.memory import budget_bytes
from penstock_worker.handlers.answers import Answers
from penstock_worker.handlers.embedding_batches import EmbeddingBatches
from penstock_worker.handlers.gauges import Gauges
from penstock_worker.handlers.jobs import JobHandler
from penstock_worker.handlers.lanes import Lanes
from penstock_worker.handlers.preparation import Preparation
from penstock_worker.handlers.residents import Residents
from penstock_worker.handlers.scheduler import Batches, Scheduler, SchedulerPolicy
from penstock_worker.handlers.served import ServedModels
from penstock_worker.handlers.terminals import Terminals
from penstock_worker.handlers.text_batches import TextBatches
from penstock_worker.ports import ResponseSink
from penstock_worker.settings import Settings


class App:
    """The worker."""

    name = "worker"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._clock = SystemClock()
        self._broker: Broker | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect, follow the registry, load what fits, and pull.

        Raises:
            PermanentError: the device that was asked for is not there.
            UnavailableError: NATS does not answer.
        """
        settings = self.settings
        machine = read_machine()
        if settings.processors is not None:
            machine = replace(machine, processors=settings.processors)
        target = choose_target(settings.device)
        shelf = self._shelf(machine, target)
        broker = await Broker.connect(settings.nats_url, name=settings.instance)
        self._broker = broker
        await provision(broker, settings.stream_replicas)
        broker.on_reconnect(lambda: provision_volatile(broker))
        available_bytes = target.memory_bytes or machine.memory_bytes
        self._budget_bytes = budget_bytes(available_bytes, settings.memory_budget_bytes)
        self._residents = Residents(shelf, self._clock, budget_bytes=self._budget_bytes)
        self._cancellations = ControlCancellations(broker)
        await self._cancellations.start()  # before the first job is pulled
        sink = NatsResponses(broker)
        self._scheduler = self._make_scheduler(sink, machine)
        self._served = self._make_served(broker, sink, shelf)
        await seed(broker, ModelCatalog([settings.models_dir]))
        if settings.echo_model:
            await announce(broker, ECHO_RECORD)
        self._models = BucketMirror(
            broker, Bucket.MODELS, ModelRecord.model_validate_json, self._served.on_change
        )
        await self._models.start()
        await broker.client.listen(subjects.models_state(), self._tell_state)
        gauges = Gauges(self._scheduler, self._residents, self._clock)
        self._tasks.append(asyncio.create_task(gauges.run(), name="gauges"))
        if settings.preload:
            await self._residents.preload()
        await self._served.start()

    def problems(self) -> list[str]:
        """A broker that is away, and models of which not one can be run."""
        connected = self._broker is not None and self._broker.is_connected
        models = self._residents.states()
        failed = [model for model in models if model.state is ModelState.FAILED]
        broken = [f"{one.name}: {one.why}" for one in failed] if len(failed) == len(models) else []
        return [*broken, *([] if connected else ["NATS does not answer"])]

    async def drain(self) -> None:
        """Hand back what waits, at once; finish what runs."""
        await self._served.stop_pulling()
        self._scheduler.hand_back_waiting()
        await self._served.finish()

    async def stop(self) -> None:
        """Hand back what still runs, and close everything; without a drain before, too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._broker is None:
            return
        if hasattr(self, "_models"):
            await self._served.stop_pulling()
            await self._scheduler.stop()
            await self._served.stop()
            await self._models.stop()
            await self._residents.stop()
            await self._cancellations.stop()
        await self._broker.close()

    def _shelf(self, machine: Machine, target: Target) -> ShelfWithEcho:
        settings = self.settings
        layouts = LayoutStore(settings.tuning_dir)
        return ShelfWithEcho(
            DiskShelf(
                ModelCatalog([settings.model_store, settings.models_dir]),
                layouts,
                Tuner(layouts, self._clock, budget_s=settings.tuning_budget_s),
                target,
                machine,
            ),
            tokens_per_s=settings.echo_tokens_per_s,
        )

    def _make_scheduler(self, sink: ResponseSink, machine: Machine) -> Scheduler:
        settings = self.settings
        text = TextBatches(
            sink,
            self._clock,
            delta_interval_s=settings.delta_interval_ms / 1000,
            cut=CutRule(),
        )
        batches: dict[ModelKind, Batches] = {
            ModelKind.TEXT: text,
            ModelKind.TRANSLATION: text,
            ModelKind.EMBEDDING: EmbeddingBatches(),
        }
        policy = SchedulerPolicy(
            processors=machine.processors,
            window_s=settings.batch_window_ms / 1000,
            line=LinePolicy(promote_after_s=settings.promote_after_s),
        )
        return Scheduler(batches, self._clock, policy)

    def _make_served(
        self, broker: Broker, sink: ResponseSink, shelf: ShelfWithEcho
    ) -> ServedModels:
        settings, clock = self.settings, self._clock
        source = f"/penstock/worker/{settings.instance}"
        rng = random.Random()  # noqa: S311  jitter, no secret
        keyring = Keyring(
            read_root_key(settings.root_key_file), BucketStore(broker, Bucket.DATA_KEYS), clock
        )
        returns = NatsReturns(broker)
        handler = JobHandler(
            residents=self._residents,
            scheduler=self._scheduler,
            preparation=Preparation(
                keyring, CachedAnswerSchemas(), NatsDeliveredFrames(broker), clock, IdSource(clock)
            ),
            answers=Answers(keyring, clock),
            terminals=Terminals(broker, sink, clock, rng, source),
            cancellations=self._cancellations,
            returns=returns,
            model_crashes=NatsModelCrashes(broker),
            dead=DeadLetters(broker, keyring, clock, source),
            clock=clock,
        )

        def lanes_of(model: str) -> Lanes:
            return Lanes(
                broker,
                model,
                handler,
                rng,
                seats=settings.fetch_ahead,
                before_hand_back=returns.note,
            )

        return ServedModels(self._residents, shelf.has, lanes_of)

    def _tell_state(self, msg: Msg) -> None:
        running = Counter(ticket.run.job.model for ticket in self._scheduler.running())
        waiting = Counter(ticket.run.job.model for ticket in self._scheduler.waiting())
        state = WorkerModels(
            instance=self.settings.instance,
            memory_budget_bytes=self._budget_bytes,
            models=tuple(
                model.model_copy(
                    update={"running": running[model.name], "waiting": waiting[model.name]}
                )
                for model in self._residents.states()
            ),
        )
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._reply(msg.reply, state)))

    async def _reply(self, subject: str, state: WorkerModels) -> None:
        assert self._broker is not None  # noqa: S101  a question came through it
        await self._broker.publish_core(subject, state.model_dump_json().encode())


def create_app(settings: Settings) -> App:
    """The worker, not yet started."""
    return App(settings)
