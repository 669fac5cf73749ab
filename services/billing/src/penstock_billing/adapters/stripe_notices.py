"""Stripe's webhooks: whose they are, how old they are, and what could not be delivered.

docs.stripe.com/webhooks#verify-events: `Stripe-Signature` holds a time and an HMAC of time and
body under the endpoint's secret. The package's own check bounds the past only; here both bounds
hold. Several secrets work at once: while one is rolled (#roll-endpoint-secrets), and because an
endpoint for thin events has one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import stripe
from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from penstock_billing.adapters.stripe_client import StripeConnection, plain, translated
from penstock_billing.ports.payments import Notice, Provider
from penstock_shared.contracts.errors import AuthenticationError, SchemaError

SIGNATURE_HEADER: Final = "stripe-signature"
TOLERANCE: Final = timedelta(minutes=5)
"""Into the past as into the future: clocks differ, and deliveries take a moment."""
METER_ERRORS: Final = (
    "v1.billing.meter.error_report_triggered",
    "v1.billing.meter.no_meter_found",
)
"""docs.stripe.com/api/v2/core/events/event-types."""
_PAYMENT_KINDS: Final = (
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_action_required",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "refund.created",
    "refund.updated",
    "refund.failed",
)
"""docs.stripe.com/api/events/types: after these a payment is asked for."""
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")]
_Kind = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.]{1,200}$")]


class _Subject(BaseModel):
    object: str
    id: _Id | None = None
    payment_intent: _Id | None = None


class _Data(BaseModel):
    object: _Subject


class _Snapshot(BaseModel):
    """docs.stripe.com/api/events/object."""

    object: Literal["event"]
    id: _Id
    type: _Kind
    created: Annotated[int, Field(ge=0, le=2**40)]
    data: _Data


class _Thin(BaseModel):
    """docs.stripe.com/api/v2/core/events/object."""

    object: Literal["v2.core.event"]
    id: _Id
    type: _Kind
    created: datetime


_EVENT: Final[TypeAdapter[_Snapshot | _Thin]] = TypeAdapter(
    Annotated[_Snapshot | _Thin, Field(discriminator="object")]
)


class StripeNoticeReader:
    """Reads deliveries."""

    def __init__(self, secrets: Sequence[SecretStr]) -> None:
        self._secrets = tuple(secrets)

    def read(self, headers: Mapping[str, str], body: bytes, at: datetime) -> Notice:
        """The notice in a delivery.

        Raises:
            AuthenticationError: it is not signed under any of the secrets, or not now.
            SchemaError: it is signed, but no event.
        """
        header = headers.get(SIGNATURE_HEADER)
        if not header or not header.isascii():
            msg = "There is no signature: this address is for Stripe's webhooks."
            raise AuthenticationError(msg, code="webhook_unsigned")
        self._verify(header, body)
        _check_time(header, at)
        try:
            return _notice(_EVENT.validate_json(body))
        except ValidationError as error:
            msg = "The body is no event of Stripe's."
            raise SchemaError(msg, code="webhook_malformed") from error

    def _verify(self, header: str, body: bytes) -> None:
        for secret in self._secrets:
            try:
                stripe.WebhookSignature.verify_header(body, header, secret.get_secret_value())
            except (stripe.SignatureVerificationError, UnicodeDecodeError):
                continue
            return
        msg = "The signature fits none of PENSTOCK_STRIPE_WEBHOOK_SECRETS."
        raise AuthenticationError(msg, code="webhook_bad_signature")


class StripeMissedNotices:
    """`MissedNotices`, and what a notice is about where the notice does not say."""

    def __init__(self, connection: StripeConnection) -> None:
        self._client = connection.client

    async def undelivered(self, since: datetime) -> list[Notice]:
        """What could not be delivered, and all of the meter's error reports: v2 has no such filter.

        docs.stripe.com/webhooks/process-undelivered-events.
        """
        with translated():
            missed = await self._client.v1.events.list_async(
                {
                    "types": list(_PAYMENT_KINDS),
                    "delivery_success": False,
                    "created": {"gte": int(since.timestamp())},
                    "limit": 100,
                }
            )
            notices = [
                _notice(_EVENT.validate_python(plain(event)))
                async for event in missed.auto_paging_iter()
            ]
            reports = await self._client.v2.core.events.list_async(
                {"types": list(METER_ERRORS), "created": {"gte": since.strftime("%FT%TZ")}}
            )
            notices += [
                _notice(_EVENT.validate_python(plain(event)))
                async for event in reports.auto_paging_iter()
            ]
        return notices

    async def about_invoice(self, notice: Notice) -> Notice:
        """A notice of a refund names what moved the money: the invoice is asked for.

        docs.stripe.com/api/invoice-payment/list.
        """
        if notice.reference is None or not notice.reference.startswith("pi_"):
            return notice
        with translated():
            found = await self._client.v1.invoice_payments.list_async(
                {"payment": {"type": "payment_intent", "payment_intent": notice.reference}}
            )
        invoice = plain(found.data[0])["invoice"] if found.data else None
        return replace(notice, reference=invoice)


def _check_time(header: str, at: datetime) -> None:
    """Of a header whose signature is right: so it has a time, read here as it was there."""
    signed = next(part.split("=")[1] for part in header.split(",") if part.startswith("t="))
    age_s = at.timestamp() - int(signed)
    if age_s > TOLERANCE.total_seconds():
        msg = "The delivery was signed too long ago."
        raise AuthenticationError(msg, code="webhook_stale")
    if -age_s > TOLERANCE.total_seconds():
        msg = "The delivery was signed in the future: check the clocks."
        raise AuthenticationError(msg, code="webhook_future")


def _notice(event: _Snapshot | _Thin) -> Notice:
    if isinstance(event, _Thin):
        return Notice(Provider.STRIPE, event.id, event.type, None, event.created.astimezone(UTC))
    about = event.data.object
    reference = about.id if about.object == "invoice" else about.payment_intent
    at = datetime.fromtimestamp(event.created, UTC)
    return Notice(Provider.STRIPE, event.id, event.type, reference, at)
