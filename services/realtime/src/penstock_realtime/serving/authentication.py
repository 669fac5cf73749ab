"""Who calls: an API key, or a token of the tenant's own identity provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock_realtime.serving.key_uses import KeyUses
from penstock_realtime.serving.tokens import Tokens
from penstock_shared.contracts.errors import AuthenticationError
from penstock_shared.runtime.access import AccessControl, Identity, Permission

_DOTS_OF_A_TOKEN: Final = 2
"""The compact form has three parts (RFC 7515 §7.1); an API key has no dot."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """Every face of the edge asks here, and nowhere else."""

    access: AccessControl
    tokens: Tokens
    uses: KeyUses

    async def caller(self, authorization: str | None, permission: Permission) -> Identity:
        """Whoever sent this `Authorization` header, if they may do this.

        Raises:
            AuthenticationError: no credential, or none that is valid.
            PermissionDeniedError: the role lacks the permission, or the tenant is suspended.
            UnavailableError: an identity provider's keys are needed and cannot be fetched.
        """
        identity = await self.identify(bearer(authorization))
        identity.require(permission)
        return identity

    async def identify(self, secret: str | None) -> Identity:
        """Whose credential this is; from memory, unless a provider's keys are first needed.

        Raises:
            AuthenticationError: it is missing or not valid.
            PermissionDeniedError: the tenant is suspended, or gives this subject no role.
            UnavailableError: an identity provider's keys are needed and cannot be fetched.
        """
        if secret is not None and secret.count(".") == _DOTS_OF_A_TOKEN:
            return await self.tokens.identify(secret)
        identity = self.access.authenticate(secret)
        self.uses.note(identity.key_id)
        return identity


def bearer(header: str | None) -> str | None:
    """The token of `Authorization: Bearer <token>` (RFC 6750 §2.1); None without the header.

    Raises:
        AuthenticationError: the header has another scheme.
    """
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        msg = "Send the API key as 'Authorization: Bearer <key>'."
        raise AuthenticationError(msg, code="unsupported_authorization")
    return token.strip()
