"""The composition root: the only file that constructs clients and binds subjects."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from penstock_realtime import metrics
from penstock_realtime.adapters.guarded_fetch import GuardedFetch
from penstock_realtime.adapters.identity_providers import OpenIdProviders
from penstock_realtime.adapters.memory_sessions import MemorySessions
from penstock_realtime.adapters.nats_accounts import NatsAccountDesk, NatsBillingDesk
from penstock_realtime.adapters.nats_auth import CalloutCodec
from penstock_realtime.adapters.nats_disconnect import NatsDisconnector
from penstock_realtime.adapters.nats_event_log import (
    NatsCancelCommands,
    NatsDeletions,
    NatsFeedbackLog,
    NatsRequestLog,
)
from penstock_realtime.adapters.nats_frames import NatsFrames
from penstock_realtime.adapters.nats_peers import NatsPeers
from penstock_realtime.adapters.nats_router import NatsRouter
from penstock_realtime.adapters.postgres_responses import PostgresResponses
from penstock_realtime.adapters.redis_sessions import RedisSessions
from penstock_realtime.handlers import (
    FeedbackHandler,
    LoginHandler,
    Questions,
    RequestGetHandler,
)
from penstock_realtime.http.api import build_api
from penstock_realtime.http.chat import ChatApi
from penstock_realtime.http.connections import Connections
from penstock_realtime.http.embeddings import EmbeddingsApi
from penstock_realtime.http.feedback import FeedbackApi
from penstock_realtime.http.front import Front
from penstock_realtime.http.generation import Generations
from penstock_realtime.http.invoices import InvoicesApi
from penstock_realtime.http.keys import KeysApi
from penstock_realtime.http.models import ModelsApi
from penstock_realtime.http.organization import OrganizationApi
from penstock_realtime.http.origins import OriginGate, parse_origins
from penstock_realtime.http.protocol import WireLimits, server_options
from penstock_realtime.http.responses import ResponsesApi
from penstock_realtime.http.retrieval import RetrievalApi
from penstock_realtime.http.socket_responses import SocketServices
from penstock_realtime.http.sockets import Patience, Sockets
from penstock_realtime.serving.admission import Admissions
from penstock_realtime.serving.archiving import CREDIT, Archiving, wanted
from penstock_realtime.serving.authentication import Authentication
from penstock_realtime.serving.conversation import Conversations
from penstock_realtime.serving.feedback import Feedbacks
from penstock_realtime.serving.following import Sources
from penstock_realtime.serving.instances import Instances
from penstock_realtime.serving.key_uses import KeyUses
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.orphans import Orphans
from penstock_realtime.serving.revocation import Revocations, Revoked
from penstock_realtime.serving.sessions import Sessions, Terms
from penstock_realtime.serving.tokens import Tokens
from penstock_realtime.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import ARCHIVE_CONSUMER, Bucket
from penstock_shared.runtime.access import AccessControl
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.consumer import DurableConsumer, rewind_consumer
from penstock_shared.runtime.http_server import HttpServer
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketMirror, BucketStore
from penstock_shared.runtime.postgres import Postgres
from penstock_shared.runtime.provision import provision, provision_volatile
from penstock_shared.runtime.rate_limit import RateLimiter
from penstock_shared.runtime.redis_rate_limit import RedisRateLimiter

QUEUE_GROUP: Final = "realtime"
AUTH_SUBJECT: Final = "$SYS.REQ.USER.AUTH"
ACCOUNT: Final = "PENSTOCK"
"""The NATS account in which services and tenants live."""
_STOP_GRACE_S: Final = 1.0
_SESSION_STORE_TIMEOUT_S: Final = 2.0
"""Nobody waits for it but a client that resumes a session."""


@dataclass(frozen=True, slots=True)
class _Mirrors:
    """What is decided from memory."""

    keys: BucketMirror[KeyRecord]
    tenants: BucketMirror[TenantRecord]
    models: BucketMirror[ModelRecord]


@dataclass(frozen=True, slots=True)
class _Doors:
    """Where clients come in, in the order in which a drain closes them."""

    server: HttpServer
    front: Front
    sockets: Sockets


class App:
    """One realtime process."""

    name: Final = "realtime"

    def __init__(self, settings: Settings) -> None:
        self.settings: Final = settings
        self._clock = SystemClock()
        self._closing = AsyncExitStack()
        self._broker: Broker | None = None
        self._disconnector: NatsDisconnector | None = None
        self._doors: _Doors | None = None
        self._orphans: Orphans | None = None
        self._tokens: Tokens | None = None
        self._revocations = Revocations(self._revoke, self._clock)

    @property
    def http_port(self) -> int:
        """The port of the API; the real one once it listens."""
        return self.settings.http_port if self._doors is None else self._doors.server.port

    async def start(self) -> None:
        """Connect, load the mirrors, bind the subjects, and only then open the doors.

        Raises:
            PermanentError: a setting or the root key is missing or wrong.
            UnavailableError: NATS does not answer, or the port is taken.
        """
        root_key = self._root_key()
        broker = await self._connect()
        mirrors = await self._load_mirrors(broker)
        authentication = self._start_authentication(broker, mirrors)
        sources = Sources(
            frames=NatsFrames(broker, self.settings.session_buffer_bytes),
            facts=NatsRequestLog(broker),
            vault=Keyring(root_key, BucketStore(broker, Bucket.DATA_KEYS), self._clock),
            clock=self._clock,
            silence_s=self.settings.silence_s,
        )
        source = f"/penstock/realtime/{self.settings.instance}"
        lookup = Lookup(
            sources,
            NatsCancelCommands(broker, source),
            NatsDeletions(broker, source, self._clock),
            await self._start_archive(broker),
            timedelta(days=self.settings.response_retention_days),
        )
        feedbacks = Feedbacks(lookup, NatsFeedbackLog(broker, source), self._clock)
        limiter = self._rate_limiter()
        sessions = await self._start_sessions(broker, lookup)
        await self._bind(broker, authentication, limiter, feedbacks)
        self._doors = self._build_doors(
            broker, mirrors, authentication, limiter, feedbacks, sessions
        )
        self._doors.sockets.start()
        self._closing.push_async_callback(self._doors.sockets.stop)
        await self._doors.server.start()
        self._closing.push_async_callback(self._doors.server.stop, _STOP_GRACE_S)
        self._revocations.begin(mirrors.keys, mirrors.tenants)
        self._work(self._revocations.run(), "revocations")

    def problems(self) -> list[str]:
        """Why it is not ready. Redis away is none: limits are then kept by each instance."""
        if self._broker is None or self._doors is None:
            return ["starting"]
        return [] if self._broker.is_connected else ["nats is away"]

    async def drain(self) -> None:
        """Accept nothing new, and let what runs end; sockets are closed with 1012."""
        if self._doors is None:
            return
        self._doors.server.stop_accepting()
        await asyncio.gather(self._doors.front.drain(), self._doors.sockets.drain())

    async def stop(self) -> None:
        """Close everything, in the opposite order."""
        await self._closing.aclose()

    def _root_key(self) -> bytes:
        if self.settings.root_key_file is None:
            msg = "PENSTOCK_ROOT_KEY_FILE is not set: content cannot be sealed without it."
            raise PermanentError(msg, code="root_key_missing")
        return read_root_key(self.settings.root_key_file)

    async def _connect(self) -> Broker:
        broker = await Broker.connect(self.settings.nats_url, name=self.name)
        self._closing.push_async_callback(broker.close)
        await provision(broker, self.settings.stream_replicas)
        broker.on_reconnect(lambda: provision_volatile(broker))
        if self.settings.nats_sys_url is not None:
            system = await Broker.connect(self.settings.nats_sys_url, name=f"{self.name}-sys")
            self._closing.push_async_callback(system.close)
            self._disconnector = NatsDisconnector(system, ACCOUNT)
        self._broker = broker
        return broker

    async def _load_mirrors(self, broker: Broker) -> _Mirrors:
        mirrors = _Mirrors(
            keys=BucketMirror(broker, Bucket.KEYS, KeyRecord.model_validate_json, self._on_key),
            tenants=BucketMirror(
                broker, Bucket.TENANTS, TenantRecord.model_validate_json, self._on_tenant
            ),
            models=BucketMirror(broker, Bucket.MODELS, ModelRecord.model_validate_json),
        )
        for mirror in (mirrors.keys, mirrors.tenants, mirrors.models):
            await mirror.start()
            self._closing.push_async_callback(mirror.stop)
        return mirrors

    async def _start_archive(self, broker: Broker) -> PostgresResponses | None:
        """The store of responses; it may answer later, or never, and realtime serves."""
        settings = self.settings
        if settings.postgres_dsn is None:
            return None
        postgres = await Postgres.prepare(
            settings.postgres_dsn, name=self.name, connections=settings.postgres_connections
        )
        self._closing.push_async_callback(postgres.close)
        responses = PostgresResponses(postgres)
        consumer = DurableConsumer(broker, ARCHIVE_CONSUMER, credit=CREDIT, wanted=wanted)
        self._closing.push_async_callback(consumer.close)
        archiving = Archiving(
            archive=responses,
            source=consumer,
            rewind=lambda: rewind_consumer(broker, ARCHIVE_CONSUMER),
            clock=self._clock,
            rng=random.Random(),  # noqa: S311  jitter, no secret
            retention=timedelta(days=settings.response_retention_days),
        )
        self._closing.push_async_callback(consumer.stop)
        for work in (archiving.run(), archiving.prune()):
            self._work(work, "archive")
        return responses

    def _start_authentication(self, broker: Broker, mirrors: _Mirrors) -> Authentication:
        settings = self.settings
        access = AccessControl(mirrors.keys, mirrors.tenants, self._clock)
        fetch = GuardedFetch(
            allow_insecure=settings.allow_insecure_providers, timeout_s=settings.provider_timeout_s
        )
        tokens = Tokens(access, OpenIdProviders(fetch, self._clock), self._clock)
        for tenant in mirrors.tenants.values():
            tokens.on_tenant(tenant.tenant, tenant)
        self._tokens = tokens
        uses = KeyUses(NatsAccountDesk(broker), self._clock)
        self._closing.push_async_callback(uses.report)
        self._work(uses.run(), "key-uses")
        return Authentication(access, tokens, uses)

    def _work(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do it beside everything else, until the service stops."""
        self._closing.push_async_callback(_end, asyncio.create_task(work, name=name))

    async def _bind(
        self,
        broker: Broker,
        authentication: Authentication,
        limiter: RateLimiter,
        feedbacks: Feedbacks,
    ) -> None:
        gets = RequestGetHandler(feedbacks.lookup, self._clock)
        judgements = FeedbackHandler(feedbacks, authentication.access, limiter)
        for subject, answer in (
            (subjects.EVERY_REQUEST_GET, gets.answer),
            (subjects.EVERY_REQUEST_FEEDBACK, judgements.answer),
        ):
            asked = Questions(answer).on_question
            await broker.client.subscribe(subject, queue=QUEUE_GROUP, cb=asked)
        if self.settings.auth_callout_seed is not None:
            seed = self.settings.auth_callout_seed.get_secret_value()
            logins = LoginHandler(authentication, CalloutCodec(seed, ACCOUNT, time.time))
            await broker.client.subscribe(AUTH_SUBJECT, queue=QUEUE_GROUP, cb=logins.on_login)

    def _build_doors(
        self,
        broker: Broker,
        mirrors: _Mirrors,
        authentication: Authentication,
        limiter: RateLimiter,
        feedbacks: Feedbacks,
        sessions: Sessions,
    ) -> _Doors:
        settings, ids, lookup = self.settings, IdSource(self._clock), feedbacks.lookup
        admissions = Admissions(
            limiter=limiter,
            models=mirrors.models,
            router=NatsRouter(broker, settings.admission_timeout_s),
            commands=lookup.commands,
            sources=lookup.sources,
            conversations=Conversations(lookup.facts, lookup.sources),
        )
        sockets = Sockets(
            authentication,
            Connections(settings.max_sockets_per_tenant, settings.max_sockets_per_address),
            SocketServices(
                admissions,
                lookup,
                sessions,
                ids,
                max_responses=settings.max_responses_per_socket,
                buffer_bytes=settings.session_buffer_bytes,
                window_s=settings.session_window_s,
            ),
            Patience(
                first_message_s=settings.first_message_timeout_s,
                slow_reader_s=settings.slow_reader_timeout_s,
                idle_s=settings.idle_timeout_s,
            ),
            self._clock,
        )
        generations = Generations(authentication, admissions, lookup, settings.max_body_bytes)
        api = build_api(
            responses=ResponsesApi(generations),
            retrieval=RetrievalApi(authentication, lookup, sessions),
            feedback=FeedbackApi(authentication, admissions, feedbacks),
            chat=ChatApi(generations),
            embeddings=EmbeddingsApi(generations, mirrors.models),
            models=ModelsApi(authentication, mirrors.models),
            keys=KeysApi(authentication, NatsAccountDesk(broker)),
            organization=OrganizationApi(authentication, NatsBillingDesk(broker)),
            invoices=InvoicesApi(authentication, NatsBillingDesk(broker)),
            sockets=sockets,
        )
        gate = OriginGate(api, parse_origins(settings.allowed_origins))
        front = Front(gate, ids, settings.trusted_proxies)
        options = server_options(
            settings.max_header_bytes,
            settings.max_body_bytes,
            websocket_deflate=settings.websocket_deflate,
            limits=WireLimits(
                head_timeout_s=settings.header_timeout_s,
                body_timeout_s=settings.body_timeout_s,
                keep_alive_s=settings.keep_alive_timeout_s,
                per_address=settings.max_connections_per_address,
                trusted=settings.trusted_proxies,
            ),
        )
        server = HttpServer(front, settings.http_host, settings.http_port, **options)
        return _Doors(server, front, sockets)

    async def _start_sessions(self, broker: Broker, lookup: Lookup) -> Sessions:
        ids = IdSource(self._clock)
        instance = ids.new()  # not the setting: a process that is restarted is another one
        terms = Terms(self.settings.lost_socket_grace_s, self.settings.session_window_s)
        store = self._session_store()
        self._orphans = orphans = Orphans(lookup, store, terms.grace_s)
        self._closing.push_async_callback(orphans.stop)
        peers = NatsPeers(broker, instance)
        sessions = Sessions(store, peers, orphans, ids, instance=instance, terms=terms)
        await peers.listen(sessions.on_taken)
        broker.on_reconnect(sessions.rewrite)
        sessions.start()
        self._closing.push_async_callback(sessions.stop)
        if isinstance(store, RedisSessions):
            instances = Instances(
                store,
                store,
                peers,
                orphans,
                instance=instance,
                grace_s=terms.grace_s,
                on_forgotten=sessions.rewrite,
            )
            orphans.spawn(instances.run())
        return sessions

    def _rate_limiter(self) -> RedisRateLimiter:
        limiter = RedisRateLimiter(
            self.settings, self._clock.monotonic_s, metrics.RATE_LIMIT_FALLBACKS.inc
        )
        self._closing.push_async_callback(limiter.close)
        return limiter

    def _session_store(self) -> RedisSessions | MemorySessions:
        if self.settings.redis_url is None:
            return MemorySessions(self._clock.monotonic_s)
        redis = Redis.from_url(
            self.settings.redis_url.get_secret_value(),
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),  # whoever asks tries again, or does without
        )
        self._closing.push_async_callback(redis.aclose)
        return RedisSessions(redis, _SESSION_STORE_TIMEOUT_S)

    def _on_key(self, _: str, key: KeyRecord | None) -> None:
        self._revocations.on_key(key)

    def _on_tenant(self, name: str, tenant: TenantRecord | None) -> None:
        if self._tokens is not None:
            self._tokens.on_tenant(name, tenant)
        if self._doors is not None and tenant is not None:
            self._doors.sockets.on_tenant(tenant)
        self._revocations.on_tenant(name, tenant)

    def _revoke(self, revoked: Revoked) -> None:
        if self._doors is not None:
            self._doors.sockets.revoke(revoked)
        if self._disconnector is not None and self._orphans is not None:
            self._orphans.spawn(self._disconnector.disconnect(revoked))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def create_app(settings: Settings) -> App:
    """What `__main__` runs."""
    return App(settings)
