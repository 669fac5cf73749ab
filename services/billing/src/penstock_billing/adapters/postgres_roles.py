"""As whom billing works in PostgreSQL (ADR 23): `migrations/0020_roles.sql` makes the roles."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from pydantic import SecretStr

from penstock_shared.runtime.migrations import migrate
from penstock_shared.runtime.postgres import Postgres, translated

PLATFORM_ROLE: Final = "penstock_billing"
"""Reaches all tenants' rows; owns nothing, changes no fact and lifts no policy."""
TENANT_ROLE: Final = "penstock_tenant"
"""Sees the rows of the tenant it is told, and none before that."""
_NAME: Final = "billing"
_ASK_FOR: Final = "select set_config('penstock.tenant', $1, true)"


async def migrate_billing(dsn: SecretStr) -> None:
    """Bring the schema up to date as the user of the address, who owns it; raises as `migrate`."""
    owner = await Postgres.connect(dsn, name=f"{_NAME}-migration", connections=1)
    try:
        await migrate(owner, "billing", "penstock_billing.adapters")
    finally:
        await owner.close()


async def connect_platform(dsn: SecretStr, connections: int) -> Postgres:
    """For the platform's own work, over all tenants; raises as `Postgres.connect`."""
    return await Postgres.connect(dsn, name=_NAME, connections=connections, role=PLATFORM_ROLE)


class TenantPostgres:
    """For one tenant's questions: PostgreSQL itself keeps every other tenant's rows away (I8)."""

    def __init__(self, postgres: Postgres) -> None:
        """`postgres` works as TENANT_ROLE."""
        self._postgres = postgres

    @classmethod
    async def connect(cls, dsn: SecretStr, connections: int) -> TenantPostgres:
        """Raises as `Postgres.connect`."""
        return cls(
            await Postgres.connect(
                dsn, name=f"{_NAME}-reads", connections=connections, role=TENANT_ROLE
            )
        )

    @contextlib.asynccontextmanager
    async def of(self, tenant: str) -> AsyncIterator[Any]:
        """A connection that sees this tenant's rows until the block ends, all at one moment.

        Raises:
            UnavailableError: no server answered.
        """
        with translated():
            async with (
                self._postgres.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await connection.execute(_ASK_FOR, tenant)
                yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self._postgres.close()
