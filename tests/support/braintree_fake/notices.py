"""Webhooks: a form with `bt_signature` and `bt_payload`.

https://developer.paypal.com/braintree/docs/guides/webhooks/parse; the payload is Base64 of XML, in
lines; the signature has a pair `public key|HMAC` for each of the merchant's keys. A notice that is
not answered with 2xx within 30 seconds is sent again every hour, for a day in production
(https://developer.paypal.com/braintree/docs/guides/webhooks/overview).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

import httpx
from tests.support.braintree_fake.wire import Members, to_xml


@dataclass(frozen=True)
class Notice:
    """One notice, signed. Sent again it is the same, byte for byte."""

    signature: str
    payload: str

    @property
    def body(self) -> bytes:
        """The form."""
        return urlencode({"bt_signature": self.signature, "bt_payload": self.payload}).encode()

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it."""
        return {"content-type": "application/x-www-form-urlencoded"}

    async def send(self, url: str, copies: int = 1) -> list[int]:
        """Post it; the statuses."""
        async with httpx.AsyncClient(timeout=10) as client:
            return [
                (await client.post(url, content=self.body, headers=self.headers)).status_code
                for _ in range(copies)
            ]


def notice(kind: str, subject: Members, at: datetime, keys: Mapping[str, str]) -> Notice:
    """A notice of `kind` about `subject`, signed with every key pair (public: private)."""
    document = to_xml("notification", {"timestamp": at, "kind": kind, "subject": subject})
    payload = base64.encodebytes(document.encode()).decode()
    pairs = (f"{public}|{sign(private, payload)}" for public, private in keys.items())
    return Notice("&".join(pairs), payload)


def sign(private_key: str, payload: str) -> str:
    """HMAC-SHA1 with the SHA-1 of the private key."""
    key = hashlib.sha1(private_key.encode(), usedforsecurity=False).digest()
    return hmac.new(key, payload.encode(), hashlib.sha1).hexdigest()
