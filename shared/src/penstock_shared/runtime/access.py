"""Who is calling: API keys and tenants, decided from memory."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_shared.contracts.accounts import (
    KeyRecord,
    TenantRecord,
    TenantStatus,
    hash_api_key,
    looks_like_api_key,
)
from penstock_shared.contracts.errors import AuthenticationError, PermissionDeniedError
from penstock_shared.runtime.kv import BucketMirror


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller."""

    tenant: TenantRecord
    key: KeyRecord


class AccessControl:
    """Authenticates API keys against the mirrored `keys` and `tenants` buckets."""

    def __init__(self, keys: BucketMirror[KeyRecord], tenants: BucketMirror[TenantRecord]) -> None:
        self._keys = keys
        self._tenants = tenants

    def authenticate(self, secret: str | None) -> Identity:
        """Whose key this is.

        Raises:
            AuthenticationError: missing, malformed, unknown or revoked.
            PermissionDeniedError: the tenant is suspended.
        """
        if not secret:
            msg = "No API key: send 'Authorization: Bearer <key>'."
            raise AuthenticationError(msg, code="missing_api_key")
        record = self._keys.get(hash_api_key(secret)) if looks_like_api_key(secret) else None
        if record is None or record.revoked_at is not None:
            msg = "This API key is not valid, or was revoked: ask your operator for a new one."
            raise AuthenticationError(msg)
        tenant = self._tenants.get(record.tenant)
        if tenant is None:
            msg = "The tenant of this key does not exist any more."
            raise AuthenticationError(msg, code="unknown_tenant")
        if tenant.status is not TenantStatus.ACTIVE:
            msg = "This tenant is suspended: ask your operator."
            raise PermissionDeniedError(msg, code="tenant_suspended")
        return Identity(tenant=tenant, key=record)
