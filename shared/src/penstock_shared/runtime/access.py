"""Who is calling, and what they may do: API keys and tenants, decided from memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from penstock_shared.contracts.accounts import (
    KeyRecord,
    Role,
    TenantRecord,
    hash_api_key,
)
from penstock_shared.contracts.errors import AuthenticationError, PermissionDeniedError
from penstock_shared.runtime.clock import Clock

V_co = TypeVar("V_co", covariant=True)


class Directory(Protocol[V_co]):
    """A bucket in memory."""

    def get(self, key: str) -> V_co | None:
        """The value of a key."""
        ...


class Permission(StrEnum):
    """What an endpoint asks of its caller."""

    READ = "read"  # models, responses
    WRITE = "write"  # make, cancel and delete responses
    KEYS = "keys"  # list, make, rotate and revoke the tenant's API keys
    BILLING = "billing"  # what the tenant used, what it costs, its invoices


_MAY: Final[dict[Role, frozenset[Permission]]] = {
    Role.READ_ONLY: frozenset({Permission.READ}),
    Role.MEMBER: frozenset({Permission.READ, Permission.WRITE}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller."""

    tenant: TenantRecord
    key_id: str
    """The API key's id, or one made from the token's issuer and subject."""
    role: Role = Role.MEMBER
    expires_at: datetime | None = None
    """When the credential ends; a WebSocket is closed then."""

    def may(self, permission: Permission) -> bool:
        """Whether the caller's role has it."""
        return permission in _MAY[self.role]

    def require(self, permission: Permission) -> None:
        """Check that the caller's role has it.

        Raises:
            PermissionDeniedError: it has not; the message names the role.
        """
        if not self.may(permission):
            msg = f"The role '{self.role}' may not do this: ask your tenant's admin."
            raise PermissionDeniedError(msg, code="insufficient_permissions")


class AccessControl:
    """Authenticates API keys against the mirrored `keys` and `tenants` buckets."""

    def __init__(
        self, keys: Directory[KeyRecord], tenants: Directory[TenantRecord], clock: Clock
    ) -> None:
        self._keys = keys
        self._tenants = tenants
        self._clock = clock

    def authenticate(self, secret: str | None) -> Identity:
        """Whose key this is.

        Raises:
            AuthenticationError: missing, malformed, unknown, expired or revoked.
            PermissionDeniedError: the tenant is suspended.
        """
        if not secret:
            msg = "No API key: send 'Authorization: Bearer <key>'."
            raise AuthenticationError(msg, code="missing_api_key")
        # A look-up in memory costs less than the checksum, which is for those who must go far.
        record = self._keys.get(hash_api_key(secret)) if secret.isascii() else None
        if record is None or record.revoked_at is not None:
            msg = "This API key is not valid, or was revoked: ask your operator for a new one."
            raise AuthenticationError(msg)
        if record.expires_at is not None and record.expires_at <= self._clock.now():
            msg = "This API key has expired: rotate it in time, or ask your admin for a new one."
            raise AuthenticationError(msg, code="expired_api_key")
        tenant = self.active_tenant(record.tenant)
        return Identity(tenant, record.key_id, record.role, record.expires_at)

    def active_tenant(self, name: str) -> TenantRecord:
        """A tenant that may use the platform.

        Raises:
            AuthenticationError: it does not exist.
            PermissionDeniedError: it is suspended.
        """
        tenant = self._tenants.get(name)
        if tenant is None:
            msg = "The tenant of this key does not exist any more."
            raise AuthenticationError(msg, code="unknown_tenant")
        refusal = tenant.refusal()
        if refusal is not None:
            raise refusal
        return tenant
