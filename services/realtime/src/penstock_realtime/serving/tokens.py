"""Tokens of the tenants' own identity providers: whose they are, and what they allow."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from penstock_realtime.domain.token_claims import end_of, role_of, subject_id
from penstock_realtime.errors import InvalidTokenError
from penstock_realtime.ports import IdentityProviders
from penstock_shared.contracts.accounts import IdentityProvider, Role, TenantRecord
from penstock_shared.contracts.errors import PermissionDeniedError
from penstock_shared.runtime.access import AccessControl, Identity
from penstock_shared.runtime.clock import Clock

MAX_TOKEN_CHARS: Final = 8 * 1024
_REMEMBERED: Final = 10_000
_REMEMBER_FOR: Final = timedelta(minutes=5)
"""A key that its provider withdrew serves no longer than this, besides the key set's own age."""


@dataclass(frozen=True, slots=True)
class _Verified:
    tenant: str
    generation: int
    """Of the providers' configuration that decided."""
    key_id: str
    role: Role
    expires_at: datetime
    until: datetime


class Tokens:
    """Authenticates tokens; a repeated one from memory, by its hash.

    `on_tenant` hears every tenant's record; with it the providers of all tenants are in memory.
    """

    def __init__(self, access: AccessControl, providers: IdentityProviders, clock: Clock) -> None:
        self._access = access
        self._providers = providers
        self._clock = clock
        self._owners: dict[tuple[str, str], dict[str, IdentityProvider]] = {}
        self._owned: dict[str, list[tuple[str, str]]] = {}
        self._generation = 0
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    def on_tenant(self, name: str, tenant: TenantRecord | None) -> None:
        """A tenant's record is there, has changed, or is gone."""
        providers = tenant.identity_providers if tenant is not None else ()
        if providers or name in self._owned:
            self._generation += 1  # all that was verified before is looked at again
        for pair in self._owned.pop(name, ()):
            owners = self._owners[pair]
            owners.pop(name, None)
            if not owners:
                del self._owners[pair]
        for provider in providers:
            for audience in provider.audiences:
                pair = (provider.issuer, audience)
                self._owners.setdefault(pair, {})[name] = provider
                self._owned.setdefault(name, []).append(pair)

    async def identify(self, token: str) -> Identity:
        """Whose token this is.

        Raises:
            AuthenticationError: it is not valid, or longer than 8 KiB.
            PermissionDeniedError: its subject has no role here, or the tenant is suspended.
            UnavailableError: its provider's keys are needed and cannot be fetched.
        """
        if len(token) > MAX_TOKEN_CHARS or not token.isascii():
            raise InvalidTokenError
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is None or known.until <= self._clock.now():
            known = await self._verify(token)
            self._remember(digest, known)
        while known.generation != self._generation:  # it may change while we wait, too
            known = await self._verify(token)
            self._remember(digest, known)
        tenant = self._access.active_tenant(known.tenant)
        return Identity(tenant, known.key_id, known.role, known.expires_at)

    async def _verify(self, token: str) -> _Verified:
        generation = self._generation
        origin = self._providers.origin(token)
        owners = [
            owner
            for audience in origin.audiences
            for owner in self._owners.get((origin.issuer, audience), {}).items()
        ]
        name, provider = owners[0] if owners else ("", None)
        if provider is None or any(other is not provider for _, other in owners):
            # Nobody's, or for several at once: then nobody can say whose request it is (I8).
            raise InvalidTokenError
        claims = await self._providers.verify(token, provider)
        role = role_of(claims, provider)
        if role is None:
            msg = "This token's subject has no role here: ask your tenant's admin."
            raise PermissionDeniedError(msg, code="no_role")
        end = end_of(claims, provider.clock_skew_s)
        key_id = subject_id(name, provider.issuer, claims["sub"])
        until = min(end, self._clock.now() + _REMEMBER_FOR)
        return _Verified(name, generation, key_id, role, end, until)

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
