"""Tokens against a real OpenID provider: signed by real keys, attacked, rotated, slow, away."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hmac
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey, OctKey, RSAKey
from tests.support.oidc import (
    AUDIENCE,
    Mood,
    OidcProvider,
    compact,
    every_kind,
    provider,
    rsa_key,
    segment,
)

from penstock_realtime.adapters.guarded_fetch import GuardedFetch, is_public
from penstock_realtime.adapters.identity_providers import OpenIdProviders, import_keys
from penstock_realtime.serving.tokens import Tokens
from penstock_shared.contracts.accounts import (
    IdentityProvider,
    KeyRecord,
    Role,
    TenantRecord,
    TenantStatus,
)
from penstock_shared.contracts.errors import (
    AuthenticationError,
    PenstockError,
    PermissionDeniedError,
    UnavailableError,
)
from penstock_shared.runtime.access import AccessControl

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clock:
    """The machine's, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + dt.timedelta(seconds=self.ahead_s)

    def monotonic_s(self) -> float:
        return time.monotonic() + self.ahead_s


class Directory(dict[str, Any]):
    """A bucket in memory."""


class Gate:
    """What the edge puts together, for some tenants."""

    def __init__(self, timeout_s: float = 2.0, *, allow_insecure: bool = True) -> None:
        self.clock = Clock()
        self.tenants = Directory()
        keys: Any = Directory()
        mirror: Any = self.tenants
        access = AccessControl(keys, mirror, self.clock)
        fetch = GuardedFetch(allow_insecure=allow_insecure, timeout_s=timeout_s)
        self.tokens = Tokens(access, OpenIdProviders(fetch, self.clock), self.clock)

    def put(
        self,
        tenant: str,
        *providers: IdentityProvider,
        status: TenantStatus = TenantStatus.ACTIVE,
    ) -> None:
        record = TenantRecord(
            tenant=tenant,
            name=tenant,
            status=status,
            identity_providers=providers,
            created_at=NOON,
        )
        self.tenants[tenant] = record
        self.tokens.on_tenant(tenant, record)

    async def refusal(self, token: str) -> str:
        with pytest.raises(PenstockError) as error:
            await self.tokens.identify(token)
        return error.value.code


@pytest.fixture
async def oidc() -> AsyncIterator[OidcProvider]:
    async with provider() as running:
        yield running


@pytest.fixture
def gate(oidc: OidcProvider) -> Gate:
    gate = Gate()
    gate.put("acme", oidc.config())
    return gate


async def test_a_token_names_its_tenant_and_subject(gate: Gate, oidc: OidcProvider) -> None:
    """Found by discovery; a name for the subject that is stable and no personal data; an end."""
    ends = int(time.time()) + 300
    first = await gate.tokens.identify(oidc.token(sub="alice@acme.example", exp=ends))
    again = await gate.tokens.identify(oidc.token(sub="alice@acme.example", jti="2"))
    other = await gate.tokens.identify(oidc.token(sub="bob"))
    assert first.tenant.tenant == "acme"
    assert first.key_id == again.key_id != other.key_id
    assert first.key_id.startswith("sub-")
    assert "alice" not in first.key_id
    KeyRecord(key_id=first.key_id, tenant="acme", name="x", hint="", created_at=NOON)
    assert first.expires_at == datetime.fromtimestamp(ends + 60, UTC)  # with the skew
    assert oidc.asked == ["/.well-known/openid-configuration", "/jwks"]


async def test_every_algorithm(gate: Gate, oidc: OidcProvider) -> None:
    """Each that the configuration can name, and only those that it does name."""
    kinds = every_kind()
    oidc.keys = [key for _, key in kinds]
    for alg, key in kinds:
        gate.put("acme", oidc.config(algorithms=[alg]))
        token = oidc.token(key=key, alg=alg)
        assert (await gate.tokens.identify(token)).tenant.tenant == "acme"
        others = [a for a, _ in kinds if a != alg]
        gate.put("acme", oidc.config(algorithms=others))
        assert await gate.refusal(token) == "invalid_token"


Forge = Callable[[OidcProvider], str]
OTHER = RSAKey.generate_key(2048, {"kid": "first"})
"""Another key under the name of the provider's."""


def _unsigned(oidc: OidcProvider, alg: str) -> str:
    body = {"iss": oidc.issuer, "aud": AUDIENCE, "sub": "a", "exp": time.time() + 300}
    return compact({"alg": alg, "kid": "first"}, body, lambda _: b"")


def _confused(oidc: OidcProvider, form: str) -> str:
    """HS256 whose secret is the public key, in one of its usual forms."""
    key = oidc.keys[0]
    assert isinstance(key, RSAKey)
    secret = (
        json.dumps(key.as_dict(private=False)).encode()
        if form == "jwk"
        else key.as_bytes(encoding="PEM" if form == "pem" else "DER", private=False)
    )
    told = json.loads(base64.urlsafe_b64decode(oidc.token().split(".")[1] + "=="))
    head = {"alg": "HS256", "kid": "first"}
    return compact(head, told, lambda signed: hmac.digest(secret, signed, "sha256"))


def _with_own_key(oidc: OidcProvider, name: str) -> str:
    """Signed by a key that the header itself brings along."""
    brought: Any = {
        "jwk": OTHER.as_dict(private=False),
        "jku": f"{oidc.issuer}/evil",
        "x5u": f"{oidc.issuer}/evil",
    }[name]
    return oidc.token(key=OTHER, header={name: brought})


def _resigned(token: str, **claims: Any) -> str:
    head, body, signature = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{segment(told | claims)}.{signature}"


ATTACKS: dict[str, Forge] = {
    "alg none": lambda o: _unsigned(o, "none"),
    "alg None": lambda o: _unsigned(o, "None"),
    "no signature": lambda o: _unsigned(o, "RS256"),
    "HS256, public key as PEM": lambda o: _confused(o, "pem"),
    "HS256, public key as DER": lambda o: _confused(o, "der"),
    "HS256, public key as JWK": lambda o: _confused(o, "jwk"),
    "another key under its name": lambda o: o.token(key=OTHER),
    "another key, EC": lambda o: o.token(
        key=ECKey.generate_key("P-256", {"kid": "first"}), alg="ES256"
    ),
    "jwk in the header": lambda o: _with_own_key(o, "jwk"),
    "jku in the header": lambda o: _with_own_key(o, "jku"),
    "x5u in the header": lambda o: _with_own_key(o, "x5u"),
    "crit": lambda o: o.token(header={"crit": ["exp"], "exp": 1}),
    "b64": lambda o: o.token(header={"b64": True, "crit": ["b64"]}),
    "unknown kid": lambda o: o.token(header={"kid": "nobody"}),
    "kid is a path": lambda o: o.token(header={"kid": "../../dev/null"}),
    "other claims under the signature": lambda o: _resigned(o.token(), sub="root"),
    "wrong issuer": lambda o: o.token(iss="https://evil.example"),
    "issuer with a slash": lambda o: o.token(iss=f"{o.issuer}/"),
    "issuer is a list": lambda o: o.token(iss=[o.issuer]),
    "no issuer": lambda o: o.token(without=("iss",)),
    "wrong audience": lambda o: o.token(aud="somebody-else"),
    "no audience": lambda o: o.token(without=("aud",)),
    "audience of numbers": lambda o: o.token(aud=[1, AUDIENCE, {}]),
    "no subject": lambda o: o.token(without=("sub",)),
    "empty subject": lambda o: o.token(sub=""),
    "subject is a number": lambda o: o.token(sub=7),
    "no end": lambda o: o.token(without=("exp",)),
    "end is text": lambda o: o.token(exp="9999999999"),
    "end is true": lambda o: o.token(exp=True),
    "not yet": lambda o: o.token(nbf=int(time.time()) + 120),
    "made in the future": lambda o: o.token(iat=int(time.time()) + 120),
    "nbf is text": lambda o: o.token(nbf="now"),
    "too long": lambda o: o.token(filler="x" * 8192),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks(gate: Gate, oidc: OidcProvider, attack: str) -> None:
    """Refused, all with the same words: nothing tells which part was wrong (I8)."""
    assert await gate.refusal(ATTACKS[attack](oidc)) == "invalid_token"
    assert "/evil" not in oidc.asked
    assert (await gate.tokens.identify(oidc.token())).tenant.tenant == "acme"


async def test_times_and_their_skew(gate: Gate, oidc: OidcProvider) -> None:
    """A minute of skew is granted to either side, and no more."""
    now = int(time.time())
    for claims in ({"exp": now - 50}, {"nbf": now + 50}, {"iat": now + 50}, {"exp": 1e300}):
        await gate.tokens.identify(oidc.token(**claims))
    assert await gate.refusal(oidc.token(exp=now - 70)) == "expired_token"
    assert await gate.refusal(oidc.token(exp=-(10**30))) == "expired_token"
    gate.put("acme", oidc.config(clock_skew_s=0))
    assert await gate.refusal(oidc.token(exp=now - 5)) == "expired_token"


async def test_a_remembered_token_still_ends(gate: Gate, oidc: OidcProvider) -> None:
    """Being verified once is no licence: expiry, suspension and a change of terms still count."""
    token = oidc.token()
    await gate.tokens.identify(token)
    gate.put("acme", oidc.config(), status=TenantStatus.SUSPENDED)
    assert await gate.refusal(token) == "tenant_suspended"
    gate.put("acme", oidc.config(default_role="read-only"))
    assert (await gate.tokens.identify(token)).role is Role.READ_ONLY
    gate.put("acme", oidc.config(audiences=["another"]))
    assert await gate.refusal(token) == "invalid_token"
    gate.put("acme", oidc.config())
    await gate.tokens.identify(token)
    gate.clock.ahead_s = 361
    assert await gate.refusal(token) == "expired_token"


async def test_a_repeated_token_is_not_verified_again(gate: Gate, oidc: OidcProvider) -> None:
    """From memory, also while its provider is away and its keys are long forgotten."""
    token = oidc.token(exp=int(time.time()) + 3600 * 5)
    await gate.tokens.identify(token)
    oidc.stop()
    for _ in range(100):
        await gate.tokens.identify(token)
    assert len(oidc.asked) == 2


async def test_roles(gate: Gate, oidc: OidcProvider) -> None:
    """One value or several, at the top or inside; of several the one that may most; or no entry."""
    roles = {"ops": "admin", "dev": "member", "guest": "read-only"}
    settings = {"role_claim": "realm_access.roles", "roles": roles, "default_role": None}
    gate.put("acme", oidc.config(**settings))
    for held, role in {"dev": Role.MEMBER, "guest": Role.READ_ONLY, "ops": Role.ADMIN}.items():
        token = oidc.token(realm_access={"roles": held})
        assert (await gate.tokens.identify(token)).role is role
    several = oidc.token(realm_access={"roles": ["guest", 7, None, "ops", "unknown"]})
    assert (await gate.tokens.identify(several)).role is Role.ADMIN
    nobodies: tuple[Any, ...] = ({"roles": "root"}, {"roles": []}, {"roles": {"ops": 1}}, [], "ops")
    for nobody in nobodies:
        assert await gate.refusal(oidc.token(realm_access=nobody)) == "no_role"
    assert await gate.refusal(oidc.token()) == "no_role"
    settings["role_claim"] = "https://acme.example/roles"
    gate.put("acme", oidc.config(**settings))
    claim: dict[str, Any] = {"https://acme.example/roles": "dev"}
    named = oidc.token(**claim)
    assert (await gate.tokens.identify(named)).role is Role.MEMBER


async def test_one_issuer_for_two_tenants(gate: Gate, oidc: OidcProvider) -> None:
    """The audience tells them apart; who names both is nobody, and the same person is two (I8)."""
    gate.put("globex", oidc.config(audiences=["globex"]))
    mine = await gate.tokens.identify(oidc.token())
    theirs = await gate.tokens.identify(oidc.token(aud=["globex", "unknown"]))
    assert (mine.tenant.tenant, theirs.tenant.tenant) == ("acme", "globex")
    assert mine.key_id != theirs.key_id
    assert await gate.refusal(oidc.token(aud=[AUDIENCE, "globex"])) == "invalid_token"


async def test_one_audience_of_two_tenants_is_nobodys(gate: Gate, oidc: OidcProvider) -> None:
    """Billing never lets that happen; if it does, nobody comes in, whoever was first (I8)."""
    token = oidc.token()
    await gate.tokens.identify(token)
    gate.put("globex", oidc.config())
    assert await gate.refusal(token) == "invalid_token"
    gate.put("globex")
    await gate.tokens.identify(token)


async def test_rotation_of_keys(gate: Gate, oidc: OidcProvider) -> None:
    """An unknown `kid` makes us look again, at most every 30 s, however many tokens have one."""
    await gate.tokens.identify(oidc.token())
    new = rsa_key("second")
    oidc.keys.append(new)
    token = oidc.token(key=new)
    answers = [await gate.refusal(token) for _ in range(20)]
    assert set(answers) == {"invalid_token"}  # looked a moment ago
    assert oidc.asked.count("/jwks") == 1
    gate.clock.ahead_s += 31
    found = await asyncio.gather(*(gate.tokens.identify(token) for _ in range(20)))
    assert {identity.tenant.tenant for identity in found} == {"acme"}
    assert oidc.asked.count("/jwks") == 2
    for n in range(20):
        await gate.refusal(oidc.token(header={"kid": f"flood-{n}"}))
    assert oidc.asked.count("/jwks") == 2


async def test_a_withdrawn_key_ends(gate: Gate, oidc: OidcProvider) -> None:
    """Within the key set's age and a verified token's, 15 minutes in all."""
    old = oidc.keys[0]
    ends = int(time.time()) + 86_400
    token = oidc.token(key=old, exp=ends)
    await gate.tokens.identify(token)
    oidc.keys[:] = [rsa_key("second")]
    gate.clock.ahead_s += 601
    await gate.tokens.identify(
        oidc.token(key=old, jti="2", exp=ends)
    )  # served, and looked meanwhile

    async def looked() -> None:
        while oidc.asked.count("/jwks") < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)

    await asyncio.wait_for(looked(), 5)
    assert await gate.refusal(token) == "invalid_token"


async def test_a_provider_that_is_away(gate: Gate, oidc: OidcProvider) -> None:
    """Its keys serve for an hour; then, and for who never came before, it is unavailable."""
    token = oidc.token(exp=int(time.time()) + 86_400)
    await gate.tokens.identify(token)
    oidc.stop()
    gate.clock.ahead_s += 1800
    await gate.tokens.identify(token)
    gate.clock.ahead_s += 1900
    assert await gate.refusal(token) == "identity_provider_unavailable"


@pytest.mark.parametrize(
    "mood",
    [Mood.SLOW, Mood.SILENT, Mood.HUGE, Mood.ENDLESS, Mood.ERROR, Mood.GARBAGE, Mood.LIST,
     Mood.COMPRESSED, Mood.REDIRECTING],
)  # fmt: skip
async def test_a_provider_in_a_mood(oidc: OidcProvider, mood: Mood) -> None:
    """Bounded in time and bytes, no redirect followed; asked once, whoever waits; then it heals."""
    gate = Gate(timeout_s=0.3)
    gate.put("acme", oidc.config())
    oidc.mood = mood
    async with provider() as elsewhere:
        oidc.elsewhere = f"{elsewhere.issuer}/jwks"
        answers = await asyncio.gather(*(gate.refusal(oidc.token(jti=str(n))) for n in range(5)))
        assert set(answers) == {"identity_provider_unavailable"}
        assert len(oidc.asked) == 1
        assert not elsewhere.asked
    oidc.mood, oidc.elsewhere = Mood.WELL, None
    assert await gate.refusal(oidc.token()) == "identity_provider_unavailable"  # not yet again
    gate.clock.ahead_s += 31
    await gate.tokens.identify(oidc.token())


async def test_a_slow_provider_delays_nobody_else(oidc: OidcProvider) -> None:
    """Other tenants' tokens are served while one provider lets its own wait."""
    async with provider(mood=Mood.SILENT) as slow:
        gate = Gate(timeout_s=1.0)
        gate.put("acme", oidc.config())
        gate.put("globex", slow.config())
        waiting = asyncio.create_task(gate.refusal(slow.token()))
        await asyncio.sleep(0.05)
        await gate.tokens.identify(oidc.token())
        assert not waiting.done()
        assert await waiting == "identity_provider_unavailable"


async def test_discovery_of_another_issuer(oidc: OidcProvider) -> None:
    """OpenID Connect Discovery §4.3: a document that names another issuer is not believed."""
    gate = Gate()
    gate.put("acme", oidc.config())
    oidc.named_issuer = "https://accounts.example"
    assert await gate.refusal(oidc.token()) == "identity_provider_unavailable"
    assert "/jwks" not in oidc.asked


@pytest.mark.parametrize(
    "address", ["ftp://localhost/jwks", "file:///etc/passwd", "http://192.168.0.1/jwks", "", None]
)
async def test_discovery_that_leads_astray(oidc: OidcProvider, address: str | None) -> None:
    """The address of the keys obeys the same rules, whoever wrote it."""
    gate = Gate()
    gate.put("acme", oidc.config())
    oidc.elsewhere = address or "http://[::1"
    assert await gate.refusal(oidc.token()) == "identity_provider_unavailable"


async def test_configured_keys_need_no_discovery(oidc: OidcProvider) -> None:
    """`jwks_uri` is asked directly."""
    gate = Gate()
    gate.put("acme", oidc.config(jwks_uri=f"{oidc.issuer}/jwks"))
    await gate.tokens.identify(oidc.token())
    assert oidc.asked == ["/jwks"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_private_addresses_are_not_asked(oidc: OidcProvider, scheme: str) -> None:
    """Unless the setting allows it nothing behind the firewall hears of us (SSRF)."""
    fetch = GuardedFetch(allow_insecure=False, timeout_s=1.0)
    url = oidc.issuer.replace("http", scheme)
    for host in ("localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001"):
        with pytest.raises(UnavailableError):
            await fetch.json(f"{url.replace('localhost', host)}/jwks")
    assert not oidc.asked


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
     "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
     "ff02::1", "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b:1::7f00:1", "fec0::1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Private, local, shared, metadata, multicast, and all that is translated into them."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_addresses_that_are_public(address: str) -> None:
    """What providers have."""
    assert is_public(address)


def _certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `name`, and a client's that trusts its maker."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "127.0.0.1":
        names = [x509.IPAddress(ipaddress.ip_address(name))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem, key_pem)
    return server, ssl.create_default_context(cafile=pem)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "evil.example"])
async def test_the_certificate_must_be_the_names(tmp_path: Path, name: str) -> None:
    """The connection goes to an address, and the certificate must still be the name's."""
    server, client = _certificate(tmp_path, name)
    async with provider(server) as oidc:
        fetch = GuardedFetch(allow_insecure=True, timeout_s=2.0, tls=client)
        if name == "localhost":
            assert "keys" in await fetch.json(f"{oidc.issuer}/jwks")
        else:
            with pytest.raises(UnavailableError):
                await fetch.json(f"{oidc.issuer}/jwks")
            assert not oidc.asked


def test_a_key_set_is_read_with_care() -> None:
    """Secrets, small keys, keys for encryption and garbage among good keys are passed over."""
    good = rsa_key("good").as_dict(private=True)
    with pytest.warns(match="Key size"):
        small = RSAKey.generate_key(1024, {"kid": "small"}).as_dict(private=False)
    junk = [
        OctKey.generate_key(256, {"kid": "secret"}).as_dict(),
        small,
        {**good, "use": "enc", "kid": "enc"},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "n": 7, "e": []},
        {"kty": "AKP", "alg": "ML-DSA-44"},
        {"kty": ["RSA"]},
        {**good, "n": "!!", "kid": "bad"},
        7,
        None,
    ]
    with pytest.warns(match="Key size"):
        (key,) = import_keys({"keys": [*junk, good, *junk]})
    assert key.get("kid") == "good"
    assert "d" not in key.as_dict()
    nothings: tuple[dict[str, Any], ...] = ({}, {"keys": {}}, {"keys": None})
    for nothing in nothings:
        with pytest.raises(UnavailableError):
            import_keys(nothing)


async def test_a_token_without_kid(gate: Gate, oidc: OidcProvider) -> None:
    """It fits while there is one key that could have made it."""
    ends = int(time.time()) + 3600
    await gate.tokens.identify(oidc.token(header={"kid": None}))
    oidc.keys.append(rsa_key("second"))
    gate.clock.ahead_s += 700
    await gate.tokens.identify(oidc.token(key=oidc.keys[0], jti="2", exp=ends))
    await asyncio.sleep(0.1)
    assert await gate.refusal(oidc.token(header={"kid": None}, exp=ends)) == "invalid_token"


async def test_errors_are_of_their_kind(gate: Gate, oidc: OidcProvider) -> None:
    """401 for the token, 403 for its subject, 503 for its provider."""
    with pytest.raises(AuthenticationError):
        await gate.tokens.identify("a.b.c")
    gate.put("acme", oidc.config(), status=TenantStatus.SUSPENDED)
    with pytest.raises(PermissionDeniedError):
        await gate.tokens.identify(oidc.token())
