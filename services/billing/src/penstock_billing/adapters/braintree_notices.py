"""Braintree's webhooks: verified, and read for what they are about.

https://developer.paypal.com/braintree/docs/guides/webhooks/parse
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs
from xml.parsers.expat import ExpatError

from braintree.exceptions.invalid_signature_error import InvalidSignatureError

from penstock_billing.ports.payments import Notice, Provider
from penstock_shared.contracts.errors import AuthenticationError, SchemaError

_FORM: Final = "application/x-www-form-urlencoded"
_LONGEST_RETRY: Final = timedelta(hours=25)
"""A notice that nobody takes is sent again for a day, with the time of its first sending."""
_SKEW: Final = timedelta(minutes=5)
_KIND_CHARS: Final = 100
_MOST_FIELDS: Final = 10


def read_notice(sdk: Any, headers: Mapping[str, str], body: bytes, at: datetime) -> Notice:
    """Verify `bt_signature` over `bt_payload` and take the payload apart.

    A notice has no id: the hash of its payload is one, since a repetition is the same payload.

    Raises:
        AuthenticationError: not signed by Braintree, or signed too long ago or ahead.
        SchemaError: signed, but not of the documented shape.
    """
    signature, payload = _fields(headers, body)
    try:
        told = sdk.webhook_notification.parse(signature, payload)
        kind, about, timestamp = str(told.kind), _about(told), told.timestamp
    except (InvalidSignatureError, UnicodeError) as error:
        msg = "The notice is not signed by Braintree for this merchant's keys."
        raise AuthenticationError(msg, code="bad_signature") from error
    except (ExpatError, KeyError, TypeError, ValueError, AttributeError) as error:
        msg = "The notice is none that Braintree documents."
        raise SchemaError(msg, code="malformed_notice", param="bt_payload") from error
    return Notice(
        provider=Provider.BRAINTREE,
        notice_id=hashlib.sha256(payload.strip().encode()).hexdigest(),
        kind=kind[:_KIND_CHARS],
        reference=about,
        at=_in_bounds(timestamp, at),
    )


def _fields(headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        msg = f"A notice of Braintree's is a form: send it as {_FORM}."
        raise AuthenticationError(msg, code="bad_signature")
    try:
        form = parse_qs(body.decode("latin-1"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        form = {}
    signatures, payloads = form.get("bt_signature", []), form.get("bt_payload", [])
    if len(signatures) != 1 or len(payloads) != 1:
        msg = "A notice has 'bt_signature' and 'bt_payload', once each."
        raise AuthenticationError(msg, code="bad_signature")
    return signatures[0], payloads[0]


def _in_bounds(timestamp: Any, at: datetime) -> datetime:
    if not isinstance(timestamp, datetime):
        msg = "The notice has no time."
        raise SchemaError(msg, code="malformed_notice", param="timestamp")
    sent_at = timestamp.replace(tzinfo=UTC)
    if not at - _LONGEST_RETRY <= sent_at <= at + _SKEW:
        msg = "The notice was sent too long ago, or in the future: check this machine's clock."
        raise AuthenticationError(msg, code="stale_signature")
    return sent_at


def _about(notification: Any) -> str | None:
    """The transaction, a payment or a refund; of a dispute the one that is disputed."""
    transaction = getattr(notification, "transaction", None)
    if transaction is None:
        transaction = getattr(getattr(notification, "dispute", None), "transaction", None)
    return None if transaction is None else str(transaction.id)
