"""Part of the composition root: Stripe's side of billing, and the port where providers tell us."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Final

from pydantic import SecretStr

from penstock_billing.adapters.postgres_mirror import PostgresMirror
from penstock_billing.adapters.postgres_notices import PostgresNotices
from penstock_billing.adapters.postgres_pushes import PostgresPushes
from penstock_billing.adapters.stripe_client import StripeConnection
from penstock_billing.adapters.stripe_gateway import StripeGateway
from penstock_billing.adapters.stripe_meter import StripeMeter, StripeMeterErrors
from penstock_billing.adapters.stripe_mirror import StripeMirror
from penstock_billing.adapters.stripe_notices import (
    METER_ERRORS,
    StripeMissedNotices,
    StripeNoticeReader,
)
from penstock_billing.handlers.meter_errors import MeterErrorDesk
from penstock_billing.handlers.periodic import at_once
from penstock_billing.handlers.pushing import UsagePusher
from penstock_billing.handlers.stripe_sync import StripeSync
from penstock_billing.handlers.webhooks import AboutInvoices, CatchUp, NoticeDesk, WebhookDesk
from penstock_billing.http.webhooks import create_webhook_app
from penstock_billing.ports.invoices import InvoiceBook
from penstock_billing.ports.payments import NoticeHandler, PaymentGateway, Provider
from penstock_billing.settings import Settings
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.http_server import HttpServer
from penstock_shared.runtime.postgres import Postgres
from penstock_shared.runtime.telemetry import log

Task = tuple[str, Coroutine[Any, Any, None]]
_SLOW_SENDER_S: Final = 10
"""What a connection may take between two deliveries."""


class StripeSide:
    """What there is where an API key is set."""

    def __init__(
        self,
        settings: Settings,
        key: SecretStr,
        postgres: Postgres,
        invoices: InvoiceBook,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._connection = connection = StripeConnection(
            key, api_base=settings.stripe_api_base, events_base=settings.stripe_events_base
        )
        self._book, self._pushes = PostgresMirror(postgres), PostgresPushes(postgres)
        self._mirror = StripeMirror(connection, self._book, clock)
        self.missed = StripeMissedNotices(connection)
        self.gateway = StripeGateway(
            connection,
            self._mirror,
            self._pushes,
            invoices,
            StripeNoticeReader(settings.stripe_webhook_secrets),
            clock,
        )
        self.meter_errors = MeterErrorDesk(StripeMeterErrors(connection), self._pushes, clock)

    def tasks(self) -> list[Task]:
        """What runs for ever."""
        settings = self._settings
        meter = StripeMeter(
            self._connection, self._book, self._clock, stream_from=settings.push_stream_from
        )
        sync = StripeSync(self._book, self._mirror, self.gateway)
        pusher = UsagePusher(self._pushes, meter, self._clock)
        return [
            (
                "stripe-sync",
                at_once(settings.stripe_sync_interval_s, "stripe_sync", sync.look),
            ),
            ("stripe-push", at_once(settings.push_interval_s, "push", pusher.look)),
        ]

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()


class WebhookPort:
    """Takes providers' notices in, and has them handled."""

    def __init__(
        self,
        settings: Settings,
        postgres: Postgres,
        gateways: Mapping[Provider, PaymentGateway],
        payments: NoticeHandler,
        stripe: StripeSide | None,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._stripe = stripe
        self._clock = clock
        self._inbox = inbox = PostgresNotices(postgres)
        self._desk = desk = WebhookDesk(gateways, inbox, clock)
        by_kind: dict[str, NoticeHandler] = {}
        by_provider: dict[Provider, NoticeHandler] = dict.fromkeys(Provider, payments)
        if stripe is not None:
            by_kind = dict.fromkeys(METER_ERRORS, stripe.meter_errors)
            by_provider[Provider.STRIPE] = AboutInvoices(stripe.missed.about_invoice, payments)
        self._notices = NoticeDesk(inbox, by_kind, by_provider, desk.arrived, clock)
        self.server = HttpServer(
            create_webhook_app(desk, frozenset(gateways)),
            settings.webhook_host,
            settings.webhook_port,
            ws="none",
            timeout_keep_alive=_SLOW_SENDER_S,
        )

    async def start(self) -> list[Task]:
        """Listen; what runs for ever.

        Raises:
            UnavailableError: the port is taken.
        """
        await self.server.start()
        log().info("webhooks.listening", port=self.server.port)
        tasks = [("notices", self._notices.run(self._settings.notice_interval_s))]
        if self._stripe is not None:
            catch_up = CatchUp(self._stripe.missed, self._inbox, self._desk.arrived, self._clock)
            interval_s = self._settings.catch_up_interval_s
            tasks.append(("catch-up", at_once(interval_s, "catch_up", catch_up.look)))
        return tasks
