"""Tokens that are cut, bent, nested and made up: each is refused, and none does anything else."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc.jws import JWSRegistry
from tests.support.oidc import AUDIENCE, OidcProvider, compact, rsa_key, segment

from penstock_realtime.adapters.identity_providers import OpenIdProviders
from penstock_realtime.serving.tokens import Tokens
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord
from penstock_shared.contracts.errors import AuthenticationError
from penstock_shared.runtime.access import AccessControl
from penstock_shared.runtime.clock import SystemClock

KEY = rsa_key("first")
OIDC = OidcProvider(issuer="https://id.example")
GOOD = OIDC.token(exp=int(time.time()) + 86_400)
HEADER = {"alg": "RS256", "kid": "first"}


class Held:
    """The provider's documents, without a network."""

    async def json(self, url: str) -> dict[str, Any]:
        if url.endswith("openid-configuration"):
            return {"issuer": OIDC.issuer, "jwks_uri": "https://id.example/jwks"}
        return {"keys": [KEY.as_dict(private=False)]}


def tokens() -> Tokens:
    clock = SystemClock()
    record = TenantRecord(
        tenant="acme",
        name="Acme",
        identity_providers=(OIDC.config(),),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    keys: dict[str, KeyRecord] = {}
    access = AccessControl(keys, {"acme": record}, clock)
    door = Tokens(access, OpenIdProviders(Held(), clock), clock)
    door.on_tenant("acme", record)
    return door


def sign(signed: bytes) -> bytes:
    return JWSRegistry.algorithms["RS256"].sign(signed, KEY)


async def test_the_good_one_is_good() -> None:
    """Or the others would be refused for nothing."""
    assert (await tokens().identify(GOOD)).tenant.tenant == "acme"


async def refuse(token: str) -> None:
    with pytest.raises(AuthenticationError) as refused:
        await tokens().identify(token)
    assert refused.value.code in {"invalid_token", "expired_token"}


@given(st.integers(0, len(GOOD) - 1))
async def test_cut(end: int) -> None:
    """Every beginning of a good token is none."""
    await refuse(GOOD[:end])


@given(st.integers(0, len(GOOD) - 1), st.characters())
async def test_bent(place: int, other: str) -> None:
    """One character replaced by any other: nothing that was not signed is believed."""
    bent = GOOD[:place] + other + GOOD[place + 1 :]
    if bent != GOOD:
        await refuse(bent)


@given(st.lists(st.text(max_size=40), min_size=3, max_size=3))
async def test_made_up(parts: list[str]) -> None:
    """Three parts of any text."""
    await refuse(".".join(parts))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
_claims = st.dictionaries(
    st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "roles"]), _json
)


@given(_claims)
async def test_signed_nonsense(claims: dict[str, Any]) -> None:
    """Well signed, and the claims are of any type: a refusal, never a failure of ours."""
    ends = int(time.time()) + 60
    good: dict[str, Any] = {"iss": OIDC.issuer, "aud": AUDIENCE, "sub": "x", "exp": ends}
    body = good | claims
    with contextlib.suppress(AuthenticationError):
        await tokens().identify(compact(HEADER, body, sign))
        assert body["iss"] == OIDC.issuer
        assert AUDIENCE in body["aud"]
        assert isinstance(body["sub"], str)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jwk", "jku", "crit", "b64"]), _json))
@example({"alg": "RS256", "kid": ["first"]})
@example({"alg": ["RS256"]})
@example({"alg": "RS256", "typ": {}})
async def test_any_header(header: dict[str, Any]) -> None:
    """A header of any shape in front of what is signed with it."""
    body = {"iss": OIDC.issuer, "aud": AUDIENCE, "sub": "x", "exp": int(time.time()) + 60}
    with contextlib.suppress(AuthenticationError):
        await tokens().identify(compact(header, body, sign))
        assert header["alg"] == "RS256"
        assert not {"crit", "b64"} & header.keys()


@pytest.mark.parametrize("depth", [100, 380, 2000])
@pytest.mark.parametrize("part", ["header", "body"])
async def test_nested_too_deep(depth: int, part: str) -> None:
    """A nest of brackets is refused like anything else, and not by the end of the stack."""
    nest = b"[" * depth
    good = json.dumps(HEADER).encode()
    head, body = (nest, b"{}") if part == "header" else (good, nest)
    await refuse(f"{segment(head)}.{segment(body)}.{segment(b'x')}")
