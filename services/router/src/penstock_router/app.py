"""Composition root of the router: the only file that constructs clients and binds subjects."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nats.aio.msg import Msg
from pydantic import BaseModel

from penstock_router import metrics
from penstock_router.adapters.classifier_file import load_classifier
from penstock_router.adapters.confidence_file import load_confidences
from penstock_router.adapters.front_door import QUEUE_GROUP, FrontDoor
from penstock_router.adapters.job_consumers import JobConsumers
from penstock_router.adapters.learner import Learner
from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.adapters.mode_watch import ModeWatch
from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.adapters.own_facts import OwnFacts
from penstock_router.adapters.policy_log import PolicyLog
from penstock_router.adapters.postgres_quotas import PostgresQuotas
from penstock_router.adapters.quality_gauges import expose
from penstock_router.adapters.queue_poll import QueuePoll
from penstock_router.adapters.sweeper import Sweeper
from penstock_router.adapters.tasks import Tasks
from penstock_router.domain.breakers import Breakers
from penstock_router.domain.classifier import Classifier
from penstock_router.domain.learned import Learned
from penstock_router.domain.modes import Modes
from penstock_router.domain.open_requests import OpenRequests
from penstock_router.domain.quality import Quality
from penstock_router.domain.queue_load import QueueLoad
from penstock_router.handlers.admissions import Admissions
from penstock_router.handlers.doors import Doors, rejected
from penstock_router.handlers.escalations import Escalations
from penstock_router.handlers.orphans import Orphans
from penstock_router.handlers.policies import Policies
from penstock_router.handlers.routes import AdmissionLimits, Knowledge, Routes
from penstock_router.handlers.submission_limits import SubmissionLimits
from penstock_router.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.envelope import TRACEPARENT
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.plans import TenantPrices
from penstock_shared.contracts.requests import Accepted, Rejected
from penstock_shared.contracts.streams import INGRESS_CONSUMER, Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import Clock, SystemClock
from penstock_shared.runtime.consumer import Delivery, DurableConsumer
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketMirror, BucketStore
from penstock_shared.runtime.postgres import Postgres
from penstock_shared.runtime.provision import provision, provision_volatile
from penstock_shared.runtime.redis_rate_limit import RedisRateLimiter
from penstock_shared.runtime.replies import ReplyServer
from penstock_shared.runtime.telemetry import log

_INGRESS_CREDIT: Final = 256
_POSTGRES_ROLE: Final = "penstock_router"
"""Which billing makes: it may reserve, and sees no table."""
_POSTGRES_CONNECTIONS: Final = 2
"""One for the reservations, which go in batches, and one for those that are overdue."""


class App:
    """The router."""

    name = "router"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._source = f"/penstock/router/{settings.instance}"
        self._tasks = Tasks()
        self._broker: Broker | None = None
        self._postgres: Postgres | None = None
        self._modes = Modes(batch_wait_limit_s=settings.request_deadline_s)
        self._learned = Learned()
        self._started = False

    async def start(self) -> None:
        """Connect, mirror, catch up with the event log, subscribe."""
        settings = self.settings
        broker = await Broker.connect(settings.nats_url, name=settings.instance)
        self._broker = broker
        await provision(broker, settings.stream_replicas)
        broker.on_reconnect(lambda: provision_volatile(broker))
        if settings.postgres_dsn is not None:
            self._postgres = await Postgres.prepare(
                settings.postgres_dsn,
                name=self.name,
                connections=_POSTGRES_CONNECTIONS,
                role=_POSTGRES_ROLE,
            )
        self._build(broker, SystemClock())
        await asyncio.gather(
            self._models.start(),
            self._tenants.start(),
            self._prices.start(),
            self._policy_log.start(),
        )
        await self._learner.start()
        await self._sweeper.start()  # which may find that a model is gone
        self._consumers.start()
        await self._queues.start()
        self._mode_watch.start()
        await self._ingress.start()
        self._tasks.spawn("ingress", self._consume_ingress())
        self._tasks.spawn("policies", self._policies.watch())
        if self._postgres is not None:
            self._tasks.spawn("orphans", self._orphans.run())
        await self._replies.serve(subjects.EVERY_ROUTER_COMMAND, self._on_command)
        await self._front_door.serve(subjects.EVERY_ADMITTED, self._on_admitted)
        await self._front_door.serve(subjects.EVERY_SUBMIT, self._on_submitted)
        await broker.flush()
        self._started = True

    def _build(self, broker: Broker, clock: Clock) -> None:
        settings = self.settings
        keyring = Keyring(
            read_root_key(settings.root_key_file), BucketStore(broker, Bucket.DATA_KEYS), clock
        )
        self._own_facts = OwnFacts()
        self._log = NatsRequestLog(broker, self._modes.wrote, self._own_facts)
        self._front_door = FrontDoor(broker, settings.max_in_flight, rejected)
        self._replies = ReplyServer(broker, QUEUE_GROUP)
        self._models = BucketMirror(
            broker, Bucket.MODELS, ModelRecord.model_validate_json, self._on_model
        )
        self._tenants = BucketMirror(broker, Bucket.TENANTS, TenantRecord.model_validate_json)
        self._prices = BucketMirror(broker, Bucket.PRICES, TenantPrices.model_validate_json)
        self._limiter = RedisRateLimiter(
            settings, clock.monotonic_s, metrics.RATE_LIMIT_FALLBACKS.inc
        )
        limits = SubmissionLimits(self._limiter, self._log, clock)
        knowledge = Knowledge(
            models=self._models,
            prices=self._prices,
            learned=self._learned,
            lexicon=load_lexicon(),
            classifier=_classifier(settings.classifier_file),
            confidences=load_confidences(),
            breakers=Breakers(),
            modes=self._modes,
            open_requests=OpenRequests(settings.sweep_grace_s),
            loads=defaultdict(QueueLoad),
        )
        self._build_followers(broker, clock, knowledge, limits.on_ended)
        quotas = PostgresQuotas(self._postgres, clock)
        self._quotas = quotas
        self._orphans = Orphans(
            quotas, self._log, clock, source=self._source, grace_s=settings.sweep_grace_s
        )
        routes = Routes(
            knowledge,
            AdmissionLimits(
                default_deadline_s=settings.request_deadline_s,
                fair_in_flight=settings.fair_in_flight,
                queue_limit=settings.queue_limit,
            ),
            clock,
        )
        self._doors = Doors(
            admissions=Admissions(
                log=self._log,
                routes=routes,
                knowledge=knowledge,
                tenants=self._tenants,
                quotas=quotas,
                source=self._source,
            ),
            limits=limits,
            keyring=keyring,
            models=self._models,
            tenants=self._tenants,
            dead=DeadLetters(broker, keyring, clock, self._source),
            rng=random.Random(),  # noqa: S311  jitter, no secret
        )

    def _build_followers(
        self,
        broker: Broker,
        clock: Clock,
        knowledge: Knowledge,
        on_ended: Callable[[str], None],
    ) -> None:
        """What keeps `knowledge` fresh, and acts on what it hears."""
        settings = self.settings
        self._ingress = DurableConsumer(broker, INGRESS_CONSUMER, credit=_INGRESS_CREDIT)
        self._consumers = JobConsumers(broker)
        self._escalations = Escalations(
            self._log,
            lambda model: self._models.get(model) is not None,
            clock,
            source=self._source,
        )
        self._sweeper = Sweeper(
            broker,
            self._log,
            knowledge.open_requests,
            clock,
            source=self._source,
            on_ended=on_ended,
            on_fact=self._escalations.fold,
        )
        self._queues = QueuePoll(broker, knowledge.loads, self._model_names, clock)
        self._policy_log = PolicyLog(broker, source=self._source)
        quality = Quality()
        expose(quality)
        self._learner = Learner(
            broker,
            self._log,
            self._learned,
            save_every_s=settings.snapshot_every_s,
            policy_copies=self._policy_log.copies,
            on_request=knowledge.breakers.observe,
            quality=quality,
            own=self._own_facts,
        )
        self._policies = Policies(
            facts=self._policy_log,
            learned=self._learned,
            events_seq=lambda: self._learner.events_seq,
            models=self._models,
            tenants=self._tenants,
            clock=clock,
        )
        self._mode_watch = ModeWatch(
            broker,
            self._modes,
            knowledge.breakers,
            knowledge.loads,
            lambda: tuple(self._models.values()),
            lambda: self._learner.behind,
            clock,
            instance=settings.instance,
            deadline_s=settings.request_deadline_s,
            source=self._source,
        )

    def problems(self) -> list[str]:
        """NATS, and the tasks, are what the router cannot do without."""
        if self._broker is None or not self._broker.is_connected:
            return ["NATS does not answer"]
        if not self._started:
            return []
        parts = (
            self._sweeper,
            self._consumers,
            self._queues,
            self._mode_watch,
            self._learner,
            self._policy_log,
        )
        return [*self._tasks.gone(), *(said for part in parts for said in part.problems())]

    def degradation(self) -> dict[str, str]:
        """What `/readyz` tells of the mode."""
        return {"mode": self._modes.mode.value, "why": self._modes.why}

    async def drain(self) -> None:
        """Take nothing new, finish what was taken."""
        if not self._started:
            return
        await self._front_door.close()
        await self._ingress.stop()
        await self._tasks.stop()
        await self._front_door.finished()
        await self._replies.drain()

    async def stop(self) -> None:
        """Close everything."""
        if self._broker is None:
            return
        await self._tasks.stop()
        if self._started:
            await self._ingress.close()
            await self._limiter.close()
            await self._quotas.stop()
            parts = (
                self._models,
                self._tenants,
                self._prices,
                self._mode_watch,
                self._learner,
                self._policy_log,
                self._sweeper,
                self._queues,
                self._consumers,
            )
            await asyncio.gather(*(part.stop() for part in parts))
            await self._escalations.close()
        await self._broker.close()
        if self._postgres is not None:
            await self._postgres.close()

    def _on_model(self, name: str, record: ModelRecord | None) -> None:
        self._consumers.model_changed(name, exists=record is not None)

    def _model_names(self) -> list[str]:
        return [model.name for model in self._models.values()]

    async def _on_admitted(self, msg: Msg) -> Accepted | Rejected:
        traceparent = (msg.headers or {}).get(TRACEPARENT)
        return await self._doors.on_admitted(msg.subject, msg.data, traceparent)

    async def _on_submitted(self, msg: Msg) -> Accepted | Rejected:
        return await self._doors.on_submitted(msg.subject, msg.headers or {}, msg.data)

    async def _on_command(self, msg: Msg) -> BaseModel:
        return await self._policies.on_command(subjects.parse(msg.subject).rest[-1], msg.data)

    async def _consume_ingress(self) -> None:
        room = asyncio.Semaphore(_INGRESS_CREDIT)

        async def handle(delivery: Delivery) -> None:
            try:
                await self._doors.on_queued(delivery)
            finally:
                room.release()

        while True:
            await room.acquire()
            self._front_door.spawn(handle(await self._ingress.get()))


def _classifier(path: Path | None) -> Classifier:
    """Without one the plain rule decides until something is learned: no reason not to start."""
    try:
        return load_classifier(path)
    except PermanentError as error:
        metrics.CLASSIFIER_MISSING.set(1)
        log().error("classifier.unreadable", why=error.message)
        return Classifier()


def create_app(settings: Settings) -> App:
    """The router, not yet started."""
    return App(settings)
