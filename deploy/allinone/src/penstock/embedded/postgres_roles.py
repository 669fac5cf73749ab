"""The services' role and database, made when the server first answers."""

from typing import Any

import asyncpg

from penstock.embedded.postgres_cluster import SUPERUSER
from penstock.ports import LOOPBACK

ROLE = "penstock"
DATABASE = "penstock"
_CONNECT_TIMEOUT_S = 2.0
_ROLE_EXISTS = "select 1 from pg_roles where rolname = $1"
_DATABASE_EXISTS = "select 1 from pg_database where datname = $1"


class RoleProbe:
    """Asks whether the services can log in; makes their role and database if they are missing.

    The role owns the database and may create roles, yet is no superuser: row-level security,
    which superusers ignore, holds for whatever the services run as (I8).
    """

    def __init__(self, port: int, superuser_password: str, password: str) -> None:
        """Keep where to ask and both passwords."""
        self._port = port
        self._superuser_password = superuser_password
        self._password = password

    async def __call__(self) -> bool:
        """Answer whether the services' login works now."""
        try:
            connection = await self._connect(ROLE, self._password, DATABASE)
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidCatalogNameError):
            return await self._create()
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    async def _create(self) -> bool:
        connection = await self._connect(SUPERUSER, self._superuser_password, "postgres")
        try:
            verb = "alter" if await connection.fetchval(_ROLE_EXISTS, ROLE) else "create"
            # Utility statements take no parameters; the password has letters and digits only.
            await connection.execute(
                f"{verb} role {ROLE} login createrole createdb password '{self._password}'"
            )
            if not await connection.fetchval(_DATABASE_EXISTS, DATABASE):
                await connection.execute(f"create database {DATABASE} owner {ROLE}")
        finally:
            await connection.close()
        return True

    async def _connect(self, user: str, password: str, database: str) -> Any:
        return await asyncpg.connect(
            host=LOOPBACK,
            port=self._port,
            user=user,
            password=password,
            database=database,
            timeout=_CONNECT_TIMEOUT_S,
            ssl=False,
        )
