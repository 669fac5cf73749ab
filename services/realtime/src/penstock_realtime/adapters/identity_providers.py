"""Tokens of OpenID providers: their keys (JWK sets, RFC 7517), and signatures (RFC 7515, 7519).

Only compact tokens, only the algorithms that the provider's configuration allows, only keys from
its JWK set: what a token's own header says of keys (`jku`, `jwk`, `x5u`, `x5c`) is not looked at.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from joserfc import jwk, jws
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from penstock_realtime.errors import InvalidTokenError
from penstock_realtime.ports import TokenOrigin
from penstock_shared.contracts.accounts import IdentityProvider, ProviderUrl
from penstock_shared.contracts.errors import (
    AuthenticationError,
    PenstockError,
    UnavailableError,
)
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_FRESH_S: Final = 600.0
"""After this a key set is fetched again, in the background."""
_STALE_S: Final = 3600.0
"""For so long after its last fetch a key set serves while its provider is away."""
_RETRY_S: Final = 30.0
"""Nobody makes us fetch a provider's keys more often: not by unknown `kid`s, nor by failures."""
_MAX_KEYS: Final = 64
_MAX_SETS: Final = 4096
_RSA_BITS: Final = range(2048, 8193)
_PUBLIC: Final = frozenset({"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"})
_URL: Final = TypeAdapter[str](ProviderUrl)


class Fetch(Protocol):
    """Where documents come from."""

    async def json(self, url: str) -> dict[str, Any]:
        """The object at `url`; raises UnavailableError."""
        ...


class _Allowed(JWSRegistry):
    """Exactly these algorithms; the library's own would warn of EdDSA's old name at every use."""

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise InvalidTokenError
        return self.algorithms[name]


@dataclass(slots=True)
class _KeySet:
    keys: list[jwk.Key] = field(default_factory=list)
    fetched_s: float | None = None
    """When it last succeeded."""
    tried_s: float | None = None
    fetching: asyncio.Task[None] | None = None


class OpenIdProviders:
    """`IdentityProviders` over HTTPS, with key sets in memory."""

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._sets: OrderedDict[tuple[str, str | None], _KeySet] = OrderedDict()

    def origin(self, token: str) -> TokenOrigin:
        """Who is said to have made it, and for whom. Nothing of it is verified.

        Raises:
            AuthenticationError: it is no token.
        """
        claims = _claims(_extract(token))
        issuer, audience = claims.get("iss"), claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(issuer, str) or not isinstance(audiences, list):
            raise InvalidTokenError
        return TokenOrigin(issuer, frozenset(a for a in audiences if isinstance(a, str)))

    async def verify(self, token: str, provider: IdentityProvider) -> dict[str, Any]:
        """The claims of a token that this provider signed and that is valid now.

        Raises:
            AuthenticationError: it is not valid.
            UnavailableError: the provider's keys are needed and cannot be fetched.
        """
        signed = _extract(token)
        header = signed.headers()
        if "crit" in header or "b64" in header or header.get("alg") not in provider.algorithms:
            raise InvalidTokenError
        registry = _Allowed(algorithms=provider.algorithms, strict_check_header=False)
        key = await self._key(provider, header.get("kid"), header["alg"])
        try:
            if not jws.validate_compact(signed, key, registry=registry):
                raise InvalidTokenError
        except (JoseError, ValueError) as error:
            raise InvalidTokenError from error
        claims = _claims(signed)
        self._check(claims, provider)
        return claims

    def _check(self, claims: dict[str, Any], provider: IdentityProvider) -> None:
        rules = JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=provider.clock_skew_s,
            iss={"essential": True, "value": provider.issuer},
            aud={"essential": True, "values": list(provider.audiences)},
            sub={"essential": True},
            exp={"essential": True},
        )
        try:
            rules.validate(claims)
        except ExpiredTokenError as error:
            msg = "This token has expired: get a new one from your identity provider."
            raise AuthenticationError(msg, code="expired_token") from error
        except JoseError as error:
            raise InvalidTokenError from error

    async def _key(self, provider: IdentityProvider, kid: str | None, alg: str) -> jwk.Key:
        """The provider's key for this token; at most one fetch, shared by all who wait for it."""
        held = self._held(provider)
        now_s = self._clock.monotonic_s()
        age_s = None if held.fetched_s is None else now_s - held.fetched_s
        usable = age_s is not None and age_s < _STALE_S
        key = _choose(held.keys, kid, alg) if usable else None
        may_fetch = held.tried_s is None or now_s - held.tried_s >= _RETRY_S
        if key is not None:
            if may_fetch and age_s is not None and age_s >= _FRESH_S:
                self._begin(held, provider, now_s)
            return key
        if held.fetching is None and may_fetch:
            self._begin(held, provider, now_s)
        if held.fetching is not None:
            await asyncio.shield(held.fetching)
            usable = held.fetched_s is not None and now_s - held.fetched_s < _STALE_S
            key = _choose(held.keys, kid, alg) if usable else None
        if key is not None:
            return key
        if not usable:
            msg = "The identity provider's keys cannot be fetched at the moment: try again."
            raise UnavailableError(
                msg, code="identity_provider_unavailable", retry_after_s=_RETRY_S
            )
        raise InvalidTokenError

    def _held(self, provider: IdentityProvider) -> _KeySet:
        name = (provider.issuer, provider.jwks_uri)
        held = self._sets.setdefault(name, _KeySet())
        self._sets.move_to_end(name)
        if len(self._sets) > _MAX_SETS:
            self._sets.popitem(last=False)
        return held

    def _begin(self, held: _KeySet, provider: IdentityProvider, now_s: float) -> None:
        if held.fetching is None:
            held.tried_s = now_s
            held.fetching = asyncio.create_task(self._refresh(held, provider), name="provider-keys")

    async def _refresh(self, held: _KeySet, provider: IdentityProvider) -> None:
        try:
            held.keys = import_keys(await self._fetch.json(await self._jwks_uri(provider)))
            held.fetched_s = self._clock.monotonic_s()
        except PenstockError as error:
            log().warning("identity_provider.away", issuer=provider.issuer, reason=error.message)
        finally:
            held.fetching = None

    async def _jwks_uri(self, provider: IdentityProvider) -> str:
        """As configured, or as the provider's discovery document says."""
        if provider.jwks_uri is not None:
            return provider.jwks_uri
        path = "/.well-known/openid-configuration"
        document = await self._fetch.json(provider.issuer.rstrip("/") + path)
        # OpenID Connect Discovery §4.3: it must be the issuer's own.
        if document.get("issuer") != provider.issuer:
            msg = "The discovery document is another issuer's."
            raise UnavailableError(msg, code="identity_provider_unavailable")
        try:
            return _URL.validate_python(document.get("jwks_uri"))
        except ValidationError as error:
            msg = "The discovery document names no address of keys that may be used."
            raise UnavailableError(msg, code="identity_provider_unavailable") from error


def import_keys(document: dict[str, Any]) -> list[jwk.Key]:
    """The keys of a JWK set that can verify signatures; others are passed over (RFC 7517 §5).

    Raises:
        UnavailableError: it is no JWK set.
    """
    found = document.get("keys")
    if not isinstance(found, list):
        msg = "The identity provider's document is no JWK set."
        raise UnavailableError(msg, code="identity_provider_unavailable")
    keys = (_import(data) for data in found[:_MAX_KEYS] if isinstance(data, dict))
    return [key for key in keys if key is not None]


def _import(data: dict[str, Any]) -> jwk.Key | None:
    if data.get("use", "sig") != "sig" or data.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    public = {name: value for name, value in data.items() if name in _PUBLIC}
    try:
        key = jwk.JWKRegistry.import_key(public)
    except (JoseError, ValueError, TypeError, KeyError):  # whatever else a provider may publish
        return None
    if isinstance(key, jwk.RSAKey) and key.raw_value.key_size not in _RSA_BITS:
        return None
    return key


def _choose(keys: list[jwk.Key], kid: str | None, alg: str) -> jwk.Key | None:
    """The key that the token names; one without a name fits if there is no other choice."""
    fitting = [key for key in keys if (kid is None or key.get("kid") == kid) and _fits(key, alg)]
    if not fitting or (kid is None and len(fitting) > 1):
        return None
    return fitting[0]


def _fits(key: jwk.Key, alg: str) -> bool:
    try:
        JWSRegistry.algorithms[alg].check_key(key)
    except JoseError:
        return False
    return True


def _extract(token: str) -> jws.CompactSignature:
    try:
        signed = jws.extract_compact(token.encode())
        _Allowed(strict_check_header=False).check_header(signed.headers())
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidTokenError from error
    return signed


def _claims(signed: jws.CompactSignature) -> dict[str, Any]:
    try:
        claims = from_json(signed.payload)
    except ValueError as error:
        raise InvalidTokenError from error
    if not isinstance(claims, dict):
        raise InvalidTokenError
    return claims
