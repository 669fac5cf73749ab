"""What a revoked key or a suspended tenant loses at once: its sockets and NATS connections."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from penstock_shared.contracts.accounts import KeyRecord, TenantRecord, TenantStatus


class KeyDirectory(Protocol):
    """All keys, from memory."""

    def values(self) -> Iterator[KeyRecord]:
        """Every key that was ever made."""
        ...


class Revocations:
    """Hears every change of the `keys` and `tenants` buckets.

    While the buckets are first read it stays quiet; `begin` then tells of all that is revoked.
    """

    def __init__(self, revoke: Callable[[Collection[str]], None]) -> None:
        self._revoke = revoke
        self._keys: KeyDirectory | None = None

    def begin(self, keys: KeyDirectory, suspended: Collection[str]) -> None:
        """The buckets are read. Revoke what was revoked while nobody listened."""
        self._keys = keys
        gone = {k.key_id for k in keys.values() if k.revoked_at or k.tenant in suspended}
        if gone:
            self._revoke(gone)

    def on_key(self, key: KeyRecord | None) -> None:
        """A key's record has changed."""
        if self._keys is not None and key is not None and key.revoked_at is not None:
            self._revoke({key.key_id})

    def on_tenant(self, tenant: TenantRecord | None) -> None:
        """A tenant's record has changed."""
        if self._keys is None or tenant is None or tenant.status is TenantStatus.ACTIVE:
            return
        self._revoke({k.key_id for k in self._keys.values() if k.tenant == tenant.tenant})
