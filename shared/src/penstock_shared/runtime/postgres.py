"""PostgreSQL: the pool, and what its failures mean to the domain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

from penstock_shared.contracts.errors import PermanentError, UnavailableError

_COMMAND_TIMEOUT_S: Final = 10.0
_CONNECT_TIMEOUT_S: Final = 3.0
_START_ATTEMPTS: Final = 40
_START_PAUSE_S: Final = 0.25
_REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)

# What goes away by itself: the server restarts, is full, or two transactions met.
_TRANSIENT: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.InterfaceError,  # the connection or the pool is closed or closing
    asyncpg.InternalClientError,  # "cannot switch to state": the server died under a statement
    TimeoutError,
    OSError,
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what may pass by itself into UnavailableError; everything else is a bug or bad data.

    Raises:
        UnavailableError: no server answered.
        PermanentError: it refuses the user or has no such database.
    """
    try:
        yield
    except _TRANSIENT as error:
        msg = "PostgreSQL does not answer: check PENSTOCK_POSTGRES_DSN and that the server runs."
        raise UnavailableError(msg, code="postgres_unavailable") from error
    except _REFUSED as error:
        msg = f"PostgreSQL refuses the service ({error}): correct PENSTOCK_POSTGRES_DSN."
        raise PermanentError(msg, code="postgres_refused") from error


class Postgres:
    """A pool of connections. One is borrowed per statement or transaction."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    async def connect(
        cls, dsn: SecretStr, *, name: str, connections: int, role: str | None = None
    ) -> Postgres:
        """Connect, waiting some seconds for a server that is only just starting.

        `name` is the service's, as the server's own statistics show it; `role` is what every
        connection works as, where that is not the user of the address.

        Raises:
            UnavailableError: no server answered.
            PermanentError: it refuses the user or has no such database.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                with translated():
                    return cls(await _pool(dsn, name, connections, role, at_once=1))
            except UnavailableError:
                if attempt == _START_ATTEMPTS:
                    raise
                await asyncio.sleep(_START_PAUSE_S)

    @classmethod
    async def prepare(
        cls, dsn: SecretStr, *, name: str, connections: int, role: str | None = None
    ) -> Postgres:
        """A pool that connects when it is first used: for those who can do without the server."""
        return cls(await _pool(dsn, name, connections, role, at_once=0))

    def acquire(self) -> Any:
        """Borrow a connection: `async with`.

        It is given back within the same time, or closed: a server that stands still does not even
        confirm that it has given up a statement.
        """
        return self._pool.acquire(timeout=_CONNECT_TIMEOUT_S)

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Run one statement and return its rows.

        Raises:
            UnavailableError: it may have taken effect or not.
        """
        with translated():
            async with self.acquire() as connection:
                rows: list[Any] = await connection.fetch(query, *args)
                return rows

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run one statement and return its first value; raises as `fetch` does."""
        with translated():
            async with self.acquire() as connection:
                return await connection.fetchval(query, *args)

    async def close(self) -> None:
        """Close every connection, politely for a second."""
        try:
            async with asyncio.timeout(1.0):
                await self._pool.close()
        except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self._pool.terminate()


async def _pool(
    dsn: SecretStr, name: str, connections: int, role: str | None, *, at_once: int
) -> Any:
    # Days and months are UTC's, whatever the server's default is.
    settings = {"application_name": f"penstock-{name}", "timezone": "UTC"}
    if role is not None:
        settings["role"] = role  # `reset all`, which the pool sends, leaves it as it is
    return await asyncpg.create_pool(
        dsn.get_secret_value(),
        connect=_connect,
        min_size=at_once,
        max_size=connections,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings=settings,
    )


async def _connect(*args: Any, **options: Any) -> Any:
    """Connect; what is wrong with the role that is asked for is told apart from bad data."""
    try:
        return await asyncpg.connect(*args, **options)
    except asyncpg.InvalidParameterValueError as error:
        msg = (
            f"PostgreSQL is not ready for the service ({error}): start billing, which makes it so."
        )
        raise UnavailableError(msg, code="postgres_unavailable") from error
    except asyncpg.InsufficientPrivilegeError as error:
        msg = (
            f"PostgreSQL refuses the service ({error}): grant the role to the user of the address."
        )
        raise PermanentError(msg, code="postgres_refused") from error
