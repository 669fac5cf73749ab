"""The auth callout's messages: signed as nats-server verifies them, granting one tenant only."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import nkeys
import pytest

from penstock_realtime.adapters.nats_auth import (
    CalloutCodec,
    base64url,
    decode_claims,
    encode_jwt,
    parse_user_name,
    user_name,
)
from penstock_realtime.adapters.nats_disconnect import NatsDisconnector, parse_connz
from penstock_realtime.serving.revocation import Revoked
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.subjects import tenant_permissions
from penstock_shared.runtime.access import Identity

SEED = bytes(nkeys.encode_seed(bytes(range(32)), prefix=nkeys.PREFIX_BYTE_ACCOUNT)).decode()
NOW = 1_780_000_000.5
ACME = TenantRecord(tenant="acme", name="Acme", created_at=datetime(2026, 1, 1, tzinfo=UTC))
CALLER = Identity(ACME, "key_1")


@pytest.fixture
def codec() -> CalloutCodec:
    return CalloutCodec(SEED, "PENSTOCK", lambda: NOW)


def asked(**options: Any) -> bytes:
    """A request as nats-server sends it; who signed it does not matter here."""
    claims = {
        "aud": "nats-authorization-request",
        "nats": {
            "server_id": {"id": "NSERVER"},
            "user_nkey": "UUSER",
            "connect_opts": {"protocol": 1, **options},
        },
    }
    return encode_jwt(claims, lambda _: b"signature").encode()


@pytest.mark.parametrize("option", ["auth_token", "pass"])
def test_the_key_comes_as_token_or_password(codec: CalloutCodec, option: str) -> None:
    """Clients without token support use user and password; the key is the password."""
    request = codec.parse(asked(**{option: "psk_x"}))
    assert (request.secret, request.user_nkey, request.server_id) == ("psk_x", "UUSER", "NSERVER")


def test_no_key_is_none(codec: CalloutCodec) -> None:
    """Nothing sent is nothing, and no error of the responder's."""
    assert codec.parse(asked()).secret is None


def test_a_grant_is_signed_and_covers_one_tenant(codec: CalloutCodec) -> None:
    """Both JWTs verify with the account's key; the user has the tenant's subjects, no more (I8)."""
    request = codec.parse(asked(auth_token="psk_x"))
    answer = codec.grant(request, CALLER, tenant_permissions("acme")).decode()
    claims = decode_claims(answer)
    assert (claims["aud"], claims["sub"], claims["iat"]) == ("NSERVER", "UUSER", int(NOW))
    assert claims["nats"]["type"] == "authorization_response"
    user = decode_claims(claims["nats"]["jwt"])
    assert (user["aud"], user["sub"], user["name"]) == ("PENSTOCK", "UUSER", "acme/key_1")
    assert "exp" not in user
    subjects = user["nats"]["pub"]["allow"] + user["nats"]["sub"]["allow"]
    assert subjects
    assert all(s.startswith(("v1.acme.", "_INBOX_acme.")) for s in subjects)
    for token in (answer, claims["nats"]["jwt"]):
        head, body, signature = token.split(".")
        assert json.loads(base64.urlsafe_b64decode(head + "==")) == {
            "typ": "JWT",
            "alg": "ed25519-nkey",
        }
        raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        assert nkeys.from_seed(bytearray(SEED.encode())).verify(f"{head}.{body}".encode(), raw)


def test_a_credential_that_ends_ends_the_connection(codec: CalloutCodec) -> None:
    """The server itself cuts it at that second, whether anybody here is alive or not."""
    ends = datetime.fromtimestamp(NOW + 60, UTC)
    caller = replace(CALLER, expires_at=ends)
    answer = codec.grant(codec.parse(asked()), caller, tenant_permissions("acme")).decode()
    user = decode_claims(decode_claims(answer)["nats"]["jwt"])
    assert user["exp"] == int(NOW) + 60


def test_read_only_may_ask_and_hear() -> None:
    """It submits nothing and cancels nothing; all it may publish is a question."""
    permissions = tenant_permissions("acme", may_write=False)
    assert permissions.publish == ("v1.acme.requests.get",)
    assert permissions.subscribe == tenant_permissions("acme").subscribe


def test_user_names_lead_back() -> None:
    """Tenants' names hold no slash; a service's own user belongs to no tenant."""
    assert parse_user_name(user_name("acme", "key_1")) == ("acme", "key_1")
    assert parse_user_name("services") == ("", "services")


def test_a_refusal_grants_nothing(codec: CalloutCodec) -> None:
    """An error and no user."""
    claims = decode_claims(codec.refuse(codec.parse(asked()), "invalid_api_key").decode())
    assert claims["nats"]["error"] == "invalid_api_key"
    assert "jwt" not in claims["nats"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"a.b", b"a.b.c", b"\xff", f"a.{base64url(b'[]')}.c".encode(),
     f"a.{base64url(b'{}')}.c".encode(),
     encode_jwt({"aud": "nats-authorization-request", "nats": 1}, lambda _: b"").encode()],
)  # fmt: skip
def test_what_is_no_request(codec: CalloutCodec, raw: bytes) -> None:
    """Malformed requests are refused as such."""
    with pytest.raises(PermanentError):
        codec.parse(raw)


def test_a_wrong_seed_is_said() -> None:
    """The message names the variable."""
    with pytest.raises(PermanentError, match="PENSTOCK_AUTH_CALLOUT_SEED"):
        CalloutCodec("SAXX", "PENSTOCK", lambda: NOW)


def test_a_servers_connections_are_read_page_by_page() -> None:
    """Connections without a user (routes, leafs) are passed over; more pages are noticed."""
    data = {
        "server_id": "N1",
        "offset": 0,
        "num_connections": 2,
        "total": 3,
        "connections": [{"cid": 7, "authorized_user": "key_1"}, {"cid": 8}],
    }
    found, more = parse_connz(json.dumps({"data": data}).encode())
    assert [(c.server_id, c.cid, c.user) for c in found] == [("N1", 7, "key_1")]
    assert more


class Servers:
    """The system account of servers that stay silent for a while."""

    def __init__(self, silent: int) -> None:
        self.client = self
        self.silent, self.looks = silent, 0
        self.kicked: list[int] = []
        self.answers: list[bytes] = []

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, _: str) -> Any:
        return self

    async def unsubscribe(self) -> None:
        self.answers.clear()

    async def publish(self, *_: object, reply: str) -> None:
        assert reply
        self.looks += 1
        if self.looks > self.silent:
            found = [{"cid": 7, "authorized_user": "acme/key_1"},
                     {"cid": 8, "authorized_user": "acme/key_2"}]  # fmt: skip
            data = {"server_id": "N1", "num_connections": 2, "total": 2, "connections": found}
            self.answers.append(json.dumps({"data": data}).encode())

    async def next_msg(self, timeout: None) -> Any:  # noqa: ASYNC109  nats-py's signature
        assert timeout is None
        while not self.answers:
            await asyncio.sleep(1)
        return SimpleNamespace(data=self.answers.pop())

    async def request(self, subject: str, payload: bytes, timeout: float) -> None:  # noqa: ASYNC109
        assert (subject, timeout) == ("$SYS.REQ.SERVER.N1.KICK", 1.0)
        self.kicked.append(json.loads(payload)["cid"])


@pytest.mark.parametrize(("silent", "looks"), [(0, 2), (1, 2), (5, 6)])
async def test_silent_servers_are_asked_again(
    monkeypatch: pytest.MonkeyPatch, silent: int, looks: int
) -> None:
    """A revoked key's connection ends once a server answers, however late; others stay (I8)."""
    for name in ("_ANSWERS_WITHIN_S", "_SECOND_LOOK_S", "_LOOK_AGAIN_S"):
        monkeypatch.setattr(f"penstock_realtime.adapters.nats_disconnect.{name}", 0.01)
    servers: Any = Servers(silent)
    revoked = Revoked("gone", key_ids=frozenset({"key_1"}))
    await NatsDisconnector(servers, "PENSTOCK").disconnect(revoked)
    assert servers.looks == looks
    assert set(servers.kicked) == {7}
