"""Braintree's webhooks: only what the merchant's keys have signed, lately, is a notice."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from braintree.util.crypto import Crypto
from pydantic import SecretStr

from penstock_billing.adapters.braintree_client import BraintreeAccount, BraintreeClient
from penstock_billing.adapters.braintree_gateway import BraintreeGateway
from penstock_shared.contracts.errors import AuthenticationError, PenstockError, SchemaError

ACCOUNT = BraintreeAccount("sandbox", "merchant", "public", SecretStr("private"))
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def gateway() -> BraintreeGateway:
    """Of a merchant that nobody knows."""
    return BraintreeGateway(BraintreeClient(ACCOUNT), ACCOUNT)


def _sample(gateway: BraintreeGateway, kind: str, of: str) -> bytes:
    """As the package's own testing gateway makes them."""
    testing = gateway._client.sdk.webhook_testing
    return urlencode(testing.sample_notification(kind, of)).encode()


def _signed(xml: str, **fields: Any) -> bytes:
    payload = base64.encodebytes(xml.encode())
    signature = f"public|{Crypto.sha1_hmac_hash('private', payload)}"
    return urlencode({"bt_signature": signature, "bt_payload": payload, **fields}).encode()


def _settled(at: datetime) -> str:
    return f"""<notification><timestamp type="datetime">{at:%Y-%m-%dT%H:%M:%SZ}</timestamp>
        <kind>transaction_settled</kind><subject><transaction><id>tx_1</id><amount>1.00</amount>
        <status>settled</status></transaction></subject></notification>"""


@pytest.mark.parametrize(
    ("kind", "of", "about"),
    [
        ("transaction_settled", "tx_1", "tx_1"),
        ("transaction_settlement_declined", "tx_1", "tx_1"),
        ("transaction_disbursed", "tx_1", "tx_1"),
        ("refund_failed", "re_1", "re_1"),
        ("dispute_opened", "tx_1", "tx_1"),
        ("check", "", None),
        ("subscription_canceled", "sub_1", None),
        ("disbursement", "d_1", None),
    ],
)
def test_what_a_notice_is_about(
    gateway: BraintreeGateway, kind: str, of: str, about: str | None
) -> None:
    """Transactions, refunds and disputes name what is to be asked for; others name nothing."""
    now = datetime.now(UTC)
    body = _sample(gateway, kind, of)
    notice = gateway.read_notice(FORM, body, now)
    assert (notice.kind, notice.reference) == (kind, about)
    assert abs(notice.at - now) < timedelta(minutes=5)
    assert gateway.read_notice(FORM, body, now) == notice, "a repetition has the same id"


@pytest.mark.parametrize("late", [timedelta(hours=26), -timedelta(minutes=6)])
def test_both_bounds_of_time(gateway: BraintreeGateway, late: timedelta) -> None:
    """Signed, but sent more than a day ago, or in the future: refused."""
    with pytest.raises(AuthenticationError) as refused:
        gateway.read_notice(FORM, _signed(_settled(NOON)), NOON + late)
    assert refused.value.code == "stale_signature"
    assert gateway.read_notice(FORM, _signed(_settled(NOON)), NOON).reference == "tx_1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"bt_signature=public|00&bt_payload=" + base64.b64encode(_settled(NOON).encode()),
        b"bt_signature=&bt_payload=",
        b"bt_payload=abcd",
        urlencode({"bt_signature": "other|00", "bt_payload": "abcd\n"}).encode(),
        urlencode({"bt_signature": "public|ä", "bt_payload": "abcd\n"}).encode(),
        urlencode({"bt_signature": "public|00", "bt_payload": "<xml>"}).encode(),
        urlencode({"bt_signature": "public|00", "bt_payload": "ä"}).encode(),
        _signed(_settled(NOON), a=1) + b"&bt_payload=abcd",
        _signed(_settled(NOON)).replace(b"bt_payload=", b"bt_payload=QUFB"),
        b"&".join(b"x=%d" % number for number in range(1_000)),
        b"\xff\xfe\x00",
    ],
)
def test_what_is_not_signed_is_refused(gateway: BraintreeGateway, body: bytes) -> None:
    """Missing, wrong, doubled and foreign signatures, altered payloads, floods of fields."""
    with pytest.raises(AuthenticationError):
        gateway.read_notice(FORM, body, NOON)


def test_other_types_of_content_are_refused(gateway: BraintreeGateway) -> None:
    """A signed form is one only when it says so."""
    for content_type in ({}, {"content-type": "application/json"}):
        with pytest.raises(AuthenticationError):
            gateway.read_notice(content_type, _signed(_settled(NOON)), NOON)


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "not xml",
        "<notification/>",
        "<other><kind>check</kind></other>",
        "<notification><kind>check</kind></notification>",
        "<notification><kind>check</kind><subject/></notification>",
        _settled(NOON).replace("2026-07", "yesterday"),
        _settled(NOON).replace('type="datetime"', ""),
        _settled(NOON).replace("<id>tx_1</id>", ""),
    ],
)
def test_what_is_signed_and_malformed_is_refused(gateway: BraintreeGateway, xml: str) -> None:
    """Whatever the sender of the keys sends: a refusal with a reason, never another error."""
    with pytest.raises(PenstockError) as refused:
        gateway.read_notice(FORM, _signed(xml), NOON)
    assert isinstance(refused.value, SchemaError | AuthenticationError)
