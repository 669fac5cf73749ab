"""What the verified claims of a token say about its subject."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from penstock_shared.contracts.accounts import IdentityProvider, Role

SUBJECT_PREFIX: Final = "sub-"
_MAY_MORE: Final = (Role.ADMIN, Role.MEMBER, Role.READ_ONLY)
_LAST_UNIX_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z


def subject_id(tenant: str, issuer: str, subject: str) -> str:
    """The name of a subject here: stable, a valid token of a NATS subject, no personal data.

    The tenant is part of it: the same person in two tenants has two names (I8).
    """
    named = f"{tenant}\x00{issuer}\x00{subject}".encode(errors="surrogatepass")
    return SUBJECT_PREFIX + hashlib.sha256(named).hexdigest()[:40]


def role_of(claims: Mapping[str, Any], provider: IdentityProvider) -> Role | None:
    """The role that the provider's configuration makes of the claims; None: no entry."""
    held = claim_at(claims, provider.role_claim) if provider.role_claim else None
    values = held if isinstance(held, list) else [held]
    roles = {provider.roles.get(value) for value in values if isinstance(value, str)}
    return next((role for role in _MAY_MORE if role in roles), provider.default_role)


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, which may hold dots, or by a path through objects; None if absent."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def end_of(claims: Mapping[str, Any], clock_skew_s: int) -> datetime:
    """When the token ends for us: `exp`, and the skew that is granted."""
    return datetime.fromtimestamp(min(claims["exp"] + clock_skew_s, _LAST_UNIX_S), UTC)
