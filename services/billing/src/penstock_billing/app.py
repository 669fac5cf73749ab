"""Composition root of billing: the only file that constructs clients and binds subjects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Final

from nats.aio.msg import Msg
from pydantic import BaseModel

from penstock_billing.adapters.braintree_client import BraintreeAccount, BraintreeClient
from penstock_billing.adapters.braintree_gateway import BraintreeGateway
from penstock_billing.adapters.nats_buckets import NatsAccountBuckets
from penstock_billing.adapters.nats_dead_facts import NatsDeadFacts
from penstock_billing.adapters.nats_event_log import NatsEventLog
from penstock_billing.adapters.nats_models import NatsModels
from penstock_billing.adapters.nats_position import NatsEventPosition
from penstock_billing.adapters.nats_publisher import NatsEntryPublisher
from penstock_billing.adapters.postgres_accounts import PostgresAccounts
from penstock_billing.adapters.postgres_credits import PostgresCredits
from penstock_billing.adapters.postgres_invoices import PostgresInvoices
from penstock_billing.adapters.postgres_outbox import PostgresOutbox
from penstock_billing.adapters.postgres_payments import PostgresPayments
from penstock_billing.adapters.postgres_plans import PostgresPlans
from penstock_billing.adapters.postgres_reads import PostgresUsageReads
from penstock_billing.adapters.postgres_reconciliation import PostgresReconciliation
from penstock_billing.adapters.postgres_roles import (
    TenantPostgres,
    connect_platform,
    migrate_billing,
)
from penstock_billing.adapters.postgres_thresholds import PostgresThresholds
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.domain.announcements import Act
from penstock_billing.domain.dunning import DunningTerms
from penstock_billing.handlers.accounts import AccountCommands
from penstock_billing.handlers.closing import Closing
from penstock_billing.handlers.collecting import Collector
from penstock_billing.handlers.commands import CommandDesk, Verb
from penstock_billing.handlers.credits import CreditCommands
from penstock_billing.handlers.invoices import InvoiceQuestions
from penstock_billing.handlers.payments import PaymentCommands
from penstock_billing.handlers.periodic import every
from penstock_billing.handlers.plans import PlanCommands
from penstock_billing.handlers.reads import UsageQuestions
from penstock_billing.handlers.reconcile import Reconciler
from penstock_billing.handlers.reconciliation import Reconciliation
from penstock_billing.handlers.relay import OutboxRelay
from penstock_billing.handlers.settling import Settling
from penstock_billing.handlers.thresholds import Thresholds
from penstock_billing.handlers.usage import UsageDesk, UsageIngest, wanted
from penstock_billing.ports.payments import PaymentGateway, Provider
from penstock_billing.providers import StripeSide, WebhookPort
from penstock_billing.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import TRACEPARENT
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.streams import BILLING_CONSUMER, Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.consumer import Delivery, DurableConsumer
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring, read_root_key
from penstock_shared.runtime.kv import BucketStore
from penstock_shared.runtime.postgres import Postgres
from penstock_shared.runtime.provision import provision
from penstock_shared.runtime.replies import ReplyServer

_QUEUE_GROUP: Final = "billing"
_BATCHES_AHEAD: Final = 2
"""Batches asked for ahead: the next one arrives while Postgres commits."""
_LAST_BATCH_S: Final = 5.0
"""What a batch that is being written gets when the service drains."""


class App:
    """Billing."""

    name = "billing"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._source = f"/penstock/billing/{settings.instance}"
        self._clock = SystemClock()
        self._tasks: list[asyncio.Task[None]] = []
        self._broker: Broker | None = None
        self._postgres: Postgres | None = None
        self._reads: TenantPostgres | None = None
        self._replies: ReplyServer | None = None
        self._relay: OutboxRelay | None = None
        self._ingest: UsageIngest | None = None
        self._consumer: DurableConsumer | None = None
        self._braintree_client: BraintreeClient | None = None
        self._stripe: StripeSide | None = None
        self._webhooks: WebhookPort | None = None

    async def start(self) -> None:
        """Connect, migrate, mend the buckets; then read EVENTS and answer."""
        settings = self.settings
        root_key = read_root_key(settings.root_key_file)
        await migrate_billing(settings.postgres_owner_dsn or settings.postgres_dsn)
        self._postgres = postgres = await connect_platform(
            settings.postgres_dsn, settings.postgres_connections
        )
        self._broker = broker = await Broker.connect(settings.nats_url, name=settings.instance)
        await provision(broker, settings.stream_replicas)
        # All of it, not only the memory streams: a bus that came back without its store gets its
        # buckets again, and the reconciliation fills them.
        broker.on_reconnect(lambda: provision(broker, settings.stream_replicas))
        self._replies = ReplyServer(broker, _QUEUE_GROUP)
        await self._start_accounts(broker, postgres, self._replies)
        await self._start_usage(broker, postgres, self._replies, root_key)
        await broker.flush()

    def problems(self) -> list[str]:
        """Billing needs NATS and Postgres."""
        problems = []
        if self._broker is None or not self._broker.is_connected:
            problems.append("NATS does not answer.")
        if self._relay is not None and self._relay.problem:
            problems.append(self._relay.problem)
        return problems

    async def drain(self) -> None:
        """Take nothing new; finish the commands and the batch that are running."""
        if self._webhooks is not None:
            self._webhooks.server.stop_accepting()
        if self._replies is None or self._consumer is None or self._ingest is None:
            return
        await self._consumer.stop()
        with contextlib.suppress(TimeoutError):  # Postgres is away: the batch is handed back
            async with asyncio.timeout(_LAST_BATCH_S):
                await self._ingest.between_batches()
        await self._replies.drain()

    async def stop(self) -> None:
        """Close everything."""
        if self._webhooks is not None:
            await self._webhooks.server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._stripe is not None:
            await self._stripe.close()
        if self._braintree_client is not None:
            self._braintree_client.close()
        if self._consumer is not None:
            await self._consumer.close()
        if self._broker is not None:
            await self._broker.close()
        for postgres in (self._reads, self._postgres):
            if postgres is not None:
                await postgres.close()

    async def _start_accounts(
        self, broker: Broker, postgres: Postgres, replies: ReplyServer
    ) -> None:
        settings = self.settings
        store, outbox = PostgresAccounts(postgres), PostgresOutbox(postgres)
        self._relay = relay = OutboxRelay(outbox, NatsEntryPublisher(broker, self._source))
        plan_store = PostgresPlans(postgres)
        reconciler = Reconciler(store, plan_store, outbox, NatsAccountBuckets(broker))
        accounts = AccountCommands(store, relay, os.urandom)
        plans = PlanCommands(plan_store, NatsModels(broker), relay)
        await relay.look()
        await reconciler.look()
        self._spawn(relay.run(settings.relay_interval_s), "outbox-relay")
        self._look(settings.reconcile_interval_s, "reconcile", reconciler.look)
        await self._serve(replies, subjects.EVERY_ACCOUNTS, accounts.verbs)
        reads = await self._connect_reads()
        usage = UsageQuestions(PostgresUsageReads(reads, postgres))
        book, event_log = PostgresInvoices(postgres, reads), NatsEventPosition(broker)
        invoices = InvoiceQuestions(book, event_log)
        closing = Closing(
            book,
            event_log,
            self._clock,
            IdSource(self._clock).new,
            timedelta(seconds=settings.closing_grace_s),
        )
        credit = CreditCommands(PostgresCredits(postgres), relay)
        reconciliation = Reconciliation(
            PostgresReconciliation(postgres),
            NatsEventLog(broker),
            NatsDeadFacts(broker),
            NatsEventPosition(broker),
            self._clock,
        )
        self._spawn(reconciliation.run(settings.reconciliation_interval_s), "reconciliation")
        self._look(settings.closing_interval_s, "closing", closing.look)
        gateways = {**self._start_stripe(postgres, book), **self._braintree()}
        payments = await self._start_payments(postgres, relay, gateways)
        parts = (plans, credit, usage, invoices, closing, payments, reconciliation)
        money = {name: verb for part in parts for name, verb in part.verbs.items()}
        await self._serve(replies, subjects.EVERY_BILLING, money)

    def _start_stripe(
        self, postgres: Postgres, book: PostgresInvoices
    ) -> dict[Provider, PaymentGateway]:
        if self.settings.stripe_api_key is None:
            return {}
        key = self.settings.stripe_api_key
        self._stripe = stripe = StripeSide(self.settings, key, postgres, book, self._clock)
        for name, work in stripe.tasks():
            self._spawn(work, name)
        return {Provider.STRIPE: stripe.gateway}

    async def _start_payments(
        self,
        postgres: Postgres,
        relay: OutboxRelay,
        gateways: Mapping[Provider, PaymentGateway],
    ) -> PaymentCommands:
        settings, ids = self.settings, IdSource(self._clock)
        terms = DunningTerms(
            grace_after=timedelta(days=settings.dunning_grace_days),
            suspend_after=timedelta(days=settings.dunning_suspend_days),
        )
        book = PostgresPayments(postgres)
        settling = Settling(book, terms, lambda: Act(self._clock.now(), None, ids.new))
        collector = Collector(book, gateways, settling, relay)
        self._look(settings.payments_interval_s, "payments", collector.look)
        if gateways:
            self._webhooks = WebhookPort(
                settings, postgres, gateways, collector, self._stripe, self._clock
            )
            for name, work in await self._webhooks.start():
                self._spawn(work, name)
        return PaymentCommands(book, gateways, collector, settling, terms, relay)

    def _braintree(self) -> dict[Provider, PaymentGateway]:
        settings = self.settings
        merchant, public = settings.braintree_merchant_id, settings.braintree_public_key
        private = settings.braintree_private_key
        if merchant is None or public is None or private is None:
            return {}
        account = BraintreeAccount(
            environment=settings.braintree_environment,
            merchant_id=merchant,
            public_key=public,
            private_key=private,
            merchant_account_id=settings.braintree_merchant_account_id,
            url=settings.braintree_url,
        )
        self._braintree_client = client = BraintreeClient(account)
        return {Provider.BRAINTREE: BraintreeGateway(client, account)}

    async def _connect_reads(self) -> TenantPostgres:
        """For tenants' questions; closed with everything else."""
        settings = self.settings
        self._reads = await TenantPostgres.connect(
            settings.postgres_dsn, settings.postgres_read_connections
        )
        return self._reads

    async def _serve(self, replies: ReplyServer, subject: str, verbs: Mapping[str, Verb]) -> None:
        """Answer on `subject`, by the verb that is its last token."""
        desk = CommandDesk(verbs, self._clock, IdSource(self._clock))

        async def command(msg: Msg) -> BaseModel:
            verb = subjects.parse(msg.subject).rest[-1]
            return await desk.on_command(verb, msg.data, (msg.headers or {}).get(TRACEPARENT))

        await replies.serve(subject, command)

    async def _start_usage(
        self, broker: Broker, postgres: Postgres, replies: ReplyServer, root_key: bytes
    ) -> None:
        settings = self.settings
        ledger, position = PostgresUsage(postgres), NatsEventPosition(broker)
        if await ledger.rebuild_requested():
            until_seq = await position.reset()
            # A crash right here resets it again, which changes nothing.
            await ledger.rebuild_begun(until_seq)
        keyring = Keyring(root_key, BucketStore(broker, Bucket.DATA_KEYS), self._clock)
        dead = DeadLetters(broker, keyring, self._clock, self._source)

        async def reject(delivery: Delivery, error: PenstockError) -> None:
            await dead.bury(BILLING_CONSUMER.stream, delivery, error)

        rng = random.Random()  # noqa: S311  jitter, no secret
        self._ingest = ingest = UsageIngest(ledger, reject, rng, asyncio.sleep)
        self._consumer = consumer = DurableConsumer(
            broker,
            BILLING_CONSUMER,
            credit=_BATCHES_AHEAD * settings.batch_limit,
            wanted=wanted,
        )
        await consumer.start()
        self._spawn(ingest.run(consumer, settings.batch_limit, settings.batch_linger_s), "ingest")
        desk = UsageDesk(ledger, position)
        self._spawn(desk.watch(settings.position_interval_s), "position")
        thresholds = Thresholds(PostgresThresholds(postgres), self._clock, IdSource(self._clock))
        self._look(settings.thresholds_interval_s, "thresholds", thresholds.look)
        await replies.serve(subjects.usage_query(), lambda msg: desk.on_query(msg.data))

    def _look(self, interval_s: float, name: str, look: Callable[[], Awaitable[object]]) -> None:
        self._spawn(every(interval_s, name, look), name)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


def create_app(settings: Settings) -> App:
    """Billing, not yet started."""
    return App(settings)
