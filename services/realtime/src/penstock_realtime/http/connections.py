"""How many connections each address and each tenant holds on this instance.

Of this instance alone: what they bound is its memory and its file descriptors.
"""

from __future__ import annotations

from starlette.types import Scope

from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import RateLimitedError

_RETRY_AFTER_S = 5.0


class Places:
    """Counts who is inside, by name."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, name: str, limit: int) -> bool:
        """Take one of this name's places; False when all are taken."""
        taken = self._taken.get(name, 0)
        if taken >= limit:
            return False
        self._taken[name] = taken + 1
        return True

    def give_back(self, name: str) -> None:
        """Give back one that was taken."""
        left = self._taken[name] - 1
        if left:
            self._taken[name] = left
        else:
            del self._taken[name]  # names come from outside: only those inside are remembered


class Connections:
    """The WebSockets that are open."""

    def __init__(self, per_tenant: int, per_address: int) -> None:
        self._per_tenant = per_tenant
        self._per_address = per_address
        self._tenants = Places()
        self._addresses = Places()

    def enter(self, tenant: TenantRecord, address: str | None) -> None:
        """Count one more; whoever enters must `leave`.

        Raises:
            RateLimitedError: the tenant or the address has as many as it may; nothing is counted.
        """
        limit = self._per_tenant if tenant.max_connections is None else tenant.max_connections
        if not self._tenants.take(tenant.tenant, limit):
            raise _too_many(f"This tenant has {limit} WebSockets open")
        if address is not None and not self._addresses.take(address, self._per_address):
            self._tenants.give_back(tenant.tenant)
            raise _too_many(f"Your address has {self._per_address} WebSockets open")

    def leave(self, tenant: TenantRecord, address: str | None) -> None:
        """Count one less."""
        self._tenants.give_back(tenant.tenant)
        if address is not None:
            self._addresses.give_back(address)


def client_address(scope: Scope) -> str | None:
    """Of whoever sent this request or opened this WebSocket, as `Front` has found it out."""
    address: str | None = scope["state"].get("address")
    return address


def _too_many(found: str) -> RateLimitedError:
    msg = f"{found}, as many as it may: close one, or use one for several responses."
    return RateLimitedError(msg, code="too_many_connections", retry_after_s=_RETRY_AFTER_S)
