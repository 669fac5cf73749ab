"""Whose webhooks are believed: signed under a known secret, now, and of Stripe's shape (I8)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from stripe import WebhookSignature

from penstock_billing.adapters.stripe_notices import StripeNoticeReader
from penstock_billing.ports.payments import Provider
from penstock_shared.contracts.errors import AuthenticationError, PermanentError, SchemaError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OLD, NEW, THIN = "whsec_old", "whsec_new", "whsec_thin"
READER = StripeNoticeReader([SecretStr(secret) for secret in (OLD, NEW, THIN)])
PAID: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "type": "invoice.paid",
    "created": int(NOW.timestamp()),
    "data": {"object": {"id": "in_1", "object": "invoice", "total": 5}},
}


def signed(body: str, secret: str = NEW, at: datetime = NOW) -> dict[str, str]:
    header = WebhookSignature.generate_signature_header(body, secret, int(at.timestamp()))
    return {"stripe-signature": header}


@pytest.mark.parametrize("secret", [OLD, NEW, THIN])
def test_every_secret_works_while_one_is_rolled(secret: str) -> None:
    """An endpoint's old and new secret are valid together, and another endpoint has its own."""
    body = json.dumps(PAID)
    notice = READER.read(signed(body, secret), body.encode(), NOW)
    assert (notice.provider, notice.notice_id) == (Provider.STRIPE, "evt_1")
    assert (notice.kind, notice.reference, notice.at) == ("invoice.paid", "in_1", NOW)


def test_a_delivery_that_is_signed_twice_is_known_by_either() -> None:
    """While a secret is rolled Stripe signs with both (docs.stripe.com/webhooks)."""
    body = json.dumps(PAID)
    stranger = signed(body, "whsec_unknown")["stripe-signature"]
    known = signed(body)["stripe-signature"].partition(",")[2]
    header = {"stripe-signature": f"{stranger},{known}"}
    assert READER.read(header, body.encode(), NOW).notice_id == "evt_1"


@pytest.mark.parametrize(("seconds", "code"), [(301, "webhook_stale"), (-301, "webhook_future")])
def test_both_time_bounds_hold(seconds: int, code: str) -> None:
    """The package bounds the past only; five minutes either way are the most."""
    body = json.dumps(PAID)
    headers = signed(body, at=NOW - timedelta(seconds=seconds))
    with pytest.raises(AuthenticationError) as refused:
        READER.read(headers, body.encode(), NOW)
    assert refused.value.code == code
    within = timedelta(seconds=299 if seconds > 0 else -299)
    assert READER.read(signed(body, at=NOW - within), body.encode(), NOW)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "t=,v1=",
        "nonsense",
        "v1=00",
        f"t={int(NOW.timestamp())}",
        f"t={int(NOW.timestamp())},v1=00",
        f"t={int(NOW.timestamp())},v0=00",
        "t=99999999999999999999999,v1=00",
        "t=" + "9" * 5000 + ",v1=00",
        "t=1,t=2,v1=é",
    ],
)
def test_what_is_not_signed_is_refused(header: str | None) -> None:
    """No header, parts of one, other schemes, absurd numbers: none of it gets anywhere."""
    headers = {} if header is None else {"stripe-signature": header}
    with pytest.raises(AuthenticationError):
        READER.read(headers, json.dumps(PAID).encode(), NOW)


def test_a_body_that_was_changed_or_is_no_text_is_refused() -> None:
    """The signature is over every byte."""
    body = json.dumps(PAID)
    for other in (body.replace("evt_1", "evt_2").encode(), b"\xff\xfe", b""):
        with pytest.raises(AuthenticationError):
            READER.read(signed(body), other, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": "evt 1; drop table"},
        {"id": "e" * 300},
        {"object": "charge"},
        {"created": -1},
        {"created": 2**62},
        {"created": "yesterday"},
        {"data": {}},
        {"data": {"object": {"object": "invoice", "id": {"$ne": 1}}}},
        {"type": "x" * 300},
        {"object": "v2.core.event", "created": "no time"},
    ],
)
def test_what_is_signed_but_no_event_is_refused(change: dict[str, Any]) -> None:
    """Malformed bodies are errors of shape, not of ours."""
    body = json.dumps({**PAID, **change})
    with pytest.raises(SchemaError):
        READER.read(signed(body), body.encode(), NOW)


@pytest.mark.parametrize("body", ["", "[]", "null", "17", '"event"', "{", "[" * 5_000])
def test_what_is_signed_but_no_object_is_refused(body: str) -> None:
    """Also JSON that is nested without end."""
    with pytest.raises(PermanentError):
        READER.read(signed(body), body.encode(), NOW)


def test_a_thin_event_says_only_that_there_is_something_to_fetch() -> None:
    """docs.stripe.com/api/v2/core/events: no data, a time in RFC 3339."""
    body = json.dumps(
        {
            "id": "evt_test_65",
            "object": "v2.core.event",
            "type": "v1.billing.meter.error_report_triggered",
            "created": "2026-11-21T11:59:58.123Z",
            "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/…"},
        }
    )
    notice = READER.read(signed(body, THIN), body.encode(), NOW)
    assert notice.kind == "v1.billing.meter.error_report_triggered"
    assert notice.reference is None


def test_a_refund_is_about_what_moved_the_money() -> None:
    """Its invoice is asked for later."""
    refund = {"id": "re_1", "object": "refund", "payment_intent": "pi_1"}
    body = json.dumps({**PAID, "type": "refund.updated", "data": {"object": refund}})
    assert READER.read(signed(body), body.encode(), NOW).reference == "pi_1"
